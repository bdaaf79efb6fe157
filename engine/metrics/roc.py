"""The area under the ROC curve and its 95 % interval by DeLong or Newcombe; ROC curve and average precision. Bootstraps: resampling.py.

Everywhere: `scores` are float (N,), higher = more likely present; `labels` are (N,) of 1 = present and 0 = absent, no unknowns; a tie
between a positive and a negative counts one half. `ValueError` where a class is missing: the caller decides what null means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
IntervalMethod = Literal["delong", "newcombe", "patient_bootstrap"]

Z_95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


@dataclass(frozen=True)
class Interval:
    """An estimate, its 95 % interval, all in [0, 1], and how the interval was found."""

    value: float
    low: float
    high: float
    method: IntervalMethod


def two_classes(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Checked arrays: finite scores (N,), and labels as booleans (N,) with both classes present."""
    s = np.asarray(scores, dtype=np.float64)
    y = np.asarray(labels)
    if s.ndim != 1 or s.shape != y.shape:
        raise ValueError(f"scores and labels must be two equally long rows, not {s.shape} and {y.shape}")
    if not np.isfinite(s).all():
        raise ValueError("scores are not finite")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels are not all 0 or 1")
    positive = y == 1
    if positive.all() or not positive.any():
        raise ValueError("one class only: an ROC curve needs positives and negatives")
    return s, positive


def _midranks(x: Floats) -> Floats:
    """Ranks 1..N of `x` (N,), ties sharing the mean of their ranks."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: Floats = last - (counts - 1) / 2
    ranks: Floats = middle[inverse]
    return ranks


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve = share of (positive, negative) pairs that the score puts in the right order (Mann-Whitney)."""
    s, positive = two_classes(scores, labels)
    m = int(positive.sum())
    n = s.size - m
    return float((_midranks(s)[positive].sum() - m * (m + 1) / 2) / (m * n))


def delong_variance(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """AUROC and its variance after DeLong, DeLong & Clarke-Pearson (Biometrics 1988), by midranks (Sun & Xu, 2014) in O(N log N).

    The variance is S10/m + S01/n, with S the sample variances of the structural components: of each positive, the share of negatives
    below it; of each negative, the share of positives above it. With one positive or one negative that part is unknown and counts 0.
    """
    v10, v01 = components(scores, labels)
    spread = sum(float(v.var(ddof=1)) / v.size for v in (v10, v01) if v.size > 1)
    return float(v10.mean()), spread


def components(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """DeLong's structural components, V10 (positives,) and V01 (negatives,), each in the order of the studies; both have the mean AUROC."""
    s, positive = two_classes(scores, labels)
    ranks, x, y = _midranks(s), s[positive], s[~positive]
    return (ranks[positive] - _midranks(x)) / y.size, 1 - (ranks[~positive] - _midranks(y)) / x.size


def newcombe_interval(value: float, m: int, n: int, *, z: float = Z_95) -> tuple[float, float]:
    """Score interval of an AUROC of `value` with `m` positives and `n` negatives: Newcombe's method 5 (Stat Med 2006;25:559-573).

    Solves |value - t| = z sqrt(V(t)) for t, V being Hanley & McNeil's variance with N* = (m + n) / 2. Unlike DeLong's it keeps its width
    where the classes are separated perfectly: the variance that DeLong estimates there is 0, which no one should believe.
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


def delong_interval(scores: ArrayLike, labels: ArrayLike) -> Interval:
    """AUROC with DeLong's 95 % interval, cut to [0, 1]; Newcombe's where DeLong's variance says nothing.

    DeLong's is no use where it is 0 (perfect separation, or all scores equal) or where a class has a single member.
    """
    s, positive = two_classes(scores, labels)
    m = int(positive.sum())
    n = s.size - m
    value, variance = delong_variance(s, positive)
    if variance <= 1e-12 or min(m, n) < 2:
        low, high = newcombe_interval(value, m, n)
        return Interval(value, low, high, "newcombe")
    half = Z_95 * variance**0.5
    return Interval(value, max(0.0, value - half), min(1.0, value + half), "delong")


def roc_curve(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """False and true positive rate, each (K + 1,) from 0 to 1, as the threshold falls past each of the K distinct scores."""
    s, positive = two_classes(scores, labels)
    order = np.argsort(-s, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(s[order]) != 0, True])
    true = np.cumsum(positive[order])[ends]
    false = ends + 1 - true
    return np.r_[0.0, false / false[-1]], np.r_[0.0, true / true[-1]]


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the precision-recall curve as a step function: sum over thresholds of (recall gained) x precision; ties fall together."""
    s, positive = two_classes(scores, labels)
    order = np.argsort(-s, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(s[order]) != 0, True])
    true = np.cumsum(positive[order])[ends]
    gained = np.diff(true, prepend=0) / true[-1]
    return float((gained * true / (ends + 1)).sum())


# Numbers for choosing between models, one for all findings: the mean AUROC, and the mean loss that breaks a tie.


def macro_auroc(scores: NDArray[np.floating[Any]], labels: NDArray[np.floating[Any]]) -> float | None:
    """Mean AUROC over the findings with both classes; None where there is none.

    Args:
        scores: (N, F), higher = more likely present, finite.
        labels: (N, F) of 1 = present, 0 = absent, NaN = unknown and left out.
    """
    areas = []
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        if len(np.unique(labels[known, column])) == 2:
            areas.append(auroc(scores[known, column], labels[known, column]))
    return float(np.mean(areas)) if areas else None


def mean_log_loss(scores: NDArray[np.floating[Any]], labels: NDArray[np.floating[Any]]) -> float:
    """Mean over all known labels of -log(score of what is true), no single one above -log(1e-12).

    Args:
        scores: (N, F) in [0, 1], the probability of present.
        labels: (N, F) of 1 = present, 0 = absent, NaN = unknown and left out.
    """
    known = ~np.isnan(labels)
    likely = np.where(labels == 1, scores, 1 - scores)[known]
    return float(-np.log(np.clip(likely, 1e-12, 1)).mean())
