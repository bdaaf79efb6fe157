"""The pointing game: does the maximum of a map lie where the finding is? (Zhang et al., Excitation Backprop, ECCV 2016)

Places are (x, y) and boxes (left, top, right, bottom), as shares of the image's width and height from its left upper corner: 0 to 1,
for any image size. A hit is a place in a box, its rim included; the 15 pixels of tolerance of the original game are not given.

Chest findings have their usual places, so a map is worth something only where it beats one that never looks at the image. Two such
places are found from the boxes of other patients: the mean of their centres, and the place that most of them cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.metrics.intervals import wilson_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pointing:
    """Hits among `n` places, their share, and its 95 % interval by Wilson, all shares in [0, 1]; places count as independent."""

    hits: int
    n: int
    rate: float
    low: float
    high: float


def pointing(hits: ArrayLike) -> Pointing:
    """The figures of (N,) hits, True or False.

    Raises:
        ValueError: there are none.
    """
    hit = np.asarray(hits, dtype=bool)
    if not hit.size:
        raise ValueError("no place to judge")
    found, n = int(hit.sum()), hit.size
    low, high = wilson_interval(found / n, n)
    return Pointing(found, n, found / n, low, high)


def highest_place(values: ArrayLike) -> tuple[float, float]:
    """(x, y) of the maximum of a map (H, W), NaN left out, at the middle of its pixel.

    Where several pixels share the maximum it is the one nearest to the image's middle: on the level rim of a map, the patch's own centre.

    Raises:
        ValueError: all of it is NaN.
    """
    v = np.asarray(values, dtype=np.float64)
    if not np.isfinite(v).any():
        raise ValueError("a map without a value")
    rows, columns = np.nonzero(v == np.nanmax(v))
    x, y = (columns + 0.5) / v.shape[1], (rows + 0.5) / v.shape[0]
    nearest = int(np.argmin((x - 0.5) ** 2 + (y - 0.5) ** 2))
    return float(x[nearest]), float(y[nearest])


def is_hit(place: ArrayLike, boxes: ArrayLike) -> bool:
    """Whether the place (2,) is in one of the boxes (K, 4)."""
    return bool(_covering(np.asarray(place, dtype=np.float64)[None], _boxes(boxes)).any())


def mean_place(boxes: ArrayLike) -> tuple[float, float]:
    """The mean of the centres of boxes (K, 4): where a finding is on the average, which for one with two sides may be between them.

    Raises:
        ValueError: there is no box.
    """
    b = _boxes(boxes)
    if not len(b):
        raise ValueError("no box to learn a place from")
    return float((b[:, 0] + b[:, 2]).mean() / 2), float((b[:, 1] + b[:, 3]).mean() / 2)


def most_covered_place(pictures: Sequence[ArrayLike]) -> tuple[float, float]:
    """A place that is in a box of most images; `images` are the boxes (K, 4) of each.

    Boxes overlap most at the left edge of one and the top edge of one, so those are tried; what is returned is the middle of all that the
    same boxes cover.

    Raises:
        ValueError: there is no box.
    """
    each = [_boxes(boxes) for boxes in pictures]
    if not sum(map(len, each)):
        raise ValueError("no box to learn a place from")
    every = np.concatenate(each)
    x, y = np.meshgrid(np.unique(every[:, 0]), np.unique(every[:, 1]))
    places = np.stack([x.ravel(), y.ravel()], axis=1)
    covered = sum(_covering(places, boxes).any(axis=1).astype(np.int64) for boxes in each)
    best = places[int(np.argmax(covered))]
    around = every[_covering(best[None], every)[0]]
    middle = (around[:, 0].max() + around[:, 2].min()) / 2, (around[:, 1].max() + around[:, 3].min()) / 2
    return float(middle[0]), float(middle[1])


def area_share(boxes: ArrayLike) -> float:
    """Share of the image that boxes (K, 4) cover together: how often a place drawn at random is a hit."""
    b = np.clip(_boxes(boxes), 0, 1)
    x, y = np.unique(b[:, ::2]), np.unique(b[:, 1::2])
    if not len(b):
        return 0.0
    middles = np.stack(np.meshgrid((x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2), axis=-1).reshape(-1, 2)
    cells = np.outer(np.diff(y), np.diff(x)).ravel()
    return float(cells[_covering(middles, b).any(axis=1)].sum())


def _boxes(boxes: ArrayLike) -> Floats:
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not np.isfinite(b).all() or (b[:, 2:] < b[:, :2]).any():
        raise ValueError("boxes must be left, top, right, bottom")
    return b


def _covering(places: Floats, boxes: Floats) -> NDArray[np.bool_]:
    """(N, K): whether each place (N, 2) is in each box (K, 4)."""
    inside: NDArray[np.bool_] = ((boxes[None, :, :2] <= places[:, None]) & (places[:, None] <= boxes[None, :, 2:])).all(axis=2)
    return inside
