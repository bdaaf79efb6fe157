"""Thresholds, and what a score is worth once it is cut at one. A study is called positive where score >= threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.metrics.roc import two_classes

ThresholdSource = Literal["val_mcc", "val_youden", "val_f1", "fixed", "test_max_f1"]
"""Where a threshold comes from. val_*: the best MCC, Youden index (sensitivity + specificity - 1) or F1 on a validation part that shares no
patient with the test part. test_max_f1 is the paper's: chosen on the very labels it is judged by, and named so."""


@dataclass(frozen=True)
class Threshold:
    """A threshold and where it comes from."""

    value: float
    source: ThresholdSource = "fixed"


@dataclass(frozen=True)
class Cut:
    """What calling `score >= threshold` positive gives; all but MCC (-1 to 1) are in [0, 1].

    Attributes:
        f1: 2TP / (2TP + FP + FN), 0 where no positive is called so.
        sensitivity, specificity: None without a positive, without a negative.
        mcc: Matthews' correlation of call and label; None with one class of labels, 0 where all calls are equal.
    """

    threshold: float
    source: ThresholdSource
    f1: float
    accuracy: float
    sensitivity: float | None
    specificity: float | None
    mcc: float | None


def cut_at(scores: ArrayLike, labels: ArrayLike, threshold: float, source: ThresholdSource = "fixed") -> Cut:
    """Figures of `scores` (N,) against `labels` (N,) of 0 and 1 at a threshold; N > 0."""
    called = np.asarray(scores, dtype=np.float64) >= threshold
    present = np.asarray(labels) == 1
    hits, calls, positives = int((called & present).sum()), int(called.sum()), int(present.sum())
    negatives = present.size - positives
    rejected = negatives - (calls - hits)
    return Cut(
        threshold,
        source,
        f1=2 * hits / (calls + positives) if hits else 0.0,
        accuracy=(hits + rejected) / present.size,
        sensitivity=hits / positives if positives else None,
        specificity=rejected / negatives if negatives else None,
        mcc=float(_mcc(np.array([hits]), np.array([calls]), positives, negatives)[0]) if positives and negatives else None,
    )


def chosen_threshold(scores: ArrayLike, labels: ArrayLike, source: ThresholdSource) -> Threshold:
    """The distinct score of `scores` (N,) at which `labels` (N,) are met best by the measure that `source` names.

    Of equally good ones the highest is taken. Apply it to other studies, unless it is the paper's test_max_f1.

    Raises:
        ValueError: one class only, scores that are not finite, or `source` is fixed.
    """
    s, present = two_classes(scores, labels)
    order = np.argsort(-s, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(s[order]) != 0, True])
    hits, calls = np.cumsum(present[order])[ends], ends + 1
    positives = int(present.sum())
    negatives = present.size - positives
    if source in ("val_f1", "test_max_f1"):
        worth = 2 * hits / (calls + positives)
    elif source == "val_youden":
        worth = hits / positives - (calls - hits) / negatives
    elif source == "val_mcc":
        worth = _mcc(hits, calls, positives, negatives)
    else:
        raise ValueError("a fixed threshold is not chosen")
    return Threshold(float(s[order][ends[int(np.argmax(worth))]]), source)


def _mcc(hits: NDArray[np.intp], calls: NDArray[np.intp], positives: int, negatives: int) -> NDArray[np.float64]:
    """Matthews' correlation coefficient, 0 where all calls are equal (Chicco & Jurman, BMC Genomics 2020)."""
    n = positives + negatives
    spread = calls.astype(np.float64) * (n - calls) * positives * negatives
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 0, (hits * float(n) - calls * float(positives)) / np.sqrt(spread), 0.0)


def test_max_f1(scores: ArrayLike, labels: ArrayLike) -> Cut:
    """The best F1 that any threshold reaches on these very labels, and what else holds there: an optimistic set, the paper's.

    Raises:
        ValueError: see `chosen_threshold`.
    """
    best = chosen_threshold(scores, labels, "test_max_f1")
    return cut_at(scores, labels, best.value, "test_max_f1")


test_max_f1.__test__ = False  # type: ignore[attr-defined]  # the paper's name for it; pytest must not collect it
