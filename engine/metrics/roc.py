"""ROC and precision-recall curves and the areas under them. Their intervals: intervals.py, bootstrap.py.

Everywhere: `scores` are float (N,), higher = more likely present; `labels` are (N,) of 1 = present and 0 = absent, no unknowns; a tie
between a positive and a negative counts one half. `ValueError` where a class is missing: the caller decides what null means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


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


def components(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """DeLong's structural components, each in the order of the studies; the mean of either is the AUROC (Biometrics 1988;44:837-845).

    By midranks (Sun & Xu, 2014) in O(N log N).

    Returns:
        V10 (positives,): of each positive, the share of negatives scored below it; V01 (negatives,): of each negative, the share of
        positives scored above it.
    """
    s, positive = two_classes(scores, labels)
    ranks, x, y = _midranks(s), s[positive], s[~positive]
    return (ranks[positive] - _midranks(x)) / y.size, 1 - (ranks[~positive] - _midranks(y)) / x.size


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
