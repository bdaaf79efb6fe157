"""Where the elements of a data set lie: lengths, order and nesting are checked here before any parser sees a value (PS3.5 section 7).

pydicom returns an empty data set without an error for many damaged files, keeps the last of repeated elements, and recurses once per
level of nesting. This walk does none of that: it reads tags and lengths only, in one flat loop, and says what is wrong where.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Literal

from engine.dicom.policy import Refusal

Damage = Literal["truncated", "corrupt_header", "nesting_too_deep"]
TRANSFER_SYNTAX, ROWS, PIXEL_DATA = 0x00020010, 0x00280010, 0x7FE00010
IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
NO_SYNTAX = "0"
"""Stands for a transfer syntax UID that is none."""
UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END, _PADDING = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFCFFFC
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())


@dataclass(frozen=True)
class Element:
    """One top-level element: its first byte, the first byte of its value, one past its last byte, and its VR ('' when implicit)."""

    start: int
    value: int
    stop: int
    vr: str


@dataclass
class Outline:
    """The top level of one data set.

    elements: tag -> Element, pixel data included. fragments: byte ranges of the encapsulated pixel data, basic offset table excluded.
    has_picture: Rows or pixel data were met, whole or not. damage: why the walk ended early, None when it reached the end.
    trailing: zero bytes follow the data set.
    """

    implicit: bool
    little: bool
    elements: dict[int, Element] = field(default_factory=dict)
    fragments: list[tuple[int, int]] = field(default_factory=list)
    encapsulated: bool = False
    has_picture: bool = False
    damage: Damage | None = None
    trailing: bool = False


@dataclass(frozen=True)
class FileMeta:
    """The file meta group: the transfer syntax UID ('' when absent), and where the data set begins.

    bare: there is neither preamble nor group, as in files of before 1993; only then may the encoding be guessed.
    """

    transfer_syntax: str
    body: int
    sop_class: str = ""
    bare: bool = False


def _short_form(vr: bytes) -> bool:
    """Whether a VR has a 16-bit length; unknown ones of letters are read so, as dcmtk and pydicom do."""
    return vr in _SHORT or (vr not in _LONG and len(vr) == 2 and b"AA" <= vr <= b"ZZ")


def starts_data_set(data: memoryview, at: int = 0) -> bool:
    """Whether a group 0008 element of a plausible length begins here: a data set without preamble and meta group."""
    if len(data) < at + 8:
        return False
    group, element = struct.unpack_from("<HH", data, at)
    if group not in (0x0008, 0x0002) or element > 0x3000:
        return False
    vr = bytes(data[at + 4 : at + 6])
    (length,) = struct.unpack_from("<I", data, at + 4)
    return vr in _SHORT or vr in _LONG or (group == 0x0008 and length <= min(len(data) - at, 1 << 16))


def read_meta(data: memoryview) -> FileMeta:
    """The file meta information (PS3.10 section 7.1); always explicit VR little endian.

    Raises:
        Refusal: `not_dicom`, `truncated`, `corrupt_header`.
    """
    at = 0
    if len(data) >= 132 and bytes(data[128:132]) == b"DICM" and not (starts_data_set(data) and not starts_data_set(data, 132)):
        at = 132
        if len(data) == at:
            raise Refusal("truncated")
    elif not starts_data_set(data):
        raise Refusal("not_dicom")
    elif bytes(data[:2]) != b"\x02\x00":
        return FileMeta("", 0, bare=True)
    found: dict[int, bytes] = {}
    while at + 8 <= len(data) and bytes(data[at : at + 2]) == b"\x02\x00":
        tag = 0x00020000 | struct.unpack_from("<H", data, at + 2)[0]
        vr = bytes(data[at + 4 : at + 6])
        if vr in _LONG:
            if at + 12 > len(data):
                raise Refusal("truncated")
            (length,) = struct.unpack_from("<I", data, at + 8)
            value = at + 12
        elif _short_form(vr):
            (length,) = struct.unpack_from("<H", data, at + 6)
            value = at + 8
        else:
            raise Refusal("corrupt_header")
        if value + length > len(data):
            raise Refusal("truncated" if length < 1 << 16 else "corrupt_header")
        if tag == TRANSFER_SYNTAX and vr != b"UI":
            raise Refusal("corrupt_header")
        found[tag] = bytes(data[value : value + length])
        at = value + length
    if TRANSFER_SYNTAX not in found and 0 < len(data) - at < 8 and len(data) > 132:
        raise Refusal("truncated")
    text = found.get(TRANSFER_SYNTAX, b"").rstrip(b"\0 ")
    named = text.decode("ascii") if len(text) <= 64 and all(byte in b"0123456789." for byte in text) else NO_SYNTAX
    return FileMeta(named, at, found.get(0x00020002, b"").rstrip(b"\0 ").decode("ascii", "replace"))


def _is_explicit(data: memoryview, at: int, little: bool) -> bool:
    vr = bytes(data[at + 4 : at + 6])
    return vr in _SHORT or vr in _LONG


def outline(data: memoryview, begin: int, transfer_syntax: str, *, max_depth: int = 64) -> Outline:
    """Walk the data set that begins at `begin`; never raises for damage, which is noted in `Outline.damage`.

    A data set that is implicit where explicit was announced (or the reverse) is walked as what it is: the VR of the first element tells.
    `max_depth` counts nested sequences. Sequences of defined length are stepped over whole.
    """
    little = transfer_syntax != BIG_ENDIAN
    implicit = transfer_syntax == IMPLICIT or transfer_syntax == ""
    if len(data) >= begin + 8:
        implicit = not _is_explicit(data, begin, little)
    result = Outline(implicit, little)
    try:
        _walk(data, begin, result, max_depth)
    except struct.error:
        result.damage = "truncated"
    if not result.elements and not result.has_picture and result.damage != "nesting_too_deep":
        result.damage = "corrupt_header"  # not one whole element
    return result


def _walk(data: memoryview, at: int, result: Outline, max_depth: int) -> None:
    order = "<" if result.little else ">"
    pair, u16, u32 = struct.Struct(order + "HH").unpack_from, struct.Struct(order + "H").unpack_from, struct.Struct(order + "I").unpack_from
    end, implicit, elements = len(data), result.implicit, result.elements
    depth, opened, implicit_from = 0, (0, 0), UNDEFINED  # the top-level sequence that is open, and the depth below which VRs are implicit
    last = -1
    while at < end:
        if at + 8 > end:
            result.damage = None if not any(data[at:]) else "truncated"
            result.trailing = result.damage is None
            return
        group, element = pair(data, at)
        tag = group << 16 | element
        start = at
        if group == 0xFFFE:
            (length,) = u32(data, at + 4)
            at += 8
            if depth == 0 or tag not in (_ITEM, _ITEM_END, _SEQUENCE_END):
                result.damage = "corrupt_header"
                return
            if tag == _ITEM and length != UNDEFINED:
                at += length
            elif tag == _SEQUENCE_END:
                depth -= 1
                if depth < implicit_from:
                    implicit_from = UNDEFINED
                if depth == 0:
                    elements[opened[0]] = Element(opened[1], opened[1], at, "SQ")
            continue
        if depth == 0 and tag == 0 and not any(data[at:]):
            result.trailing = True
            return
        if implicit or depth >= implicit_from:
            vr, value = b"", at + 8
            (length,) = u32(data, at + 4)
        else:
            vr = bytes(data[at + 4 : at + 6])
            if _short_form(vr):
                (length,) = u16(data, at + 6)
                value = at + 8
            elif vr in _LONG:
                (length,) = u32(data, at + 8)
                value = at + 12
            else:
                result.damage = "corrupt_header"
                return
        if depth == 0:
            if tag in elements and not group & 1:
                result.damage = "corrupt_header"
                return
            if tag < last and (tag < 0x00080000 or last >= PIXEL_DATA):
                result.damage = "corrupt_header"
                return
            last = max(last, tag)
            result.has_picture |= tag in (ROWS, PIXEL_DATA)
        if length == UNDEFINED:
            if tag == PIXEL_DATA:  # an icon may hold some too
                at = _fragments(data, value, result, note=depth == 0)
                if result.damage:
                    return
                if depth == 0:
                    elements[tag] = Element(start, value, at, vr.decode("latin-1"))
                continue
            if vr not in (b"", b"SQ", b"UN"):
                result.damage = "corrupt_header"
                return
            if depth == 0:
                opened = (tag, start)
            if vr == b"UN" and implicit_from == UNDEFINED:
                implicit_from = depth + 1  # PS3.5 6.2.2: an unknown sequence of undefined length is implicit inside
            depth += 1
            if depth > max_depth:
                result.damage = "nesting_too_deep"
                return
            at = value
            continue
        at = value + length
        if at > end:
            result.damage = "truncated"
            return
        if depth == 0:
            elements[tag] = Element(start, value, at, vr.decode("latin-1"))
    if depth:
        result.damage = "truncated"


def _fragments(data: memoryview, at: int, result: Outline, *, note: bool) -> int:
    """Follow the fragments of encapsulated pixel data (PS3.5 A.4), noting them for the picture itself; the position after the delimiter."""
    item = struct.Struct("<HHI" if result.little else ">HHI").unpack_from
    result.encapsulated |= note
    first, end = True, len(data)
    while True:
        if at + 8 > end:
            result.damage = "truncated"
            return at
        group, element, length = item(data, at)
        at += 8
        if (group, element) == (0xFFFE, 0xE0DD):
            return at
        if (group, element) != (0xFFFE, 0xE000) or length == UNDEFINED:
            result.damage = "corrupt_header"
            return at
        if at + length > end:
            result.damage = "truncated"
            return at
        if note and not first:
            result.fragments.append((at, at + length))
        first = False
        at += length
