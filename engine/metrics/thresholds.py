"""Thresholds, and what a score is worth once it is cut at one: F1 and accuracy. A study is called positive where score >= threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

ThresholdSource = Literal["val_mcc", "val_youden", "val_f1", "fixed", "test_max_f1"]
"""Where a threshold comes from. test_max_f1 is the paper's: chosen on the very labels it is judged by, and named so."""


@dataclass(frozen=True)
class Cut:
    """What calling `score >= threshold` positive gives: F1 = 2TP / (2TP + FP + FN), and accuracy, both in [0, 1]."""

    threshold: float
    f1: float
    accuracy: float
    source: ThresholdSource


def cut_at(scores: ArrayLike, labels: ArrayLike, threshold: float, source: ThresholdSource = "fixed") -> Cut:
    """F1 and accuracy of `scores` (N,) against `labels` (N,) of 0 and 1 at a threshold; F1 is 0 where no positive is called so."""
    called = np.asarray(scores, dtype=np.float64) >= threshold
    present = np.asarray(labels) == 1
    hits = int((called & present).sum())
    misses = int((called != present).sum())
    return Cut(threshold, 2 * hits / (2 * hits + misses) if hits else 0.0, 1 - misses / present.size, source)


def test_max_f1(scores: ArrayLike, labels: ArrayLike) -> Cut:
    """The best F1 that any threshold reaches on these very labels, the threshold, and the accuracy there: an optimistic pair, the paper's.

    Thresholds tried are the distinct scores; of equally good ones the highest is taken. Needs at least one positive label.
    """
    s = np.asarray(scores, dtype=np.float64)
    present = np.asarray(labels) == 1
    if not present.any():
        raise ValueError("no positive label: every F1 is 0")
    order = np.argsort(-s, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(s[order]) != 0, True])
    hits = np.cumsum(present[order])[ends]
    f1 = 2 * hits / (ends + 1 + present.sum())
    best = float(s[order][ends[int(np.argmax(f1))]])
    return cut_at(s, present, best, "test_max_f1")


test_max_f1.__test__ = False  # type: ignore[attr-defined]  # the paper's name for it; pytest must not collect it
