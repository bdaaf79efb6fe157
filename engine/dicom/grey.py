"""Stored values -> one 8-bit image, bone bright, shorter side as asked: one documented order of operations.

  1. padding is found in the stored values (PS3.3 C.7.5.1.1.2);
  2. modality LUT or rescale, VOI LUT or window, polarity: tone.py;
  3. padding is black, for any polarity;
  4. square pixels (C.7.6.3.1.7), the size asked for, 8 bits.
Step 2 costs less on a small image. A straight line gives the same before and after averaging, but for what it clips, so:
  - a line that clips little: the image is made small first, and clipped at twice the final size;
  - a line that clips much: every stored value is clipped first;
  - any other curve: every stored value goes through a table first, and values that were reduced while decoding are read again, whole.
The result is within 0.6 of 255 on average of the plain order in float64 at full size: tests/engine/dicom/test_grey_reference.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.dicom.burned_in_text import SEARCHED_SIDE, shows_text
from engine.dicom.header import Header
from engine.dicom.pixels import Stored
from engine.dicom.reasons import Refusal
from engine.dicom.resample import block_means, fewer, lanczos
from engine.dicom.windowing import GreyCurve, choose_curve, range_curve

_HIDDEN = 0.2
"""Share of the range of the data beyond the ends of a straight line, from which on every stored value is clipped: 1 ms for 5 megapixels."""

_TOO_STEEP = 3.0
"""A curve so many times as steep as the straight line over the range of the data asks too much of values that were reduced.

Mean difference from the plain order on real and synthetic radiographs, window last: 0.25-0.30 of 255 for a window over the whole range
(0.25 is the rounding), 0.4 for half of it, 0.5-0.7 for a third, 1.6 and more for a tenth."""

_SHADES = 4080
"""White in a table's output: 16 steps to a grey level, and 16 of its values still add up in 16 bits."""

_LONGEST = 16
"""Times the shorter side; a strip beyond this is no radiograph, and 64 x 65,535 pixels took 19 s and 1.5 GB to become 51 megapixels."""

_SEEN = 16_000
"""Stored values that are looked at to choose a curve."""


def to_grey_image(
    stored: Stored, header: Header, size: int, whole: Callable[[], Stored] | None = None
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """uint8 (H, W), 0 = the air side of the grey scale, 255 = the bone side, shorter side == size; and the flags raised on the way.

    whole: reads the values again at full size, where they were reduced and that is not enough: for padding that would show or move the
        range, and for a steep curve.

    Raises:
        Refusal: `degenerate_image` for a constant image, `too_small` for a strip.
    """
    height, width = target_shape(stored.rows, stored.columns, header.aspect, size)
    if max(height, width) > _LONGEST * size:
        raise Refusal("too_small")
    header = replace(header, bits_stored=stored.bits or header.bits_stored)
    bounds = padding_bounds(header)
    padding = _present(stored.values, bounds)
    seen, low, high = _sample(stored.values, padding)
    tone, flags = choose_curve(header, seen)
    if whole is not None and stored.factor > 1:
        bright = bounds is not None and _is_near(stored.values, bounds) and (tone is None or _shows(tone, bounds))
        if bright or (tone is not None and tone.steepness(low, high) > _TOO_STEEP):
            return to_grey_image(whole(), header, size)
    if tone is None:
        tone = range_curve(header, *_without_padding(stored, header, size, padding, seen))
    if tone is None:
        raise Refusal("degenerate_image")
    hidden = tone.ends is not None and _hidden(low, high, *sorted(tone.ends)) > _HIDDEN
    grey, written = _toned(stored, header, size, tone, padding, hidden)
    image = np.rint(grey * 255.0).astype(np.uint8)
    if image.max() == image.min():
        raise Refusal("degenerate_image")
    raised = (*(("padding",) if padding is not None else ()), *flags, *stored.flags, *(("burned_in",) if written else ()))
    return image, raised


def _is_near(values: NDArray[Any], bounds: tuple[int, int]) -> bool:
    """Whether reduced values may hold padding, which reducing and lossy coding spread over values near its own."""
    near = (int(values.max()) - int(values.min())) / 64
    return bool(np.any((values >= bounds[0] - near) & (values <= bounds[1] + near)))


def padding_bounds(header: Header) -> tuple[int, int] | None:
    """The lowest and the highest stored value that is padding, None where there is no such value.

    US and SS are confused in the field, so a value is taken in the sign of the pixels. One that the stored bits cannot hold is left
    out: once masked it could not be distinguished from the image.
    """
    if header.padding is None or header.samples == 3:
        return None
    ends = sorted(_as_stored(value, header) for value in (header.padding, header.padding_limit) if value is not None)
    bits = header.bits_stored or 16
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if header.signed else (0, (1 << bits) - 1)
    low, high = max(ends[0], least), min(ends[-1], most)
    return (low, high) if low <= high else None


def _as_stored(value: int, header: Header) -> int:
    wrap = 1 << (header.bits_allocated or 16)
    if header.signed and value >= wrap // 2:
        return value - wrap
    return value + wrap if not header.signed and value < 0 else value


def _shows(tone: GreyCurve, padding: tuple[int, int]) -> bool:
    """Whether the curve alone would leave padding brighter than black."""
    return bool(tone.shown(np.array(padding, np.float64)).any())


def _present(values: NDArray[Any], bounds: tuple[int, int] | None) -> tuple[int, int] | None:
    """The bounds of padding where some, and not all, of the values are in them."""
    share = np.count_nonzero(_within(values, bounds)) if bounds is not None else 0
    return bounds if 0 < share < values.size else None


def _within(values: NDArray[Any], bounds: tuple[int, int]) -> NDArray[np.bool_]:
    low, high = bounds
    within: NDArray[np.bool_] = values == low if low == high else (values >= low) & (values <= high)
    return within


def _sample(values: NDArray[Any], padding: tuple[int, int] | None) -> tuple[NDArray[Any], float, float]:
    """About _SEEN stored values without padding, evenly from the whole image; all of them where these are one; their 1 and 99 % points.

    Raises:
        Refusal: `degenerate_image` where there is one value, or none.
    """
    step = max(1, math.isqrt(values.size // _SEEN))
    for part in (values[step // 2 :: step, step // 2 :: step], values):
        seen = part.ravel() if padding is None else part[~_within(part, padding)]
        if seen.size and seen.min() != seen.max():
            rank = seen.size // 100
            ordered = np.partition(seen, (rank, seen.size - 1 - rank))
            return seen, float(ordered[rank]), float(ordered[-1 - rank])
    raise Refusal("degenerate_image")


def _without_padding(
    stored: Stored, header: Header, size: int, padding: tuple[int, int] | None, seen: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Stored values made small, none of them beyond those that there are, and where no padding is mixed into them."""
    values, clear = stored.values, None
    if padding is not None:
        padded = _within(values, padding)
        values = np.where(padded, values.dtype.type(np.median(seen)), values)  # so that padding does not bleed
        clear = shrink(padded.astype(np.uint8), stored, header.aspect, size) < 0.5
    small = np.clip(shrink(values, stored, header.aspect, size), values.min(), values.max())  # LANCZOS overshoots at an edge
    return small, np.ones(small.shape, bool) if clear is None else clear


def _hidden(low: float, high: float, begin: float, end: float) -> float:
    """The share of [low, high] that is outside [begin, end]."""
    return 1.0 - max(0.0, min(high, end) - max(low, begin)) / (high - low) if high > low else 0.0


def _toned(
    stored: Stored, header: Header, size: int, tone: GreyCurve, padding: tuple[int, int] | None, hidden: bool
) -> tuple[NDArray[np.float32], bool]:
    """Grey in [0, 1], (H, W) of target_shape, and whether it shows text; hidden: the ends of a straight line hide much of the values."""
    written = False

    def look(reduced: NDArray[np.float32], span: float) -> None:
        nonlocal written
        written = shows_text(reduced, span)

    black, white = tone.ends or (0.0, 0.0)
    low, high = min(black, white), max(black, white)
    clipped = (hidden or padding is not None) and stored.values.dtype.kind in "ui"
    if (
        tone.ends is None or (padding is not None and _shows(tone, padding)) or (clipped and high - low < 512)
    ):  # whole numbers next to such ends are too far from them
        values = _looked_up(stored.values, tone, padding)
        small = shrink(values, replace(stored, values=values, peak=_SHADES), header.aspect, size, (0, _SHADES), look)
        return np.clip(small / np.float32(_SHADES), 0.0, 1.0), written
    if clipped:
        stored = replace(stored, values=_clipped(stored.values, math.floor(low), math.ceil(high)))
    small = shrink(stored.values, stored, header.aspect, size, (low, high), look)
    return np.clip((small - np.float32(black)) / np.float32(white - black), 0.0, 1.0), written


def _looked_up(values: NDArray[Any], tone: GreyCurve, padding: tuple[int, int] | None) -> NDArray[np.uint16]:
    """Every stored value through the curve, padding black; _SHADES is white. Short types by a table: 4 ms for 5 megapixels."""

    def shades(stored: NDArray[Any]) -> NDArray[np.uint16]:
        result: NDArray[np.uint16] = np.rint(tone.shown(stored.astype(np.float64)) * _SHADES).astype(np.uint16)
        if padding is not None:
            result[_within(stored, padding)] = 0
        return result

    result = np.empty(values.shape, np.uint16)
    table = None
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2:
        short = np.dtype(f"u{values.dtype.itemsize}")
        table = shades(np.arange(1 << (8 * short.itemsize), dtype=np.uint32).astype(short).view(values.dtype.newbyteorder("=")))
        values = values.view(short)
    for strip in _strips(values):
        if table is None:
            result[strip] = shades(values[strip])
        else:
            np.take(table, values[strip], out=result[strip], mode="clip")
    return result


def _clipped(values: NDArray[Any], low: int, high: int) -> NDArray[Any]:
    """Integers no lower than low and no higher than high, as far as their type reaches."""
    limits = np.iinfo(values.dtype)
    result = np.empty(values.shape, values.dtype.newbyteorder("="))
    for strip in _strips(values):
        np.clip(values[strip], min(max(low, limits.min), limits.max), min(max(high, limits.min), limits.max), out=result[strip])
    return result


def _strips(values: NDArray[Any]) -> Iterator[slice]:
    """Rows that together stay in a processor's cache: half the time of one call for all."""
    many = max(1, (1 << 17) // max(1, values.shape[1]))
    return (slice(row, row + many) for row in range(0, values.shape[0], many))


# --- size -----------------------------------------------------------------------------------------------------------------------


def least_decoded_side(size: int) -> int:
    """How far an image may be reduced while it is decoded: both sides stay at this or above, for LANCZOS and for the look for text."""
    return max(2 * size, SEARCHED_SIDE)


def target_shape(rows: int, columns: int, aspect: float, size: int) -> tuple[int, int]:
    """Height and width with square pixels and shorter side == size."""
    height = rows * aspect
    scale = size / min(height, columns)
    return max(size, round(height * scale)), max(size, round(columns * scale))


def shrink(
    values: NDArray[Any],
    stored: Stored,
    aspect: float,
    size: int,
    ends: tuple[float, float] | None = None,
    look: Callable[[NDArray[np.float32], float], None] | None = None,
) -> NDArray[np.float32]:
    """float32 (H, W) of target_shape: averages over whole blocks down to twice the target, then LANCZOS over the exact box.

    ends: the averages are clipped to these two before LANCZOS sees them, which else rings at an edge that no window shows.
    look: is shown the averages, so clipped, and the distance of the ends; with a shorter side of SEARCHED_SIDE or above where that is more
        than twice the target, and of the same length whether or not the values came reduced.
    """
    height, width = target_shape(stored.rows, stored.columns, aspect, size)
    whole = min(stored.rows / (2 * height), stored.columns / (2 * width))
    seen = max(1, math.floor(whole * min(1.0, 2 * size / SEARCHED_SIDE)))
    block = max(1, math.floor(whole / stored.factor))
    first = max(1, seen // stored.factor) if look is not None else block
    reduced = block_means(values, first, stored.peak)
    if ends is not None:
        np.clip(reduced, *ends, out=reduced)
    if look is not None and ends is not None:
        look(fewer(reduced, seen, stored.factor * first), ends[1] - ends[0])
    block = first * (block // first)
    if block > first:
        reduced = block_means(reduced, block // first)
    factor = stored.factor * block
    shift = stored.shift / block
    box_h, box_w = stored.rows / factor, stored.columns / factor
    need_h, need_w = math.ceil(box_h + shift - 1e-9), math.ceil(box_w + shift - 1e-9)
    for axis, need in enumerate((need_h, need_w)):  # at most a row and a column: np.pad takes four times as long for them
        if (short := need - reduced.shape[axis]) > 0:
            reduced = np.concatenate([reduced, reduced.take([-1] * short, axis)], axis)
    if (height, width) == reduced.shape and shift == 0:
        return reduced
    stop_h, stop_w = min(box_h + shift, reduced.shape[0]), min(box_w + shift, reduced.shape[1])
    return lanczos(reduced, (height, width), (shift, shift, stop_w, stop_h))
