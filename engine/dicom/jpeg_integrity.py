"""Integrity checks for decoded JPEG: did the decoder stay in step with its data to the end?

A damaged byte makes a decoder read more symbols than were written, or fewer. Everything after it is shifted, and the end of the image is
filled with leftovers or grey; libjpeg reports neither. Two checks find this:
  - DCT: `block_row_discontinuity` measures sharp steps along the edges between rows of blocks;
  - lossless: `append_check_row` appends one row of known data. If it does not decode exactly, the decoder lost sync before it. The row
    costs a thousandth of the decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from engine.dicom.codestream import Claim, Segments

# --- DCT-coded images: discontinuities between rows of blocks -------------------------------------------------------------------

BLOCK = 8
CERTAIN, DOUBTFUL = 0.5, 0.2
"""Thresholds of `BlockEdges`: above CERTAIN, `pair` rejects the image; above DOUBTFUL, either value has it decoded again to find out.
Sound radiographs of JPEG quality 30 to 90 reached 0.25, with a black panel on the grid of blocks 0.46."""
_SHARP, _USUAL, _LEAST = 4, 2, 1 / 128
"""A step across an edge is sharp where it is more than _SHARP times the steps next to it, _USUAL times the usual step across edges, and
_LEAST of black to white: at low quality blocks are flat and do not meet."""
_ENOUGH = 0.2
"""Share of the columns that must not be flat for all of their shares to count."""
_RUNS, _RUN = 4, 32
"""Runs of neighbouring columns that are sampled, evenly spaced: single columns would cost as much memory traffic as all of them."""


class BlockEdges(NamedTuple):
    """Discontinuity between rows of blocks, in [0, 1]; flat columns left out.

    pair: the share of sharp pixels on the side of the damage less that on the other side, for two edges one below the other; the lesser of
    the two. single: the share of sharp pixels along one edge.
    """

    pair: float
    single: float


def block_row_discontinuity(values: NDArray[Any], side: int, span: int) -> BlockEdges:
    """The worst discontinuity of values (h, w) or (h, w, channels) of blocks `side` pixels high; 0 for blocks of one pixel.

    span: the difference of white and black.
    """
    if side < 2 or values.shape[0] < side + 2:
        return BlockEdges(0.0, 0.0)
    sharp, uneven = edges_of(values, side, span)
    counts, columns = sharp.sum(1), sharp.shape[1]
    pairs = np.flatnonzero(counts[:-1] + counts[1:] > _ENOUGH * DOUBTFUL * columns / 2).tolist()
    stepped = (_pair_score(sharp[at : at + 2], uneven[at : at + 2]) for at in pairs)
    return BlockEdges(max((0.0, *stepped)), float(_share(counts, uneven.sum(1), columns).max()))


def edges_of(values: NDArray[Any], side: int, span: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each edge between two rows of blocks: where it is sharp, and where the image is flat neither above nor below it; (edges,
    columns).
    """
    if values.ndim == 3:
        values = values[..., 1]
    (rows, columns), (down, right) = values.shape, values.strides
    edges = (rows - 2) // side
    runs = max(1, min(_RUNS, columns // _RUN))
    run = min(_RUN, columns)
    apart = (columns - run) // max(1, runs - 1)
    sampled = as_strided(
        values[side - 2 :], (4, edges, runs, run), (down, side * down, apart * right, right), writeable=False
    )  # two rows above each edge, two below
    over, above, below, under = sampled.astype(np.float32, "C").reshape(4, edges, runs * run)  # whole numbers take ten times as long
    across, before, after = np.abs(below - above), np.abs(above - over), np.abs(under - below)
    least = np.float32(_LEAST * span + _USUAL * float(np.median(across.ravel()[::7])))
    uneven = (before > 0) & (after > 0)
    return (across > np.float32(_SHARP) * np.maximum(before, after) + least) & uneven, uneven


def _pair_score(sharp: NDArray[np.bool_], uneven: NDArray[np.bool_]) -> float:
    """`BlockEdges.pair` of two edges (2, columns): the maximum over all places of the damage but the outer sixteenths."""
    columns = sharp.shape[1]
    place = np.arange(max(1, columns // 16), columns - columns // 16)
    if not len(place):
        return 0.0
    (upper, lower), (upper_uneven, lower_uneven) = (np.cumsum(edges, 1)[:, place - 1] for edges in (sharp, uneven))
    (upper_all, lower_all), (upper_uneven_all, lower_uneven_all) = sharp.sum(1), uneven.sum(1)
    upper_right = _share(upper_all - upper, upper_uneven_all - upper_uneven, columns - place)
    lower_right = _share(lower_all - lower, lower_uneven_all - lower_uneven, columns - place)
    right, left = upper_right - _share(upper, upper_uneven, place), _share(lower, lower_uneven, place) - lower_right
    return float(np.minimum(right, left).max())


def _share(sharp: NDArray[Any], uneven: NDArray[Any], columns: NDArray[Any] | int) -> NDArray[np.float64]:
    return np.asarray(sharp / np.maximum(uneven, np.maximum(_ENOUGH * np.asarray(columns), 1)), np.float64)


# --- lossless images: a check row -----------------------------------------------------------------------------------------------

Codes = dict[str, int]
"""A Huffman table: the bits of a code, as a text of 0 and 1 -> the symbol."""

_COMPARED = 20
"""Pixels of the check row that are compared: bits before them in the same byte may spoil a few; chance does not match so many."""


@dataclass(frozen=True, eq=False)
class CheckRow:
    """A codestream with one appended row, and what must decode in that row.

    bits: of the appended data. before: possible bits between them and the last symbol of the image, padding of less than a byte.
    """

    stream: bytes
    codes: Codes
    predictor: int
    shift: int
    bits: str
    before: tuple[str, ...]

    def agrees(self, values: NDArray[Any]) -> bool:
        """Whether decoded values (rows + 1, columns) end in the appended row."""
        above, row = (values[at, :_COMPARED].astype(int) >> self.shift for at in (-2, -1))
        modulus = 1 << (8 * values.dtype.itemsize - self.shift)
        found = [(int(pixel) - _predicted(above, row, at, self.predictor)) % modulus for at, pixel in enumerate(row)]
        return any(
            [step % modulus for step in islice(differences(pad + self.bits, self.codes), len(found))] == found for pad in self.before
        )


def append_check_row(stream: Any, claim: Claim) -> CheckRow | None:
    """The codestream of a lossless JPEG with a check row; None where there is more than one component or scan, or a restart marker."""
    if claim.coding != "lossless" or claim.samples != 1 or claim.scans != 1 or claim.rows == 0xFFFF:
        return None
    tables: dict[int, Codes] = {}
    walk, rows_at, scan = Segments(stream), 0, b""
    for marker, body in walk:
        if marker == 0xC3:  # the frame
            rows_at = walk.at - len(body) + 1
        elif marker == 0xC4:
            tables |= huffman_tables(body)
        elif marker == 0xDD and any(body[:2]):  # restart markers
            return None
        elif marker == 0xDA:
            scan = body
            break
    codes = tables.get(scan[2] >> 4, {})
    bits = _known_bits(codes, claim.columns)
    if bits is None:
        return None
    end = end_of_data(stream, claim)
    added = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    longer = b"".join((stream[:rows_at], (claim.rows + 1).to_bytes(2), stream[rows_at + 2 : end], added, b"\xff\xd9"))
    last = stream[end - 2] if stream[end - 1] == 0 and stream[end - 2] == 0xFF else stream[end - 1]
    return CheckRow(longer, codes, predictor=scan[3], shift=scan[5] & 15, bits=bits[: 40 * _COMPARED], before=_paddings(last))


def _known_bits(codes: Codes, columns: int) -> str | None:
    """Bits for a row of `columns` pixels and more, in whole bytes; None where a table has one code only.

    Two codes alternate as the parity of the ones in the binary numbers 0, 1, 2, ..., so that no part of the series repeats the one before
    it; then one code is repeated.
    """
    usable = sorted((code for code, size in codes.items() if size < 16), key=len)[:2]
    if len(usable) < 2:
        return None
    series = "".join(usable[at.bit_count() % 2] + "0" * codes[usable[at.bit_count() % 2]] for at in range(2 * _COMPARED))
    first = min(codes, key=lambda code: (len(code), code))  # all zeros, for any table
    bits = series + "0" * ((len(first) + codes[first]) * (columns + 8))
    return bits + "0" * (-len(bits) % 8)


def end_of_data(stream: Any, claim: Claim) -> int:
    """Where the data of the last scan end, without the fill bytes before the marker that follows."""
    end = claim.data_end
    while stream[end - 1] == 0xFF:
        end -= 1
    return end


def _paddings(last: int) -> tuple[str, ...]:
    """The ones or zeros at the end of the last byte that may be padding: as many as it ends in."""
    bits = format(last, "08b")
    ones, zeros = (min(len(bits) - len(bits.rstrip(bit)), 7) for bit in "10")
    return ("", *("1" * (number + 1) for number in range(ones)), *("0" * (number + 1) for number in range(zeros)))


def huffman_tables(body: bytes) -> dict[int, Codes]:
    """The tables of a DHT segment by their destination, class and number (T.81 B.2.4.2, annex C)."""
    tables: dict[int, Codes] = {}
    at = 0
    while at + 17 <= len(body):
        counts, symbols = body[at + 1 : at + 17], iter(body[at + 17 :])
        codes: Codes = {}
        code = 0
        for length, number in enumerate(counts, 1):
            for symbol in islice(symbols, number):
                codes[f"{code:0{length}b}"] = symbol
                code += 1
            code <<= 1
        tables[body[at]] = codes
        at += 17 + sum(counts)
    return tables


def differences(bits: str, codes: Codes) -> Iterator[int]:
    """The differences that bits encode (T.81 H.1.2.2), as libjpeg reads them."""
    at = 0
    while at < len(bits):
        length = next((length for length in range(1, 17) if bits[at : at + length] in codes), None)
        if length is None:  # no code begins so: libjpeg takes 17 bits of it for a difference of 0
            yield 0
            at += 17
            continue
        size = codes[bits[at : at + length]]
        at += length
        if size == 16:
            yield 32768
        else:
            value = int(bits[at : at + size] or "0", 2)
            yield value if not size or value >> (size - 1) else value - (1 << size) + 1
            at += size


def _predicted(above: NDArray[Any], row: NDArray[Any], at: int, predictor: int) -> int:
    """The predicted value of a pixel of a row after the first (T.81 table H.1)."""
    b = int(above[at])
    if at == 0:
        return b
    a, c = int(row[at - 1]), int(above[at - 1])
    return (0, a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)[predictor & 7]
