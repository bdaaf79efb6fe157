"""The bootstrap over patients: a patient is drawn with all studies, and every finding meets the same resamples.

A resample is a row of weights: how often each study was drawn. Sorting by score is done once for a finding; each resample then costs one
gather and one running sum, so that 14 findings of 100,000 studies take their 1,000 resamples in seconds (tests/benchmarks/metrics.py).
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
    """The 2.5 % and 97.5 % points of resampled values, NaN left out; (0, 1) where nothing is left, for then nothing is known."""
    kept = values[np.isfinite(values)]
    if kept.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(kept, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Curves:
    """Figures of R resamples, each (R,), NaN where a class was not drawn: areas under the ROC and the precision-recall curve, best F1."""

    auroc: Floats
    auprc: Floats
    max_f1: Floats


class Ranked:
    """One finding's studies in order of score, made once for all resamples.

    Args:
        scores: (N,) finite.
        labels: (N,) of 1 and 0, both of them.
        rows: (N,) where each study stands in a row of weights; None: in this order.

    Raises:
        ValueError: see `engine.metrics.roc.two_classes`.
    """

    def __init__(self, scores: ArrayLike, labels: ArrayLike, rows: NDArray[np.intp] | None = None) -> None:
        s, positive = two_classes(scores, labels)
        order = np.argsort(-s, kind="stable")
        changes = np.diff(s[order]) != 0
        tie, ends = np.cumsum(np.r_[False, changes]), np.flatnonzero(np.r_[changes, True])  # which distinct score, and its last study
        present = positive[order]
        mine = tie[present]
        seen = np.r_[0, np.cumsum(present)]
        self._order = order if rows is None else rows[order]
        self._positives = np.flatnonzero(present)
        self._end, self._before = (ends + 1)[mine], np.r_[0, ends + 1][mine]
        self._hits_to_end, self._hits_before = seen[self._end], seen[self._before]
        self._tied = bool((self._end - self._before > 1).any())

    def curves(self, weights: NDArray[np.int32]) -> Curves:
        """The figures of R resamples, `weights` (R, N).

        With tp and all the weights drawn at or above a positive's score: AUROC = 1 - sum w (negatives above + half of those tied) / pairs,
        average precision = sum w tp / all / positives, best F1 = max 2 tp / (positives + all); sums and maxima over the positives alone,
        since no threshold between two of them gains anything.
        """
        drawn = np.take(weights, self._order, axis=1)
        everyone, mine = _running(drawn), np.take(drawn, self._positives, axis=1)
        hits = _running(mine)
        positives, total = (each[:, -1].astype(np.float64) for each in (hits, everyone))
        called = np.take(everyone, self._end, axis=1)
        true = np.take(hits, self._hits_to_end, axis=1) if self._tied else hits[:, 1:]
        above = called - true  # negatives drawn at or above each positive
        if self._tied:
            above = above + np.take(everyone, self._before, axis=1) - np.take(hits, self._hits_before, axis=1)
        else:
            above *= 2
        # Counts stay below 2^24, which float32 holds exactly; sums are taken in float64
        share, weight = true.astype(np.float32), mine.astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            lost = np.einsum("rp,rp->r", mine, above, dtype=np.float64) / 2
            area = 1 - lost / (positives * (total - positives))
            best = (2 * share / (called + hits[:, -1:]).astype(np.float32)).max(axis=1)
            share /= np.maximum(called, 1).astype(np.float32)
            average = np.einsum("rp,rp->r", weight, share) / positives
        missing = (positives == 0) | (positives == total)
        return Curves(*(np.where(missing, np.nan, each) for each in (area, average, best)))


def _running(counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Running sums along the rows of (R, N), from a leading 0: (R, N + 1)."""
    sums = np.zeros((counts.shape[0], counts.shape[1] + 1), dtype=np.int32)
    np.cumsum(counts, axis=1, dtype=np.int32, out=sums[:, 1:])
    return sums
