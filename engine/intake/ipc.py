"""What a worker process and the one that started it tell each other: two lengths, JSON, and raw bytes; nothing that could run as code.

A decoder that was taken over can lie in such a message, and no more than that: what it says is checked before it is believed.
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
"""Bytes of JSON, and of a picture: what claims more is no message."""
_HASH = re.compile("(?:[0-9a-f]{64})?")
"""SHA-256, or '' where no byte was read."""
_TEXTS = tuple(field.name for field in fields(ReadResult) if field.name not in {"path", "image", "flags", "rows", "columns"})


def pack(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """One message: two lengths, JSON, bytes."""
    text = json.dumps(head).encode("ascii")
    return _LENGTHS.pack(len(text), len(body)) + text + body


def message_in(buffer: bytearray) -> tuple[dict[str, Any], bytes] | None:
    """Take one whole message out of the front of `buffer`, None where it is not all there yet.

    Raises:
        ValueError: what stands there is no message.
    """
    if len(buffer) < _LENGTHS.size:
        return None
    head, body = _LENGTHS.unpack_from(buffer)
    if head > _LARGEST_HEAD or body > _LARGEST_BODY:
        raise ValueError("no message")
    end = _LENGTHS.size + head + body
    if len(buffer) < end:
        return None
    parsed = json.loads(buffer[_LENGTHS.size : _LENGTHS.size + head])
    if not isinstance(parsed, dict):
        raise ValueError("no message")
    rest = bytes(buffer[_LENGTHS.size + head : end])
    del buffer[:end]
    return parsed, rest


def pack_reading(reading: ReadResult, *, spent: bool) -> bytes:
    """A reading as a message; its path stays behind, the parent knows it. `spent`: the child wants to be replaced."""
    picture = reading.image
    head = {name: getattr(reading, name) for name in (*_TEXTS, "flags", "rows", "columns")}
    head["spent"] = spent
    head["shape"] = None if picture is None else picture.shape
    return pack(head, b"" if picture is None else picture.tobytes())


def unpack_reading(path: Path, head: Mapping[str, Any], body: bytes) -> ReadResult:
    """The reading of a message, its codes those of the policy: a child that was taken over may write anything.

    Raises:
        ValueError, KeyError, TypeError: the message is no reading.
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
        raise ValueError("no reading")
    picture = None
    if head["shape"] is not None:
        height, width = head["shape"]
        picture = np.frombuffer(body, np.uint8).reshape(height, width).copy()
    return ReadResult(path=path, flags=flags, rows=head["rows"], columns=head["columns"], image=picture, **texts)
