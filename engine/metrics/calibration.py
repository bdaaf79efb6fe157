"""Calibration: Brier score, expected calibration error, reliability curve, and maps from scores to probabilities.

    temperature   sigmoid(logit(score) / T)              one number; keeps 0.5 at 0.5                 (Guo et al., ICML 2017)
    platt         sigmoid(a logit(score) + b)            two numbers; also moves the base rate        (Platt, 1999)

Both keep the order of the studies, so AUROC and AUPRC do not change. A map must be fitted on other patients than it is judged on, and again
where prevalence differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.metrics.bootstrap import patient_weights, percentiles
from engine.metrics.roc import Floats

Method = Literal["temperature", "platt"]

BINS = 15
"""Bins of equal width over [0, 1] of the calibration error and the reliability curve, as in Guo et al.; the last includes 1."""
FEWEST = 5
"""Positives and negatives that a map needs at least."""
EDGE = 1e-6
"""Scores are clipped to [EDGE, 1 - EDGE] before the logit."""
_CELLS = 4_000_000
"""Elements of the largest temporary of the bootstrap."""


def sigmoid(x: ArrayLike) -> Floats:
    """1 / (1 + exp(-x)) in the form that never overflows."""
    return np.asarray(0.5 + 0.5 * np.tanh(np.asarray(x, dtype=np.float64) / 2))


def brier(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared difference of score (in [0, 1]) and label (0 or 1); 0 is best, a constant 0.5 gives 0.25."""
    return float(np.mean((np.asarray(scores, dtype=np.float64) - np.asarray(labels, dtype=np.float64)) ** 2))


def _bins(scores: Floats) -> NDArray[np.intp]:
    return np.minimum((scores * BINS).astype(np.intp), BINS - 1)


def ece(scores: ArrayLike, labels: ArrayLike) -> float:
    """Expected calibration error: the mean over studies of |mean score - share of positives| in their bin, of `BINS` equally wide ones."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    return float(np.abs(np.bincount(_bins(s), weights=s - y, minlength=BINS)).sum() / s.size)


@dataclass(frozen=True)
class Reliability:
    """Agreement of scores with the share of positives; each figure with its 95 % interval by a bootstrap over patients.

    The expected calibration error of a small sample is biased upwards, and so is its interval.

    Attributes:
        curve: (mean score, share of positives, studies) of each bin with studies, lowest first.
    """

    brier: float
    brier_low: float
    brier_high: float
    ece: float
    ece_low: float
    ece_high: float
    curve: tuple[tuple[float, float, int], ...]


def reliability(scores: ArrayLike, labels: ArrayLike, patients: ArrayLike, *, resamples: int = 1000, seed: int = 0) -> Reliability:
    """The reliability of scores (N,) in [0, 1] against labels (N,) of 1 and 0, N > 0; `patients` (N,) names the patient of each."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    bins = _bins(s)
    columns = np.zeros((s.size, BINS + 1))  # the last: squared errors
    columns[np.arange(s.size), bins] = s - y
    columns[:, BINS] = (s - y) ** 2
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS // s.size)
    drawn = []
    for start in range(0, resamples, chunk):
        weights = patient_weights(patient, min(chunk, resamples - start), rng)
        sums = weights @ columns / weights.sum(axis=1, keepdims=True)
        drawn.append(np.stack([sums[:, BINS], np.abs(sums[:, :BINS]).sum(axis=1)], axis=1))
    spread = np.concatenate(drawn) if drawn else np.empty((0, 2))
    counts = np.bincount(bins, minlength=BINS)
    means, shares = (np.bincount(bins, weights=each, minlength=BINS) for each in (s, y))
    curve = tuple((float(means[k] / counts[k]), float(shares[k] / counts[k]), int(counts[k])) for k in np.flatnonzero(counts))
    return Reliability(brier(s, y), *percentiles(spread[:, 0]), ece(s, y), *percentiles(spread[:, 1]), curve)


@dataclass(frozen=True)
class CalibrationMap:
    """sigmoid(slope * logit(score) + shift), slope > 0; a temperature T is slope 1 / T with shift 0."""

    slope: float
    shift: float

    def __call__(self, scores: ArrayLike) -> Floats:
        """Calibrated scores, of the same shape; NaN stays NaN."""
        return sigmoid(self.slope * logits(scores) + self.shift)


def logits(scores: ArrayLike) -> Floats:
    """log(s / (1 - s)) of scores in [0, 1], clipped by `EDGE`."""
    s = np.clip(np.asarray(scores, dtype=np.float64), EDGE, 1 - EDGE)
    return np.asarray(np.log(s / (1 - s)))


def fit_map(scores: ArrayLike, labels: ArrayLike, method: Method) -> CalibrationMap:
    """The map of highest likelihood of labels (N,) of 1 and 0, given scores (N,) in [0, 1]; fitted by scikit-learn, imported here.

    Labels are smoothed as Platt does, 1 to (P + 1) / (P + 2) and 0 to 1 / (N + 2), so that perfect separation has a finite answer.

    Raises:
        ValueError: with the reason: too few of a class, or scores that do not rise with the finding.
    """
    from sklearn.linear_model import LogisticRegression

    x, y = logits(scores), np.asarray(labels) == 1
    positives, negatives = int(y.sum()), int((~y).sum())
    if min(positives, negatives) < FEWEST:
        raise ValueError(f"{positives} positives and {negatives} negatives; {FEWEST} of each are needed")
    if np.ptp(x) == 0:
        raise ValueError("all scores are equal")
    targets = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # A label of 1 - t and t is a row of each class with these weights
    rows, weights = np.concatenate([x, x])[:, None], np.concatenate([targets, 1 - targets])
    model = LogisticRegression(C=np.inf, fit_intercept=method == "platt", solver="newton-cholesky", tol=1e-10)
    model.fit(rows, np.repeat([1, 0], len(x)), sample_weight=weights)
    slope, shift = float(model.coef_[0, 0]), float(np.ravel(model.intercept_)[0])
    if not slope > 0:
        raise ValueError("scores do not rise with the finding")
    return CalibrationMap(slope, shift)
