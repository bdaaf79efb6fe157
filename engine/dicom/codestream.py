"""What a compressed picture claims about itself, read from its markers without decoding anything.

A 15 kB JPEG may claim 65,500 x 65,500 pixels, and decoders fill what is missing with grey: both are settled here, before a decoder runs.
Sources: ITU-T T.81 annex B (JPEG), T.87 annex C (JPEG-LS), T.800 annex A (JPEG 2000), PS3.5 annex G (RLE).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from engine.dicom.policy import Refusal


@dataclass(frozen=True)
class Claim:
    """Size, channels, bits and sign of a codestream; coding names the family; levels counts the wavelet reductions it allows.

    start, end: the bytes of the codestream itself, without boxes before and padding after it.
    """

    rows: int
    columns: int
    samples: int
    bits: int
    signed: bool = False
    coding: Literal["jpeg", "lossless", "jpegls", "j2k", "htj2k"] = "jpeg"
    levels: int = 0
    lossy: bool = False
    start: int = 0
    end: int | None = None


_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})


_PART = 1 << 18
"""Bytes of entropy-coded data that are searched for markers at once: what is held does not grow with the file."""


def jpeg_claim(data: bytes | memoryview) -> Claim:
    """The frame header of a JPEG or JPEG-LS stream whose segments and scans have been followed to the end of the image.

    Raises:
        Refusal: `decode_error` where the markers make no sense, `truncated` where the end of the image is missing.
    """
    if data[:2] != b"\xff\xd8":
        raise Refusal("decode_error")
    claim: Claim | None = None
    at, end = 2, len(data)
    while True:
        if at + 2 > end:
            raise Refusal("truncated")
        if data[at] != 0xFF:
            raise Refusal("decode_error")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xD9:
            break
        if at + 4 > end:
            raise Refusal("truncated")
        (length,) = struct.unpack_from(">H", data, at + 2)
        if length < 2 or marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            raise Refusal("decode_error")
        if at + 2 + length > end:
            raise Refusal("truncated")
        if marker in _SOF:
            if claim is not None or length < 8:
                raise Refusal("decode_error")
            bits, rows, columns, samples = struct.unpack_from(">BHHB", data, at + 4)
            coding: Literal["jpeg", "lossless", "jpegls"] = (
                "jpegls" if marker == 0xF7 else "lossless" if marker in (0xC3, 0xC7, 0xCB, 0xCF) else "jpeg"
            )
            claim = Claim(rows, columns, samples, bits, coding=coding, lossy=coding == "jpeg")
        at += 2 + length
        if marker == 0xDA:
            if claim is None:
                raise Refusal("decode_error")
            if claim.coding == "jpegls":
                if data[at - 3] > 0:
                    claim = Claim(claim.rows, claim.columns, claim.samples, claim.bits, coding="jpegls", lossy=True)
                at = _end_of_scan(data, at, stuffed_bit=True)
            else:
                at = _end_of_scan(data, at, stuffed_bit=False)
    if claim is None or not claim.rows or not claim.columns:
        raise Refusal("decode_error")
    return claim


def _end_of_scan(data: bytes | memoryview, at: int, *, stuffed_bit: bool) -> int:
    """The position of the marker that ends the entropy-coded data; JPEG stuffs a zero byte after FF, JPEG-LS a zero bit."""
    restart = None
    whole, lowest = np.frombuffer(data, np.uint8), 0x80 if stuffed_bit else 1
    while at + 1 < len(whole):
        part = whole[at : at + _PART + 1]
        marks = part[:-1] == 0xFF
        marks &= part[1:] >= lowest
        for mark in (np.flatnonzero(marks) + at).tolist():
            following = data[mark + 1]
            if 0xD0 <= following <= 0xD7:
                if restart is not None and following - 0xD0 != (restart + 1) % 8:
                    raise Refusal("decode_error")
                restart = following - 0xD0
            elif following != 0xFF:
                return int(mark)
            elif data[mark : mark + 8] == b"\xff" * 8:  # fill bytes exist, runs of them inside a scan do not
                raise Refusal("decode_error")
        at += len(part) - 1
    raise Refusal("truncated")


def j2k_claim(data: bytes | memoryview) -> Claim:
    """The SIZ and COD segments of a JPEG 2000 codestream (bare, or inside JP2 boxes), its tile-parts followed to the end.

    Raises:
        Refusal: `decode_error`, `truncated`.
    """
    at = 0
    if data[4:8] == b"jP  ":
        at = bytes(data).find(b"jp2c")
        if at < 0:
            raise Refusal("decode_error")
        at += 4
    if data[at : at + 4] != b"\xff\x4f\xff\x51":
        raise Refusal("decode_error")
    try:
        _, _, x1, y1, x0, y0, _, _, _, _, samples = struct.unpack_from(">HHIIIIIIIIH", data, at + 4)
        depth = data[at + 42]
        position, levels, transform, high_throughput = at + 2, 0, 1, False
        while data[position : position + 2] != b"\xff\x90":
            code, length = struct.unpack_from(">HH", data, position)
            if code < 0xFF00 or length < 2:
                raise Refusal("decode_error")
            if code == 0xFF50:
                high_throughput = True
            if code == 0xFF52:
                levels, transform = data[position + 9], data[position + 13]
            position += 2 + length
        end = _end_of_tile_parts(data, position)
    except (struct.error, IndexError):
        raise Refusal("truncated") from None
    if x1 <= x0 or y1 <= y0 or not samples:
        raise Refusal("decode_error")
    coding: Literal["j2k", "htj2k"] = "htj2k" if high_throughput else "j2k"
    return Claim(y1 - y0, x1 - x0, samples, (depth & 0x7F) + 1, bool(depth & 0x80), coding, levels, transform == 0, at, end)


def _end_of_tile_parts(data: bytes | memoryview, at: int) -> int:
    """Follow SOT segments by their lengths (Psot) to the end of the stream; one that ends before the last of them is truncated."""
    while True:
        code = data[at : at + 2]
        if code == b"\xff\xd9":
            return at + 2
        if code != b"\xff\x90":
            if at >= len(data) or not any(data[at:]):
                return at  # no EOC, but every tile-part is whole: old encoders write such files
            raise Refusal("decode_error")
        _, _, _, length, _, _ = struct.unpack_from(">HHHIBB", data, at)
        if length == 0:  # the last tile-part, to the end of the stream
            end = len(bytes(data).rstrip(b"\0"))
            if data[end - 2 : end] != b"\xff\xd9":
                raise Refusal("truncated")
            return end
        if length < 14:
            raise Refusal("decode_error")
        if at + length > len(data):
            raise Refusal("truncated")
        at += length


def rle_segments(data: bytes | memoryview, count: int) -> list[tuple[int, int]]:
    """The byte ranges of the segments of an RLE frame (PS3.5 G.5): `count` of them, one for every byte of a pixel, in rising order.

    Raises:
        Refusal: `truncated`, `decode_error`.
    """
    if len(data) < 64:
        raise Refusal("truncated")
    claimed, *offsets = struct.unpack_from("<16I", data)
    used = offsets[:count]
    if claimed != count or not used or used[0] != 64 or any(b <= a for a, b in pairwise(used)):
        raise Refusal("decode_error")
    if used[-1] >= len(data):
        raise Refusal("truncated")
    return list(pairwise([*used, len(data)]))
