"""Whether a picture is like an upright frontal chest: its distance from the space that chests span, and which way up it hangs.

Tags lie about both, or say nothing. All is measured on a 32 x 32 copy of the picture, made by examples/train_picture_checks.py from
freely licensed radiographs of adults and children; tests/benchmarks/dicom_picture_checks.py measures it on patients that it never saw.
Flags only: no picture is turned away, or turned round, for what is found here. Laterals are not told: no freely licensed ones were at
hand to learn from.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE = 32
UPRIGHT, MIRRORED = 0, 4
"""Places in the eight ways to hang a picture (`eight_ways`); every other one is turned."""
WEIGHTS = Path(__file__).with_name("likeness.npz")


@dataclass(frozen=True, eq=False)
class Likeness:
    """What was learnt: float32 arrays of flattened 32 x 32 pictures, and what counts as an alarm.

    mean (1024,), axes (K, 1024) with variance (K,) along them, and rest, the mean variance along all other axes, describe upright chests
    (probabilistic PCA, Tipping and Bishop 1999). line (1024,), hidden (H, 1024), bias (H,), out (H,) score uprightness. strange, turned,
    mirrored: alarms above these, chosen for few false alarms on patients that neither the training nor the measurement saw.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    variance: NDArray[np.float32]
    rest: float
    line: NDArray[np.float32]
    hidden: NDArray[np.float32]
    bias: NDArray[np.float32]
    out: NDArray[np.float32]
    strange: float
    turned: float
    mirrored: float

    def distances(self, ways: NDArray[np.float32]) -> NDArray[np.float32]:
        """(2, N): squared Mahalanobis distances of pictures (N, 1024) and of their negatives."""
        along, mean_along = ways @ self.axes.T, self.axes @ self.mean
        squares, against = (ways * ways).sum(1), ways @ self.mean
        answers = []
        for sign in (1.0, -1.0):
            moved = sign * along - mean_along
            residual = squares - 2 * sign * against + self.mean @ self.mean - (moved * moved).sum(1)
            answers.append(residual / self.rest + (moved * moved / self.variance).sum(1))
        return np.asarray(answers, np.float32)

    def uprightness(self, ways: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) scores of pictures (N, 1024): among the ways to hang one picture, softmax gives the chance that each is the upright one."""
        scores = ways @ self.line + np.maximum(ways @ self.hidden.T + self.bias, 0) @ self.out
        return np.asarray(scores, np.float32)


@cache
def shipped() -> Likeness:
    """The likeness that lies beside this file."""
    with np.load(WEIGHTS, allow_pickle=False) as file:
        values = {name: file[name].astype(np.float32) for name in file.files}
    numbers = {name: float(values.pop(name)) for name in ("rest", "strange", "turned", "mirrored")}
    return Likeness(**values, **numbers)  # type: ignore[arg-type]  # names and kinds are those that training wrote


@dataclass(frozen=True)
class Look:
    """strangeness: Mahalanobis distance of the likeliest way to hang it, over 1024. turned, mirrored: chances in [0, 1]."""

    strangeness: float
    turned: float
    mirrored: float

    def flags(self, likeness: Likeness) -> tuple[str, ...]:
        """`out_of_distribution`, or `orientation`, or none: which way up something else hangs is no question."""
        if self.strangeness > likeness.strange:
            return ("out_of_distribution",)
        return ("orientation",) if self.turned > likeness.turned or self.mirrored > likeness.mirrored else ()


def look_of(picture: NDArray[np.uint8], likeness: Likeness) -> Look:
    """How a picture (H, W) looks. Neither a turned nor an inverted chest is strange: the least strange of sixteen ways counts."""
    ways = eight_ways(small_copy(picture)).reshape(8, -1)
    distances = likeness.distances(ways)
    sign = 1.0 if distances[0].min() <= distances[1].min() else -1.0
    scores = likeness.uprightness(np.float32(sign) * ways)
    chances = np.exp(scores - scores.max())
    chances /= chances.sum()
    upright, mirrored = float(chances[UPRIGHT]), float(chances[MIRRORED])
    return Look(float(distances.min()) / SIDE**2, 1 - upright - mirrored, mirrored)


def picture_flags(picture: NDArray[np.uint8]) -> tuple[str, ...]:
    """The flags of policy.FLAGS that a picture (H, W), bone bright, earns by its looks: `orientation`, `out_of_distribution`."""
    return look_of(picture, shipped()).flags(shipped())


def small_copy(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """32 x 32 means of a picture (H, W), its sides squashed to one length; mean 0, deviation 1, all 0 for a constant picture."""
    rows, columns = (np.linspace(0, side, SIDE + 1).astype(int) for side in picture.shape)
    sums = np.add.reduceat(np.add.reduceat(picture, rows[:-1], 0, dtype=np.float32), columns[:-1], 1)
    means = sums / np.outer(np.maximum(np.diff(rows), 1), np.maximum(np.diff(columns), 1))
    means -= means.mean()
    spread = float(means.std())
    return (means / spread if spread else means).astype(np.float32)


def eight_ways(square: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., S, S) -> (..., 8, S, S): turned by 0, 90, 180, 270 degrees anticlockwise, then the same of the mirrored picture."""
    return np.stack([np.rot90(one, turns, (-2, -1)) for one in (square, square[..., ::-1]) for turns in range(4)], -3)
