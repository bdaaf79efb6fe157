"""Messages between the parent and its worker processes: two lengths, JSON, and raw bytes; no pickle, nothing that could run as code.

A worker whose decoder was exploited may send anything, so every field of an answer is checked.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from engine.dicom.reasons import DETAILS, FLAGS, OUTCOMES, REASONS
from engine.intake.read_result import KNOWN, ReadResult

_LENGTHS = struct.Struct("<II")
_LARGEST_HEAD, _LARGEST_BODY = 1 << 20, 256 << 20
"""Limits of a message in bytes: JSON, and image."""
_HASH = re.compile("(?:[0-9a-f]{64})?")
"""SHA-256, or '' where no bytes were read."""
_TEXTS = tuple(field.name for field in fields(ReadResult) if field.name not in {"path", "image", "flags", "rows", "columns"})


def pack(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """One message: two lengths, JSON, bytes."""
    text = json.dumps(head).encode("ascii")
    return _LENGTHS.pack(len(text), len(body)) + text + body


def message_in(buffer: bytearray) -> tuple[dict[str, Any], bytes] | None:
    """Remove one whole message from the front of `buffer`; None where it is incomplete.

    Raises:
        ValueError: the buffer does not start with a message.
    """
    if len(buffer) < _LENGTHS.size:
        return None
    head, body = _LENGTHS.unpack_from(buffer)
    if head > _LARGEST_HEAD or body > _LARGEST_BODY:
        raise ValueError("not a message")
    end = _LENGTHS.size + head + body
    if len(buffer) < end:
        return None
    parsed = json.loads(buffer[_LENGTHS.size : _LENGTHS.size + head])
    if not isinstance(parsed, dict):
        raise ValueError("not a message")
    rest = bytes(buffer[_LENGTHS.size + head : end])
    del buffer[:end]
    return parsed, rest


def pack_result(reading: ReadResult, *, spent: bool) -> bytes:
    """A read result as a message, without its path, which the parent knows. `spent`: the worker should be replaced."""
    image = reading.image
    head = {name: getattr(reading, name) for name in (*_TEXTS, "flags", "rows", "columns")}
    head["spent"] = spent
    head["shape"] = None if image is None else image.shape
    return pack(head, b"" if image is None else image.tobytes())


def unpack_result(path: Path, head: Mapping[str, Any], body: bytes) -> ReadResult:
    """The read result of a message, its codes checked against the closed lists.

    Raises:
        ValueError, KeyError, TypeError: the message is not a read result.
    """
    texts = {name: head[name] for name in _TEXTS}
    flags, sides = tuple(head["flags"]), (head["rows"], head["columns"])
    sound = (
        all(value is None or isinstance(value, str) for value in texts.values())
        and texts["outcome"] in OUTCOMES
        and (texts["reason"] in {*REASONS, KNOWN} if texts["outcome"] != "score" else texts["reason"] is None)
        and texts["detail"] in {"", *DETAILS}
        and FLAGS.keys() >= set(flags)
        and all(value is None or (type(value) is int and 0 <= value < 1 << 31) for value in sides)
        and _HASH.fullmatch(texts["content_hash"] or "")
        and (head["shape"] is not None) == (texts["outcome"] == "score")
    )
    if not sound:
        raise ValueError("not a read result")
    image = None
    if head["shape"] is not None:
        height, width = head["shape"]
        image = np.frombuffer(body, np.uint8).reshape(height, width).copy()
    return ReadResult(path=path, flags=flags, rows=head["rows"], columns=head["columns"], image=image, **texts)
