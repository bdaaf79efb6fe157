"""Bootstrap over patients: a patient is drawn with all studies, and all findings use the same resamples.

A resample is a row of weights: how often each study was drawn. Scores are sorted once per finding; each resample then costs one gather and
one running sum, so that 14 findings of 100,000 studies take their 1,000 resamples in seconds (tests/benchmarks/metrics.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.metrics.roc import Floats, two_classes


def patient_weights(patients: NDArray[np.integer[Any]], resamples: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """How often each of N studies is drawn in each of R resamples, (R, N): patients are drawn with replacement, with all their studies.

    `patients` (N,) numbers the patients 0..P-1.
    """
    count = int(patients.max()) + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.int32)
    weights: NDArray[np.int32] = drawn[:, patients]
    return weights


def percentiles(values: Floats) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of resampled values, NaN left out; (0, 1) where nothing is left."""
    kept = values[np.isfinite(values)]
    if kept.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(kept, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class ResampledFigures:
    """Figures of R resamples, each (R,), NaN where a class was not drawn: average precision and the best F1 of any threshold."""

    average_precision: Floats
    max_f1: Floats


class SortedStudies:
    """The studies of one finding in order of score, sorted once for all resamples.

    Args:
        scores: (N,) finite.
        labels: (N,) of 1 and 0, both present.
        columns: (N,) the column of each study in the weights; None: in this order.

    Raises:
        ValueError: see `engine.metrics.roc.two_classes`.
    """

    def __init__(self, scores: ArrayLike, labels: ArrayLike, columns: NDArray[np.intp] | None = None) -> None:
        s, positive = two_classes(scores, labels)
        order = np.argsort(-s, kind="stable")
        changes = np.diff(s[order]) != 0
        tie, ends = np.cumsum(np.r_[False, changes]), np.flatnonzero(np.r_[changes, True])  # which distinct score, and its last study
        present = positive[order]
        self._order = order if columns is None else columns[order]
        self._positives = np.flatnonzero(present)
        self._end = (ends + 1)[tie[present]]
        self._hits_to_end = np.r_[0, np.cumsum(present)][self._end]

    def resampled(self, weights: NDArray[np.int32]) -> ResampledFigures:
        """The figures of R resamples, `weights` (R, N).

        With tp and all the weights drawn at or above the score of a positive with weight w: average precision = sum w tp / all / positives,
        best F1 = max 2 tp / (positives + all). Thresholds between two positives are never better, so only the positives count.
        """
        drawn = np.take(weights, self._order, axis=1)
        running, weight = _running(drawn), np.take(drawn, self._positives, axis=1)
        hits = _running(weight)
        positives, total = (each[:, -1].astype(np.float64) for each in (hits, running))
        called = np.take(running, self._end, axis=1)
        # Counts stay below 2^24, which float32 holds exactly
        share = np.take(hits, self._hits_to_end, axis=1).astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            best = (2 * share / (called + hits[:, -1:]).astype(np.float32)).max(axis=1)
            share /= np.maximum(called, 1).astype(np.float32)
            average = np.einsum("rp,rp->r", weight.astype(np.float32), share) / positives
        missing = (positives == 0) | (positives == total)
        return ResampledFigures(np.where(missing, np.nan, average), np.where(missing, np.nan, best))


def _running(counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Running sums along the rows of (R, N), from a leading 0: (R, N + 1)."""
    sums = np.zeros((counts.shape[0], counts.shape[1] + 1), dtype=np.int32)
    np.cumsum(counts, axis=1, dtype=np.int32, out=sums[:, 1:])
    return sums
