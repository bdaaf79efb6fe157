"""Whether the rows of blocks of a DCT-coded picture fit each other, or it is torn where one begins.

A block stands behind the one before it and is as bright as that one made it, so a damaged byte moves all that follows, or changes its grey.
From the place of the damage to the right margin a sharp edge then runs above the row of blocks, and from the left margin to that place
one runs below it. Nothing in a radiograph has that form, and lies on the grid of blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

BLOCK = 8
CERTAIN, DOUBTFUL = 0.7, 0.1
"""Of `torn`: what is refused, and what is decoded again to find out."""
_SHARP, _USUAL, _LEAST = 4, 2, 1 / 128
"""A difference across an edge is sharp where it is more than so many times that beside it, and the usual one across edges, and such a share
of black to white together: at low quality, blocks are flat and do not meet."""
_RUNS, _RUN = 4, 32
"""Runs of neighbouring columns that are looked at, evenly: single columns would cost as much memory traffic as all of them."""


def torn(values: NDArray[Any], side: int, span: int) -> float:
    """How much values (h, w) or (h, w, channels) of blocks `side` pixels high look torn, in [0, 1]; blocks of one pixel show nothing.

    Of such a pair of edges, each has a share of sharp pixels where they belong, less the share elsewhere: the lesser of the two. An edge
    alone may be that of a shutter.

    span: the difference of white and black.
    """
    if side < 2:
        return 0.0
    sharp = sharp_edges(values, side, span)
    shares = sharp.mean(1)
    pairs = np.flatnonzero(shares[:-1] + shares[1:] > DOUBTFUL)
    return max((_stepped(sharp[pair], sharp[pair + 1]) for pair in pairs.tolist()), default=0.0)


def sharp_edges(values: NDArray[Any], side: int, span: int) -> NDArray[np.bool_]:
    """Where each edge between two rows of blocks is sharp: (edges, columns looked at)."""
    if values.ndim == 3:
        values = values[..., 1]
    (rows, columns), (down, right) = values.shape, values.strides
    edges = max(0, (rows - 2) // side)
    runs = max(1, min(_RUNS, columns // _RUN))
    run = min(_RUN, columns)
    apart = (columns - run) // max(1, runs - 1)
    looked_at = as_strided(
        values[side - 2 :], (4, edges, runs, run), (down, side * down, apart * right, right), writeable=False
    )  # two rows above each edge, two below
    over, above, below, under = looked_at.astype(np.float32, "C").reshape(4, edges, runs * run)  # whole numbers take ten times as long
    across = np.abs(below - above)
    beside = np.maximum(np.abs(above - over), np.abs(under - below))
    usual = float(np.median(across.ravel()[::7])) if across.size else 0.0
    sharp: NDArray[np.bool_] = across > np.float32(_SHARP) * beside + np.float32(_LEAST * span + _USUAL * usual)
    return sharp


def _stepped(upper: NDArray[np.bool_], lower: NDArray[np.bool_]) -> float:
    """Over all places but the outer sixteenths: the least of two shares, of the upper edge to the right, of the lower edge to the left."""
    columns = len(upper)
    place = np.arange(max(1, columns // 16), columns - columns // 16)
    if not len(place):
        return 0.0
    upper_left, lower_left = (np.cumsum(edge)[place - 1] for edge in (upper, lower))
    right = (upper.sum() - upper_left) / (columns - place) - upper_left / place
    left = lower_left / place - (lower.sum() - lower_left) / (columns - place)
    return float(np.minimum(right, left).max())
