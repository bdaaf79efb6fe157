"""Whether the rows of blocks of a DCT-coded picture fit each other, or it is torn where one begins.

A block stands behind the one before it and is as bright as that one made it, so a damaged byte moves all that follows, or changes its grey.
From the place of the damage to the right margin a sharp edge then runs above the row of blocks, and from the left margin to that place
one runs below it. Nothing in a radiograph has that form, and lies on the grid of blocks; what is painted into one may, but is flat.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

BLOCK = 8
CERTAIN, DOUBTFUL = 0.5, 0.2
"""Of `Tear.pair`: what is refused. Of either share: what is decoded again to find out. Sound radiographs of JPEG quality 30 to 90 were seen
to reach 0.25, with a black panel on the grid of blocks 0.46."""
_SHARP, _USUAL, _LEAST = 4, 2, 1 / 128
"""A difference across an edge is sharp where it is more than so many times that beside it, and the usual one across edges, and such a share
of black to white together: at low quality, blocks are flat and do not meet."""
_ENOUGH = 0.2
"""Share of the columns that must not be flat for all of their shares to count."""
_RUNS, _RUN = 4, 32
"""Runs of neighbouring columns that are looked at, evenly: single columns would cost as much memory traffic as all of them."""


class Tear(NamedTuple):
    """How much a picture looks torn, in [0, 1]; flat columns left out.

    pair: of two edges one below the other, each has a share of sharp pixels where they belong, less the share elsewhere; the lesser of the
    two. single: the share of sharp pixels along one edge.
    """

    pair: float
    single: float


def torn(values: NDArray[Any], side: int, span: int) -> Tear:
    """The worst tear of values (h, w) or (h, w, channels) of blocks `side` pixels high; blocks of one pixel show none.

    span: the difference of white and black.
    """
    if side < 2 or values.shape[0] < side + 2:
        return Tear(0.0, 0.0)
    sharp, uneven = edges_of(values, side, span)
    counts, columns = sharp.sum(1), sharp.shape[1]
    pairs = np.flatnonzero(counts[:-1] + counts[1:] > _ENOUGH * DOUBTFUL * columns / 2).tolist()
    stepped = (_stepped(sharp[at : at + 2], uneven[at : at + 2]) for at in pairs)
    return Tear(max((0.0, *stepped)), float(_share(counts, uneven.sum(1), columns).max()))


def edges_of(values: NDArray[Any], side: int, span: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where each edge between two rows of blocks is sharp, and where the picture is flat neither above nor below it: (edges, columns)."""
    if values.ndim == 3:
        values = values[..., 1]
    (rows, columns), (down, right) = values.shape, values.strides
    edges = (rows - 2) // side
    runs = max(1, min(_RUNS, columns // _RUN))
    run = min(_RUN, columns)
    apart = (columns - run) // max(1, runs - 1)
    looked_at = as_strided(
        values[side - 2 :], (4, edges, runs, run), (down, side * down, apart * right, right), writeable=False
    )  # two rows above each edge, two below
    over, above, below, under = looked_at.astype(np.float32, "C").reshape(4, edges, runs * run)  # whole numbers take ten times as long
    across, before, after = np.abs(below - above), np.abs(above - over), np.abs(under - below)
    least = np.float32(_LEAST * span + _USUAL * float(np.median(across.ravel()[::7])))
    uneven = (before > 0) & (after > 0)
    return (across > np.float32(_SHARP) * np.maximum(before, after) + least) & uneven, uneven


def _stepped(sharp: NDArray[np.bool_], uneven: NDArray[np.bool_]) -> float:
    """`Tear.pair` of two edges (2, columns): over all places of the damage but the outer sixteenths."""
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
