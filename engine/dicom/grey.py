"""Stored values -> one 8-bit picture, bone bright, shorter side as asked: one documented order of operations.

  1. modality LUT, else rescale slope and intercept (PS3.3 C.11.1);
  2. VOI LUT, else the first window (C.11.2), else the data from their 0.5 % to their 99.5 % point without padding (C.7.5.1.1.2);
  3. MONOCHROME1 (C.7.6.3.1.2) or PresentationLUTShape INVERSE (C.11.6) inverts, exactly once;
  4. padding is black.
Where 1 and 2 are linear the picture is made small before them: averages and a linear window change places freely but for values that the
window clips (mean difference below 0.6 of 255). Tables and sigmoids are applied to every stored value first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.dicom.header import Header, LookupTable
from engine.dicom.pixels import Stored
from engine.dicom.policy import Refusal

_PERCENT = (0.5, 99.5)


def to_picture(stored: Stored, header: Header, size: int) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """uint8 (H, W), 0 = the air side of the grey scale, 255 = the bone side, shorter side == size; and the flags raised on the way.

    Raises:
        Refusal: `degenerate_image` for a constant picture.
    """
    flags: list[str] = []
    values = stored.values
    padded = _padding(values, header) if stored.factor == 1 else None
    if padded is not None:
        flags.append("padding")
        values = _fill(values, padded)
    mapped = _mapped(values, header)
    if mapped is not None:
        values = mapped
    small = shrink(values, stored, header.aspect, size)
    seen = small
    if padded is not None:
        covered = shrink(padded.astype(np.uint8), stored, header.aspect, size)
        seen = small[covered < 0.5]
    if seen.size == 0 or float(seen.max()) - float(seen.min()) <= 1e-6 * max(1.0, abs(float(seen.max()))):
        raise Refusal("degenerate_image")
    grey: NDArray[np.float32] | None
    if mapped is not None:
        grey = small
    else:
        if header.modality_lut is None:
            small = small * np.float32(header.slope if header.slope is not None else 1.0) + np.float32(header.intercept or 0.0)
            seen = small[covered < 0.5] if padded is not None else small
        grey, more = _windowed(small, seen, header)
        flags += more
    grey = np.clip(grey, 0.0, 1.0)
    if header.photometric == "MONOCHROME1" or header.lut_shape == "INVERSE":
        grey = 1.0 - grey
    if padded is not None:
        grey = grey * (1.0 - np.clip(covered, 0.0, 1.0))
    picture = np.rint(grey * 255.0).astype(np.uint8)
    if picture.max() == picture.min():
        raise Refusal("degenerate_image")
    return picture, tuple(flags)


def _windowed(small: NDArray[np.float32], seen: NDArray[np.float32], header: Header) -> tuple[NDArray[np.float32], list[str]]:
    """The first window (C.11.2.1.2.1 LINEAR, C.11.2.1.3.2 LINEAR_EXACT), or the range of the data; values may lie outside [0, 1]."""
    if header.window is not None:
        center, width = header.window
        grey = (
            (small - center) / width + 0.5
            if header.voi_function == "LINEAR_EXACT" or width <= 1
            else (small - (center - 0.5)) / (width - 1) + 0.5
        )
        inside = np.clip(grey, 0.0, 1.0)
        if float(inside.max()) - float(inside.min()) > 1 / 255:
            return grey.astype(np.float32), []
    low, high = np.percentile(seen, _PERCENT)
    if high <= low:
        low, high = float(seen.min()), float(seen.max())
    flags = ["no_window"] if header.window is None and "bad_window" not in header.flags else [] if header.window is None else ["bad_window"]
    return ((small - low) / (high - low)).astype(np.float32), flags


def _padding(values: NDArray[Any], header: Header) -> NDArray[np.bool_] | None:
    """True where a pixel is padding (C.7.5.1.1.2), None where there is none."""
    if header.padding is None:
        return None
    low = _as_stored(header.padding, header)
    high = low if header.padding_limit is None else _as_stored(header.padding_limit, header)
    low, high = min(low, high), max(low, high)
    padded = values == low if low == high else (values >= low) & (values <= high)
    share = np.count_nonzero(padded)
    return padded if 0 < share < padded.size else None


def _as_stored(value: int, header: Header) -> int:
    """A padding value in the sign of the pixels: US and SS are confused in the field."""
    if header.signed and value > 32767:
        return value - 65536
    if not header.signed and value < 0:
        return value + 65536
    return value


def _fill(values: NDArray[Any], padded: NDArray[np.bool_]) -> NDArray[Any]:
    """Padding replaced by the median of the rest, so that its value does not bleed into its neighbours when the picture shrinks."""
    rest = values[::8, ::8][~padded[::8, ::8]]
    filled = values.copy()
    filled[padded] = values.dtype.type(np.median(rest)) if rest.size else 0
    return filled


def _mapped(values: NDArray[Any], header: Header) -> NDArray[np.float32] | None:
    """Steps 1 and 2 in [0, 1] for every stored value where they are not linear, None where they are.

    A modality LUT alone is applied too and leaves the window to later (returned values are then in its units, see below).
    """
    sigmoid = header.window is not None and header.voi_function == "SIGMOID"
    if header.voi_lut is None and header.modality_lut is None and not sigmoid:
        return None
    low, high = int(values.min()), int(values.max())
    if high - low > 1 << 20:
        raise Refusal("unsupported_bits")
    units = np.arange(low, high + 1, dtype=np.float32)
    if header.modality_lut is not None:
        units = _looked_up(units, header.modality_lut)
    else:
        units = units * np.float32(header.slope if header.slope is not None else 1.0) + np.float32(header.intercept or 0.0)
    if header.voi_lut is not None:
        table = _looked_up(units, header.voi_lut) / np.float32(2**header.voi_lut.bits - 1)
    elif sigmoid:
        assert header.window is not None
        center, width = header.window
        table = (1.0 / (1.0 + np.exp(np.clip(-4.0 * (units - center) / width, -80, 80)))).astype(np.float32)  # C.11.2.1.3.1
    elif header.window is not None:
        table = np.clip(_windowed(units, units, header)[0], 0.0, 1.0)
    else:
        seen = units[values[::8, ::8].astype(np.int64) - low]
        table = np.clip(_windowed(units, seen, header)[0], 0.0, 1.0)
    mapped: NDArray[np.float32] = np.take(table.astype(np.float32), values.astype(np.int64) - low)
    return mapped


def _looked_up(units: NDArray[np.float32], table: LookupTable) -> NDArray[np.float32]:
    index = np.clip(np.rint(units) - table.first, 0, len(table.values) - 1).astype(np.int64)
    return table.values[index]


# --- size -----------------------------------------------------------------------------------------------------------------------


def target_shape(rows: int, columns: int, aspect: float, size: int) -> tuple[int, int]:
    """Height and width with square pixels and shorter side == size."""
    height = rows * aspect
    scale = size / min(height, columns)
    return max(size, round(height * scale)), max(size, round(columns * scale))


def shrink(values: NDArray[Any], stored: Stored, aspect: float, size: int) -> NDArray[np.float32]:
    """float32 (H, W) of target_shape: averages over whole blocks down to twice the target, then LANCZOS over the exact box."""
    from PIL import Image

    height, width = target_shape(stored.rows, stored.columns, aspect, size)
    block = max(1, math.floor(min(stored.rows / (2 * height), stored.columns / (2 * width)) / stored.factor))
    reduced = _block_means(values, block)
    factor = stored.factor * block
    shift = stored.shift / block
    box_h, box_w = stored.rows / factor, stored.columns / factor
    need_h, need_w = math.ceil(box_h + shift - 1e-9), math.ceil(box_w + shift - 1e-9)
    if reduced.shape[0] < need_h or reduced.shape[1] < need_w:
        reduced = np.pad(reduced, ((0, max(0, need_h - reduced.shape[0])), (0, max(0, need_w - reduced.shape[1]))), mode="edge")
    image = Image.fromarray(np.ascontiguousarray(reduced, dtype=np.float32))
    if (height, width) == reduced.shape and shift == 0:
        return np.asarray(image, dtype=np.float32)
    box = (shift, shift, min(box_w + shift, reduced.shape[1]), min(box_h + shift, reduced.shape[0]))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box=box), dtype=np.float32)


def _block_means(values: NDArray[Any], block: int) -> NDArray[np.float32]:
    """Means over block x block pixels; the last row and column of blocks may be partial. float32 (ceil(h / block), ceil(w / block))."""
    if block == 1:
        return values.astype(np.float32)
    rows, columns = values.shape
    short_h, short_w = -rows % block, -columns % block
    if short_h or short_w:
        values = np.pad(values, ((0, short_h), (0, short_w)), mode="edge")
    rows, columns = values.shape
    if values.dtype.kind == "f":
        total = values.reshape(rows // block, block, columns).sum(1, dtype=np.float32)
    else:
        peak = max(int(values.max()), -int(values.min())) * block
        kind: type[np.generic] = np.int16 if peak < 1 << 15 else np.int32 if peak < 1 << 31 else np.int64
        if values.dtype.kind == "u" and peak < 1 << 16:
            kind = np.uint16
        total = values.reshape(rows // block, block, columns).sum(1, dtype=kind)
    summed = total[:, 0::block].astype(np.float32)
    for offset in range(1, block):
        summed += total[:, offset::block]
    means: NDArray[np.float32] = summed / np.float32(block * block)
    return means
