"""Which grey a stored value becomes: the modality LUT, the VOI transformation and the polarity of a header as one curve.

The order is that of PS3.4 N.2: stored value -> modality LUT, else rescale (PS3.3 C.11.1) -> VOI LUT or window (C.11.2) -> polarity.
The standard leaves it to the viewer which VOI transformation is shown where there are several, and what is shown where there is none.
Here the first of these is taken that shows the image. Judged are the values inside the collimated field (`_field`): their 1 % and 99 %
points are at least 1/8 of the grey scale apart, and no more than 3/4 of them become the darkest or the brightest grey.

  1. the VOI LUT (C.11.2.1.1), the first sound item of the sequence;
  2. the windows in their order (C.11.2.1.2; LINEAR, LINEAR_EXACT or SIGMOID as VOI LUT Function says, C.11.2.1.3);
  3. values of 8 bits or fewer, and all of colour (where windows have no meaning, C.11.2.1.2), as they are;
  4. the range of the data.

A window of 65,535 over 12-bit values, or one that is off the data, would be a grey or a black sheet on any screen.
MONOCHROME1 (C.7.6.3.1.2) or a Presentation LUT Shape of INVERSE (C.8.11.3.1.2, C.11.6) turns the result over, both together once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.dicom.header import Header
from engine.dicom.lookup_table import LookupTable

LEAST_CONTRAST = 1 / 8
"""Of the grey scale, between the 1 % and the 99 % point of the field: a window or LUT that shows less is passed over."""

MOST_SATURATED = 3 / 4
"""Share of the field that becomes the darkest or the brightest grey: a window or LUT that saturates more is passed over.
Measured on wrong and on sound windows: engine/dicom/README.md."""

_PLATEAU = 2 / 255
"""Of the grey scale, from either end of the grey of a field: what is within it is saturated. A sigmoid only comes near its ends."""

_FLAT = 0.05
"""Share of the pixels within 1/64 of the range from one end of it, from which on they are a border (collimation, bare detector)."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GreyCurve:
    """A curve from stored values to grey.

    shown: stored values -> grey in [0, 1], 1 = the bone side, any shape.
    ends: the stored values that are black and white where the curve is a straight line between them (black above white where it
        falls); None where it is no such line.
    """

    shown: Callable[[Numbers], Numbers]
    ends: tuple[float, float] | None

    def steepness(self, low: float, high: float) -> float:
        """How much faster than a straight line over [low, high] the curve rises where it is steepest; 1 for that line itself."""
        if high <= low:
            return 0.0
        if self.ends is not None:
            return (high - low) / abs(self.ends[1] - self.ends[0])
        return float(np.abs(np.diff(self.shown(np.linspace(low, high, 257)))).max()) * 256


def choose_curve(header: Header, seen: NDArray[Any]) -> tuple[GreyCurve | None, tuple[str, ...]]:
    """The curve of a header for an image, None where it is the range of the data; and flags.

    seen: a sample of the image's stored values, (N,), padding left out.
    """
    flags: list[str] = []
    field = _field(to_units(header, seen.astype(np.float64)))
    for voi, ends, flag in _transformations(header, seen):
        if _shows_image(voi(field)):
            return _tone(header, voi, ends), tuple(flags if flag else [*flags, *_unnamed(header)])
        flags += [flag] if flag else []
    return None, (*flags, *_unnamed(header))


def _field(units: Numbers) -> Numbers:
    """The values (N,) inside the collimated field: those at either end of the range, which collimation and markers hold, left out.

    All of them where nothing is between the ends.
    """
    ends = data_range(units, np.ones(units.shape, bool), margin=0)
    if ends is None:
        return units
    near = (ends[1] - ends[0]) / 64
    inside = units[(units > ends[0] + near) & (units < ends[1] - near)]
    return inside if inside.size else units


def _shows_image(grey: Numbers) -> bool:
    """Whether the grey (N,) of a field has contrast and is not saturated."""
    first, last = np.percentile(grey, (1, 99))
    if last - first < LEAST_CONTRAST:
        return False
    darkest, brightest = grey.min() + _PLATEAU, grey.max() - _PLATEAU
    saturated = np.count_nonzero((grey <= darkest) | (grey >= brightest))
    return bool(saturated <= MOST_SATURATED * grey.size)


def _unnamed(header: Header) -> tuple[str, ...]:
    """The flag of an image that is shown without a VOI transformation of its own: what is passed over or unsound has flags already."""
    return () if header.windows or header.samples == 3 or "bad_window" in header.flags else ("no_window",)


def range_curve(header: Header, image: NDArray[np.float32], seen: NDArray[np.bool_]) -> GreyCurve | None:
    """The curve over the range of an image (H, W) of stored values, where `seen`; None where that is a single value."""
    ends = data_range(to_units(header, image.astype(np.float64)), seen)
    return None if ends is None else _tone(header, lambda units: _along(units, *ends), ends)


def data_range(units: Numbers, seen: NDArray[np.bool_], margin: int = 2) -> tuple[float, float] | None:
    """The 0.5 % and the 99.5 % point of an image (H, W) without what is no part of the patient; None for a single value.

    A shutter, a bare detector, a painted margin or a marker holds one value; with 0.5 % of the image it is an end of the range, however
    far it is from the patient. Such an end is left out, with the `margin` pixels around it that mix it with the image: first where the
    rest fills less than half of the range, then where it holds 5 % of the image, and never where next to nothing would remain.
    """
    rest, ends = seen, _points(units[seen])
    enough = np.count_nonzero(seen) / 8
    for far, at_top in ((True, True), (True, False), (True, True), (False, False), (False, True)):  # one may hide the other
        if ends is None:
            return None
        low, high = ends
        near = (high - low) / 64
        flat = units >= high - near if at_top else units <= low + near
        if not far and np.count_nonzero(flat & rest) <= _FLAT * np.count_nonzero(rest):
            continue
        without = rest & ~_grown(flat, margin)
        inner = _points(units[without]) if np.count_nonzero(without) >= enough else None
        if inner is not None and not (far and inner[1] - inner[0] >= (high - low) / 2):
            rest, ends = without, inner
    return ends


def _points(values: Numbers) -> tuple[float, float] | None:
    """The 0.5 % and the 99.5 % point, the ends where these are one; None where there is one value, or none."""
    if not values.size:
        return None
    rank = values.size // 200
    ordered = np.partition(values, (0, rank, values.size - 1 - rank, values.size - 1))
    low, high = (ordered[rank], ordered[-1 - rank]) if ordered[rank] < ordered[-1 - rank] else (ordered[0], ordered[-1])
    return (float(low), float(high)) if low < high else None


def to_units(header: Header, stored: Numbers) -> Numbers:
    """Stored values -> units of the modality LUT, else of rescale slope and intercept (C.11.1); colour as it is."""
    if header.samples == 3:
        return stored
    if header.modality_lut is not None:
        return looked_up(stored, header.modality_lut)
    return stored * header.slope + header.intercept


def looked_up(values: Numbers, table: LookupTable) -> Numbers:
    """Entries of a table; values before its first entry take that one, values past its last the last (C.11.1.1.1, C.11.2.1.1)."""
    indices = np.clip(np.rint(values) - table.first, 0, len(table.values) - 1).astype(np.int64)
    return table.values[indices].astype(np.float64)


def is_inverted(header: Header) -> bool:
    """Whether the lowest grey value is to be shown white."""
    return header.photometric == "MONOCHROME1" or (header.lut_shape == "INVERSE" and header.samples != 3)


_Voi = tuple[Callable[[Numbers], Numbers], tuple[float, float] | None, str]
"""Units -> grey; the units that are black and white, if it is a straight line; the flag for what is passed over."""


def _transformations(header: Header, seen: NDArray[Any]) -> Iterator[_Voi]:
    """What the header offers, in order."""
    grey = header.samples != 3
    if grey and header.voi_lut is not None:
        table = header.voi_lut
        table = LookupTable(_first(table, to_units(header, seen.astype(np.float64))), table.bits, table.values)
        white = _white(table)
        yield lambda units: looked_up(units, table) / white, None, "bad_lut"
    for center, width in header.windows if grey else ():
        yield _window(header.voi_function, center, width)
    plain = header.modality_lut is None and (header.slope, header.intercept) == (1.0, 0.0) and not header.signed
    if header.bits_stored is not None and header.bits_stored <= 8 and (plain or not grey):
        ends = (0.0, float(2**header.bits_stored - 1))
        yield lambda units: _along(units, *ends), ends, ""


def _window(function: str, center: float, width: float) -> _Voi:
    if function == "SIGMOID":  # C.11.2.1.3.1
        return lambda units: 1.0 / (1.0 + np.exp(np.clip(-4.0 * (units - center) / width, -80, 80))), None, "bad_window"
    # C.11.2.1.3.2, and C.11.2.1.2.1 whose ends are those of its first two conditions
    low, high = (
        (center - width / 2, center + width / 2)
        if function == "LINEAR_EXACT"
        else (center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2)
    )
    if high > low:
        return lambda units: _along(units, low, high), (low, high), "bad_window"
    return lambda units: (units > low).astype(np.float64), None, "bad_window"  # a LINEAR window of width 1 is a threshold


def _tone(header: Header, voi: Callable[[Numbers], Numbers], ends: tuple[float, float] | None) -> GreyCurve:
    inverted = is_inverted(header)

    def shown(stored: Numbers) -> Numbers:
        grey = voi(to_units(header, stored))
        return 1.0 - grey if inverted else grey

    if ends is None or (header.samples != 3 and header.modality_lut is not None):
        return GreyCurve(shown, None)
    if header.samples != 3:
        ends = tuple((end - header.intercept) / header.slope for end in ends)  # type: ignore[assignment]
    black, white = ends[::-1] if inverted else ends
    return GreyCurve(shown, (black, white) if black != white else None)


def _along(units: Numbers, low: float, high: float) -> Numbers:
    return np.clip((units - low) / (high - low), 0.0, 1.0)


def _white(table: LookupTable) -> int:
    """The output that is white: the highest of the table's bits, or of those that it uses where it leaves the top one alone.

    Descriptors that say 16 bits over entries of 12 are met in the field; taken at their word they show a sixteenth of the grey scale.
    """
    used = int(table.values.max()).bit_length()
    return (1 << (table.bits if used == table.bits else max(1, used))) - 1


def _first(table: LookupTable, units: Numbers) -> int:
    """The first value mapped, in the sign in which the table meets more of the values: US and SS are confused in the field (C.11.1.1)."""
    low, high = float(units.min()), float(units.max())

    def met(first: int) -> float:
        return min(high, first + len(table.values) - 1) - max(low, first)

    other = table.first - 65536 if table.first > 32767 else table.first + 65536 if table.first < 0 else table.first
    return other if met(other) > met(table.first) else table.first


def _grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """A mask (H, W) with the pixels up to `by` next to it, diagonals included."""
    for _ in range(2):  # rows, then columns
        mask = mask.T
        grown = mask.copy()
        for step in range(1, by + 1):
            grown[step:] |= mask[:-step]
            grown[:-step] |= mask[step:]
        mask = grown
    return mask
