"""Are scores probabilities? Brier score, expected calibration error, the reliability curve, and maps that bring scores nearer to them.

    temperature   sigmoid(logit(score) / T)              one number; leaves 0.5 where it is           (Guo et al., ICML 2017)
    platt         sigmoid(a logit(score) + b)            two numbers; also moves the base rate        (Platt, 1999)

Both keep the order of the studies, so AUROC and AUPRC do not change. A map is fitted on patients of which the test part has none.
Calibration does not survive a change of prevalence: elsewhere the map has to be fitted again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.metrics.bootstrap import patient_weights, percentiles

# Logistic regression by Newton's method: small enough to read, and exact to rounding. Needs numpy only.

Floats = NDArray[np.float64]


def sigmoid(x: ArrayLike) -> Floats:
    """1 / (1 + exp(-x)) in the form that never overflows."""
    return np.asarray(0.5 + 0.5 * np.tanh(np.asarray(x, dtype=np.float64) / 2))


def fit_logistic(x: ArrayLike, targets: ArrayLike, *, penalty: float = 0.0, intercept: bool = True, steps: int = 100) -> Floats:
    """Weights (D,), or (D + 1,) with the intercept last, that minimise sum of log losses + penalty / 2 |weights|^2.

    The intercept is not penalised. Newton's steps are halved until the loss falls; they end when it falls by less than 1e-10 of itself.

    Args:
        x: (N, D).
        targets: (N,) in [0, 1]; shares, as Platt's smoothed labels are, are welcome.
        penalty: L2; scikit-learn's 1 / C.
    """
    rows, y = np.asarray(x, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if intercept:
        rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    ridge = np.full(rows.shape[1], penalty)
    if intercept:
        ridge[-1] = 0.0

    def loss(weights: Floats) -> float:
        logits = rows @ weights
        return float((np.logaddexp(0, logits) - y * logits).sum() + (ridge * weights**2).sum() / 2)

    weights = np.zeros(rows.shape[1])
    now = loss(weights)
    for _ in range(steps):
        p = sigmoid(rows @ weights)
        gradient = rows.T @ (p - y) + ridge * weights
        curvature = (rows * (p * (1 - p))[:, None]).T @ rows
        curvature[np.diag_indices_from(curvature)] += ridge + 1e-9
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (then := loss(weights - size * step)) > now and size > 1e-6:
            size /= 2
        if then > now:
            break
        weights = weights - size * step
        if now - then <= 1e-10 * max(1.0, now):
            break
        now = then
    return weights


Method = Literal["temperature", "platt"]

BINS = 15
"""Of the expected calibration error and the reliability curve: equal widths over [0, 1], as Guo et al.; a score of 1 is in the last."""
FEWEST = 5
"""With fewer positives or negatives than this no map is fitted."""
EDGE = 1e-6
"""Scores are kept this far from 0 and 1 before their logit is taken."""
_CELLS = 4_000_000


def brier(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared difference of score (in [0, 1]) and label (0 or 1); 0 is best, 0.25 is what saying 0.5 always gives."""
    return float(np.mean((np.asarray(scores, dtype=np.float64) - np.asarray(labels, dtype=np.float64)) ** 2))


def _bins(scores: Floats) -> NDArray[np.intp]:
    return np.minimum((scores * BINS).astype(np.intp), BINS - 1)


def ece(scores: ArrayLike, labels: ArrayLike) -> float:
    """Expected calibration error: the mean over studies of |mean score - share of positives| in their bin, of `BINS` equally wide ones."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    return float(np.abs(np.bincount(_bins(s), weights=s - y, minlength=BINS)).sum() / s.size)


@dataclass(frozen=True)
class Reliability:
    """How far scores are from probabilities, each figure with its 95 % interval by a bootstrap over patients.

    The expected calibration error of a resample is biased upwards in small samples, and so is its interval.

    Attributes:
        curve: (mean score, share of positives, studies) of each bin that is not empty, lowest first.
    """

    brier: float
    brier_low: float
    brier_high: float
    ece: float
    ece_low: float
    ece_high: float
    curve: tuple[tuple[float, float, int], ...]


def reliability(scores: ArrayLike, labels: ArrayLike, patients: ArrayLike, *, resamples: int = 1000, seed: int = 0) -> Reliability:
    """The reliability of scores (N,) in [0, 1] against labels (N,) of 1 and 0, N > 0; `patients` (N,) says whose studies they are."""
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
    """log(s / (1 - s)) of scores in [0, 1], kept `EDGE` away from both ends."""
    s = np.clip(np.asarray(scores, dtype=np.float64), EDGE, 1 - EDGE)
    return np.asarray(np.log(s / (1 - s)))


def fit_map(scores: ArrayLike, labels: ArrayLike, method: Method) -> CalibrationMap:
    """The map that makes labels (N,) of 1 and 0 most likely, given scores (N,) in [0, 1].

    Labels are smoothed as Platt does, 1 to (P + 1) / (P + 2) and 0 to 1 / (N + 2), so that perfect separation has a finite answer.

    Raises:
        ValueError: with the reason: too few of a class, or scores that do not rise where the finding is present.
    """
    x, y = logits(scores), np.asarray(labels) == 1
    positives, negatives = int(y.sum()), int((~y).sum())
    if min(positives, negatives) < FEWEST:
        raise ValueError(f"{positives} positives and {negatives} negatives to fit it on: {FEWEST} of each are the least")
    if np.ptp(x) == 0:
        raise ValueError("all scores are equal")
    targets = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    weights = fit_logistic(x[:, None], targets, intercept=method == "platt")
    slope, shift = float(weights[0]), float(weights[1]) if method == "platt" else 0.0
    if not slope > 0:
        raise ValueError("scores do not rise where the finding is present")
    return CalibrationMap(slope, shift)
