"""Are two AUROCs of the same studies different? DeLong's paired test, and a bootstrap over patients where some have several studies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.metrics.bootstrap import Ranked, patient_weights, percentiles
from engine.metrics.roc import Z_95, components

_CELLS = 4_000_000
"""Elements of the largest temporary of the bootstrap."""


@dataclass(frozen=True)
class Paired:
    """Two scores of the same studies.

    Attributes:
        difference: AUROC of the first minus that of the second, with its 95 % interval.
        p: two-sided, of no difference.
        method: delong (every study a patient of its own) or patient_bootstrap.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    method: Literal["delong", "patient_bootstrap"]


def delong_covariance(first: ArrayLike, second: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """The 2 x 2 covariance matrix of two AUROCs of the same studies (DeLong, DeLong & Clarke-Pearson 1988, their S10/m + S01/n).

    Raises:
        ValueError: one class only, fewer than two of a class, scores that are not finite.
    """
    parts = [components(scores, labels) for scores in (first, second)]
    v10, v01 = (np.stack(each) for each in zip(*parts, strict=True))
    if min(v10.shape[1], v01.shape[1]) < 2:
        raise ValueError("a single study of a class: its share of the variance is unknown")
    covariance: NDArray[np.float64] = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    return covariance


def delong_test(first: ArrayLike, second: ArrayLike, labels: ArrayLike) -> Paired:
    """DeLong's test for two correlated ROC curves; p is 1 where the scores order all pairs alike.

    Args:
        first, second: (N,) scores of the same studies by two models.
        labels: (N,) of 1 and 0.
    """
    one, other = (float(components(scores, labels)[0].mean()) for scores in (first, second))
    spread = delong_covariance(first, second, labels)
    variance = float(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1])
    difference = one - other
    error = math.sqrt(max(variance, 0.0))
    certain = 0.0 if abs(difference) >= 1e-12 else 1.0
    p = math.erfc(abs(difference) / error / math.sqrt(2)) if error >= 1e-12 else certain
    return Paired(one, other, difference, difference - Z_95 * error, difference + Z_95 * error, p, "delong")


def paired_test(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, patients: ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> Paired:
    """DeLong's test, or, where a patient has several studies, the same resamples of patients for both models.

    The bootstrap's p is twice the share of resampled differences on the smaller side of 0, at least 2 / (resamples + 1).

    Raises:
        ValueError: see `delong_covariance`.
    """
    by_delong = delong_test(first, second, labels)
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    if np.unique(patient).size == patient.size:
        return by_delong
    ranked = [Ranked(scores, labels) for scores in (first, second)]
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS // patient.size)
    draws = []
    for start in range(0, resamples, chunk):
        weights = patient_weights(patient, min(chunk, resamples - start), rng)
        draws.append(ranked[0].curves(weights).auroc - ranked[1].curves(weights).auroc)
    differences = np.concatenate(draws)
    differences = differences[np.isfinite(differences)]
    low, high = percentiles(differences)
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    p = min(1.0, 2 * (int(beyond) + 1) / (differences.size + 1))
    return Paired(by_delong.first, by_delong.second, by_delong.difference, low, high, p, "patient_bootstrap")
