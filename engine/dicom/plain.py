"""Values of a data set that need no parser: whole numbers of two bytes, and printable ASCII (PS3.5 6.2).

Nearly every value of nearly every header is one of these, and pydicom takes 10 us for each. What is anything else is left to it.
"""

from __future__ import annotations

import re
from typing import Any

_PADDING = b"\0 "
_NUMBERS = {"DS": (float, re.compile(r" *[+-]?\d{1,14}(\.\d{0,14})? *")), "IS": (int, re.compile(r" *[+-]?\d{1,9} *"))}
_SAME_IN_ALL = frozenset({b"", b"ISO_IR 6", b"ISO_IR 100", b"ISO_IR 192", b"ISO 2022 IR 6", b"ISO 2022 IR 100"})
"""Defined terms of (0008,0005) in which a printable byte of ASCII is what it is in ASCII."""


def reads_ascii(character_set: bytes) -> bool:
    """Whether ASCII means itself in LO and SH values of a data set with this value of (0008,0005)."""
    return character_set.strip(_PADDING) in _SAME_IN_ALL


def plain_values(vr: str, value: bytes, *, little: bool, ascii_text: bool) -> list[Any] | None:
    """What pydicom would make of a value, [] of an empty one; None where that takes pydicom.

    vr: of PS3.5 6.2. ascii_text: `reads_ascii` of the data set.
    """
    if vr in ("US", "SS"):
        return [int.from_bytes(value, "little" if little else "big", signed=vr == "SS")] if len(value) == 2 else None
    if vr not in ("CS", "UI", "DS", "IS") and not (ascii_text and vr in ("LO", "SH")):
        return None
    text = value.rstrip(_PADDING).decode("latin-1")
    if not text.isascii() or not text.isprintable():
        return None
    parts = text.split("\\") if text else []
    if vr not in _NUMBERS:
        return parts
    number, form = _NUMBERS[vr]
    return [number(part) for part in parts] if all(map(form.fullmatch, parts)) else None
