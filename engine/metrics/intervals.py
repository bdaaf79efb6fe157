"""95 % intervals of an AUROC, of the mean of several and of the difference of two, for studies clustered by patient.

    newcombe      fewer than `FEWEST_PATIENTS` patients of a class, or no variance to estimate (perfect separation): Newcombe's method 5,
                  counted over patients
    logit_delong  else: DeLong's variance on the logit scale, with studies of a patient summed (Obuchowski, Biometrics 1997;53:567-578)
                  and the t distribution of Welch-Satterthwaite degrees of freedom
    mover         a mean or a difference: the method of variance estimates recovery (Zou & Donner, Stat Med 2008;27:1693-1702), which
                  combines the intervals of the single AUROCs by their correlation

How often each covers the true value: `python tests/benchmarks/interval_coverage.py`, table in recipes/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.metrics.roc import Floats, components, two_classes

IntervalMethod = Literal["newcombe", "logit_delong", "mover"]

Z_95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
FEWEST_PATIENTS = 10
"""Of each class: with fewer, DeLong's variance is estimated too low too often."""
_NO_VARIANCE = 1e-12


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval, and how the interval was found."""

    value: float
    low: float
    high: float
    method: IntervalMethod


@dataclass(frozen=True)
class Area:
    """The AUROC of one finding, and what each of P patients contributes to its variance.

    Attributes:
        value: AUROC in [0, 1].
        positives, negatives: patients with a study that shows the finding, with one that does not; a patient may be both.
        influence: (P,), 0 for patients without a study here. The sum of squares is the variance of `value`; the sum of products with the
            influence of another area of the same patients is their covariance.
        degrees_of_freedom: of the variance.
    """

    value: float
    positives: int
    negatives: int
    influence: Floats
    degrees_of_freedom: float


def area_of(scores: ArrayLike, labels: ArrayLike, patients: NDArray[np.integer[Any]], patient_count: int) -> Area:
    """The AUROC of N studies, clustered by patient.

    With one study per patient the variance is that of DeLong, DeLong & Clarke-Pearson (Biometrics 1988), S10/m + S01/n.

    Args:
        scores: (N,) finite, higher = more likely present.
        labels: (N,) of 1 and 0, both present.
        patients: (N,) integers 0..P-1.
        patient_count: P; the same for areas that are to be combined.

    Raises:
        ValueError: see `engine.metrics.roc.two_classes`.
    """
    _, present = two_classes(scores, labels)
    v10, v01 = components(scores, labels)
    value = float(v10.mean())
    shares, counts, squares = [], [], []
    for each, mine in ((v10, patients[present]), (v01, patients[~present])):
        count = np.unique(mine).size
        share = np.bincount(mine, (each - value) / each.size, minlength=patient_count) * math.sqrt(count / max(1, count - 1))
        shares.append(share)
        counts.append(count)
        squares.append(float(share @ share))
    spread = sum(square**2 / max(1, count - 1) for square, count in zip(squares, counts, strict=True))
    degrees = sum(squares) ** 2 / spread if spread > 0 else 1.0
    return Area(value, counts[0], counts[1], shares[0] + shares[1], degrees)


def area_interval(area: Area, *, z: float = Z_95) -> Interval:
    """The interval of one AUROC; `z` is the normal quantile of the wanted coverage."""
    variance = float(area.influence @ area.influence)
    if min(area.positives, area.negatives) < FEWEST_PATIENTS or variance <= _NO_VARIANCE:
        return Interval(area.value, *newcombe_interval(area.value, area.positives, area.negatives, z=z), "newcombe")
    middle = math.log(area.value / (1 - area.value))
    half = _t_quantile(z, area.degrees_of_freedom) * math.sqrt(variance) / (area.value * (1 - area.value))
    return Interval(area.value, _expit(middle - half), _expit(middle + half), "logit_delong")


def mean_interval(areas: Sequence[Area]) -> Interval:
    """The mean of one or more AUROCs of the same patients; of one, its own interval."""
    intervals = [area_interval(area) for area in areas]
    if len(intervals) == 1:
        return intervals[0]
    value = float(np.mean([area.value for area in areas]))
    correlation = np.array([[_correlation(one, other) if one is not other else 1.0 for other in areas] for one in areas])
    below = np.array([each.value - each.low for each in intervals]) / len(areas)
    above = np.array([each.high - each.value for each in intervals]) / len(areas)
    low, high = value - math.sqrt(max(0.0, below @ correlation @ below)), value + math.sqrt(max(0.0, above @ correlation @ above))
    return Interval(value, max(0.0, low), min(1.0, high), "mover")


def difference_interval(first: Area, second: Area, *, z: float = Z_95) -> Interval:
    """AUROC of `first` minus that of `second`, of the same patients; in [-1, 1].

    The correlation is estimated from the smaller class of k patients and counts 1 - 1/k of itself: with three to nine positives the
    full estimate covered .82 where this covers .91 (AUROC .64; 400 draws).
    """
    one, other = area_interval(first, z=z), area_interval(second, z=z)
    smaller = min(first.positives, first.negatives, second.positives, second.negatives)
    r = _correlation(first, second) * (1 - 1 / smaller)
    value = one.value - other.value

    def reach(mine: float, its: float) -> float:
        return math.sqrt(max(0.0, mine**2 + its**2 - 2 * r * mine * its))

    low = value - reach(one.value - one.low, other.high - other.value)
    high = value + reach(one.high - one.value, other.value - other.low)
    return Interval(value, max(-1.0, low), min(1.0, high), "mover")


def _correlation(one: Area, other: Area) -> float:
    """Of two estimated AUROCs, in [-1, 1]; 0 where one has no variance."""
    scale = math.sqrt(float(one.influence @ one.influence) * float(other.influence @ other.influence))
    return float(one.influence @ other.influence) / scale if scale > _NO_VARIANCE else 0.0


def _t_quantile(z: float, degrees_of_freedom: float) -> float:
    """The quantile of Student's t that leaves as much above it as `z` does of the normal distribution."""
    from scipy.special import stdtrit

    return -float(stdtrit(degrees_of_freedom, math.erfc(z / math.sqrt(2)) / 2))


def _expit(x: float) -> float:
    return 0.5 + 0.5 * math.tanh(x / 2)


def newcombe_interval(value: float, m: int, n: int, *, z: float = Z_95) -> tuple[float, float]:
    """Score interval of an AUROC of `value` with `m` positives and `n` negatives: Newcombe's method 5 (Stat Med 2006;25:559-573).

    Solves |value - t| = z sqrt(V(t)) for t, V being Hanley & McNeil's variance with N* = (m + n) / 2. Unlike DeLong's it keeps its width
    where the classes are separated perfectly: the variance that DeLong estimates there is 0.
    """
    star = (m + n) / 2 - 1

    def beyond(t: float) -> bool:
        variance = t * (1 - t) * (1 + star * (1 - t) / (2 - t) + star * t / (1 + t)) / (m * n)
        return (value - t) ** 2 > z * z * variance

    def edge(far: float) -> float:
        near = value
        for _ in range(60):
            middle = (near + far) / 2
            near, far = (near, middle) if beyond(middle) else (middle, far)
        return near

    return (edge(0.0) if value > 0 else 0.0), (edge(1.0) if value < 1 else 1.0)


def wilson_interval(share: float, n: float, *, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a `share` of `n` (JASA 1927;22:209-212): valid for few, and at 0 and 1."""
    spread = z * z / n
    middle = share + spread / 2
    half = (spread * (share * (1 - share) + spread / 4)) ** 0.5
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    return (0.0 if share == 0 else low), (1.0 if share == 1 else high)
