"""Logistic regression by Newton's method: small enough to read, and exact to rounding. Needs numpy only.

It serves two masters: calibration (one score -> a probability) and the raw-pixel baseline that stands beside every AUROC.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


@dataclass(frozen=True)
class PixelBaseline:
    """Logistic regression on pictures: what labels and brightness alone can do, without a network.

    Attributes:
        mean, deviation: (D,) of the training pictures.
        weights: (D + 1,), the intercept last.
    """

    mean: Floats
    deviation: Floats
    weights: Floats

    @staticmethod
    def fitted(pictures: ArrayLike, labels: ArrayLike, *, penalty: float = 1000.0) -> PixelBaseline:
        """Fitted to pictures (N, D) of grey values and labels (N,) of 1 and 0; every pixel is standardised first.

        The penalty of 1000 (scikit-learn's C = 0.001) was chosen once, for 32 x 32 pixels, and is no recipe's to tune.
        """
        x = np.asarray(pictures, dtype=np.float64)
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        return PixelBaseline(mean, deviation, fit_logistic((x - mean) / deviation, labels, penalty=penalty))

    def scores(self, pictures: ArrayLike) -> Floats:
        """(N,) in [0, 1] of pictures (N, D)."""
        x = (np.asarray(pictures, dtype=np.float64) - self.mean) / self.deviation
        return sigmoid(x @ self.weights[:-1] + self.weights[-1])
