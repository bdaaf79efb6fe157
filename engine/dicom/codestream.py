"""What a compressed image claims about itself, read from its markers without decoding.

A 15 kB JPEG may claim 65,500 x 65,500 pixels, and decoders fill missing data with grey: both are checked here, before a decoder runs.
Sources: ITU-T T.81 annex B (JPEG), T.87 annex C (JPEG-LS), T.800 annex A (JPEG 2000), PS3.5 annex G (RLE).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from engine.dicom.reasons import Refusal


@dataclass(frozen=True)
class Claim:
    """Size, channels, bits and sign of a codestream; coding is the family; levels counts the wavelet reductions that it allows.

    start, end: the bytes of the codestream itself, without boxes before it and padding after it. scans: of JPEG; data_end: where the
    entropy-coded data of the last scan end, at a marker. whole: False where tiles, announced tile-parts, restart markers or the last bits
    of progressive coding are missing; check it after the size, which may be the cause.
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
    scans: int = 0
    data_end: int = 0
    whole: bool = True


_HUFFMAN = frozenset({0xC0, 0xC1, 0xC2, 0xC3})
"""Frame headers of sequential, progressive and lossless JPEG."""
_OTHER_FRAMES = frozenset({0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
"""Hierarchical and arithmetic coding: no transfer syntax has them, and an arithmetic decoder makes an image of any bytes."""
_PROGRESSIVE, _LOSSLESS, _JPEG_LS = 0xC2, 0xC3, 0xF7
_END_OF_IMAGE, _START_OF_SCAN, _RESTART_INTERVAL = 0xD9, 0xDA, 0xDD


_PART = 1 << 18
"""Bytes of entropy-coded data that are searched for markers at once, so that memory does not grow with the file."""
_NONE = np.zeros(0, np.int64)
_MOST_SEGMENTS, _MOST_SCANS = 10_000, 200
"""No encoder writes nearly so many; thousands of scans of a few bytes each keep a decoder busy for minutes."""


def jpeg_claim(data: bytes | memoryview) -> Claim:
    """The frame header of a JPEG or JPEG-LS stream whose segments and scans were followed to the end of the image.

    Raises:
        Refusal: `decode_error` for inconsistent markers, `truncated` where the end of the image is missing, `resource_limit` for more
            segments or scans than any encoder writes.
    """
    if data[:2] != b"\xff\xd8":
        raise Refusal("decode_error")
    frame, walk = _Frame(), Segments(data)
    for marker, body in walk:
        if marker in _OTHER_FRAMES:
            raise Refusal("decode_error")
        if marker in _HUFFMAN or marker == _JPEG_LS:
            frame.begin(marker, body)
        elif marker == _RESTART_INTERVAL and len(body) >= 2:
            frame.interval = int.from_bytes(body[:2])
        elif marker == _START_OF_SCAN:
            walk.at, restarts = _end_of_scan(data, walk.at, stuffed_bit=frame.marker == _JPEG_LS)
            frame.scan(body, restarts)
            frame.data_end = walk.at
    return frame.claim(walk.at)


class Segments:
    """The marker segments of a JPEG stream after SOI: (marker, body) up to EOI. at: the byte after the last one; callers move it over
    scans.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self.data, self.at = data, 2

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        data, end, segments = self.data, len(self.data), 0
        while True:
            if self.at + 2 > end:
                raise Refusal("truncated")
            if data[self.at] != 0xFF:
                raise Refusal("decode_error")
            marker = data[self.at + 1]
            if marker == 0xFF:  # fill byte
                self.at += 1
                continue
            if marker == _END_OF_IMAGE:
                self.at += 2
                return
            if self.at + 4 > end:
                raise Refusal("truncated")
            (length,) = struct.unpack_from(">H", data, self.at + 2)
            if length < 2 or marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
                raise Refusal("decode_error")
            if self.at + 2 + length > end:
                raise Refusal("truncated")
            body = bytes(data[self.at + 4 : self.at + 2 + length])
            self.at += 2 + length
            segments += 1
            if segments > _MOST_SEGMENTS:
                raise Refusal("resource_limit")
            yield marker, body


class _Frame:
    """Frame and scans of a JPEG stream, checked as far as possible without decoding."""

    def __init__(self) -> None:
        self.marker = self.interval = self.scans = self.data_end = 0
        self.bits = self.rows = self.columns = 0
        self.lossy, self.whole = False, True
        self.sampling: dict[int, tuple[int, int]] = {}  # component -> horizontal and vertical factor
        self.left: dict[int, list[int]] = {}  # of progressive coding: component -> bits that are still missing, per coefficient

    def begin(self, marker: int, body: bytes) -> None:
        if self.marker or len(body) < 6 or len(body) < 6 + 3 * body[5]:
            raise Refusal("decode_error")
        self.marker = marker
        self.bits, self.rows, self.columns, samples = struct.unpack_from(">BHHB", body)
        self.samples = samples
        for at in range(6, 6 + 3 * samples, 3):
            self.sampling[body[at]] = (body[at + 1] >> 4, body[at + 1] & 15)
        if marker == _PROGRESSIVE:
            self.left = {component: [self.bits] * 64 for component in self.sampling}

    def scan(self, body: bytes, restarts: int) -> None:
        """One scan header and the restart markers that followed it (T.81 B.2.3, T.87 C.2.3)."""
        count = body[0] if body else 0
        if not self.marker or not count or len(body) < 4 + 2 * count:
            raise Refusal("decode_error")
        components, (first, last, shifts) = body[1 : 1 + 2 * count : 2], body[1 + 2 * count : 4 + 2 * count]
        self.scans += 1
        if self.scans > _MOST_SCANS:
            raise Refusal("resource_limit")
        if self.marker == _JPEG_LS:
            self.lossy |= first > 0  # NEAR
            if any(body[2 : 2 + 2 * count : 2]):  # a mapping table: what is coded are indexes, not grey values
                raise Refusal("decode_error")
            return
        self.lossy |= self.marker != _LOSSLESS or shifts & 15 > 0  # a point transform drops the lowest bits
        for component in components:
            if component in self.left and first <= last < 64:
                self.left[component][first : last + 1] = [shifts & 15] * (last + 1 - first)
        if self.interval and restarts + 1 < -(-self._units(components) // self.interval):
            self.whole = False

    def _units(self, components: bytes) -> int:
        """MCUs of a scan: samples (lossless) or blocks of 8 x 8, alone or interleaved with those of other components (T.81 A.2)."""
        side = 1 if self.marker == _LOSSLESS else 8
        factors = list(self.sampling.values())
        if any(not h or not v for h, v in factors):
            raise Refusal("decode_error")
        most_h, most_v = max(h for h, _ in factors), max(v for _, v in factors)
        wide, high = side * most_h, side * most_v
        if len(components) == 1:
            h, v = self.sampling.get(components[0], factors[0])
            wide, high = wide // h if most_h % h == 0 else side, high // v if most_v % v == 0 else side
        return -(-self.columns // wide) * -(-self.rows // high)

    def claim(self, end: int) -> Claim:
        if not self.scans or not self.rows or not self.columns:
            raise Refusal("decode_error")
        coding: Literal["jpeg", "lossless", "jpegls"] = (
            "jpegls" if self.marker == _JPEG_LS else "lossless" if self.marker == _LOSSLESS else "jpeg"
        )
        return Claim(
            self.rows,
            self.columns,
            self.samples,
            self.bits,
            coding=coding,
            lossy=self.lossy,
            end=end,
            scans=self.scans,
            data_end=self.data_end,
            whole=self.whole and not any(any(bits) for bits in self.left.values()),
        )


def _end_of_scan(data: bytes | memoryview, at: int, *, stuffed_bit: bool) -> tuple[int, int]:
    """The position of the marker that ends the entropy-coded data, and the number of restart markers before it.

    JPEG stuffs a zero byte after FF, JPEG-LS a zero bit.
    """
    restart, restarts = None, 0
    whole = np.frombuffer(data, np.uint8)
    while at + 1 < len(whole):
        part = whole[at : at + _PART + 1]
        if stuffed_bit:  # (next | 7F) & byte is FF where both hold: half the time of two comparisons
            both = part[1:] | 0x7F
            both &= part[:-1]
            marks = np.flatnonzero(both == 0xFF) if both.max() == 0xFF else _NONE
        else:
            here = (part[:-1] == 0xFF) & (part[1:] != 0)
            marks = np.flatnonzero(here) if here.any() else _NONE
        for mark in (marks + at).tolist():
            following = data[mark + 1]
            if 0xD0 <= following <= 0xD7:
                if restart is not None and following - 0xD0 != (restart + 1) % 8:
                    raise Refusal("decode_error")
                restart = following - 0xD0
                restarts += 1
            elif following != 0xFF:
                return int(mark), restarts
            elif data[mark : mark + 8] == b"\xff" * 8:  # fill bytes occur, runs of them inside a scan do not
                raise Refusal("decode_error")
        at += len(part) - 1
    raise Refusal("truncated")


def j2k_claim(data: bytes | memoryview) -> Claim:
    """The SIZ and COD segments of a JPEG 2000 codestream (bare, or inside JP2 boxes), its tile-parts followed to the end.

    Raises:
        Refusal: `decode_error`, `truncated`, `resource_limit`.
    """
    at = _inside_boxes(data) if data[4:8] == b"jP  " else 0
    if data[at : at + 4] != b"\xff\x4f\xff\x51":
        raise Refusal("decode_error")
    try:
        _, _, x1, y1, x0, y0, wide, high, left, top, samples = struct.unpack_from(">HHIIIIIIIIH", data, at + 4)
        depth = data[at + 42]
        position, levels, transform, high_throughput, segments = at + 2, 0, 1, False, 0
        while data[position : position + 2] != b"\xff\x90":
            code, length = struct.unpack_from(">HH", data, position)
            if code < 0xFF00 or length < 2:
                raise Refusal("decode_error")
            if code == 0xFF50:
                high_throughput = True
            if code == 0xFF52:
                levels, transform = data[position + 9], data[position + 13]
            position += 2 + length
            segments += 1
            if segments > _MOST_SEGMENTS:
                raise Refusal("resource_limit")
        if x1 <= x0 or y1 <= y0 or not samples or not wide or not high or left > x0 or top > y0:
            raise Refusal("decode_error")
        tiles = -(-(x1 - left) // wide) * -(-(y1 - top) // high)
        end, whole = _end_of_tile_parts(data, position, tiles)
    except (struct.error, IndexError):
        raise Refusal("truncated") from None
    coding: Literal["j2k", "htj2k"] = "htj2k" if high_throughput else "j2k"
    bits, signed = (depth & 0x7F) + 1, bool(depth & 0x80)
    if x0 or y0:
        levels = 0  # an image that begins inside the reference grid: Pillow does not reduce it
    return Claim(y1 - y0, x1 - x0, samples, bits, signed, coding, levels, transform == 0, at, end, whole=whole)


def _inside_boxes(data: bytes | memoryview) -> int:
    """The first byte of the codestream of a JP2 file (T.800 annex I). With a palette its values are indexes: such a file is rejected."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1 and at + 16 <= len(data):
            (length,), head = struct.unpack_from(">Q", data, at + 8), 16
        if kind == b"jp2c":
            return at + head
        if length < head or (kind == b"jp2h" and b"pclr" in bytes(data[at + head : at + length])):
            raise Refusal("decode_error")
        at += length
    raise Refusal("truncated")


def _end_of_tile_parts(data: bytes | memoryview, at: int, tiles: int) -> tuple[int, bool]:
    """Follow SOT segments by their lengths (Psot) to the end of the stream; returns it, and whether every tile is present.

    A stream that ends before the last tile-part does is truncated.
    """
    parts: dict[int, int] = {}
    announced: dict[int, int] = {}
    end = None
    while end is None:
        code = data[at : at + 2]
        if code == b"\xff\xd9":
            end = at + 2
        elif code != b"\xff\x90":
            if np.frombuffer(data, np.uint8)[at:].any():
                raise Refusal("decode_error")
            end = at  # no EOC, but every tile-part is whole: old encoders write such files
        else:
            _, _, tile, length, _, count = struct.unpack_from(">HHHIBB", data, at)
            parts[tile] = parts.get(tile, 0) + 1
            announced[tile] = max(count, announced.get(tile, 1))
            if parts[tile] > 255 or 0 < length < 14:
                raise Refusal("decode_error")
            if at + length > len(data):
                raise Refusal("truncated")
            if length == 0:  # the last tile-part, to the end of the stream
                end = len(bytes(data).rstrip(b"\0"))
                if data[end - 2 : end] != b"\xff\xd9":
                    raise Refusal("truncated")
            at += length
    return end, len(parts) == tiles and all(parts[tile] >= count for tile, count in announced.items())


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
