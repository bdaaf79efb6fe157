"""Logistic regression by Newton's method: small enough to read, and exact to rounding. Needs numpy only.

It serves calibration, one score -> a probability: soft targets, hardly ever more than one column, and no torch where scores that are
there are judged. Pictures and features, with hundreds of columns and many findings at once, are fitted in engine/model/probe.py: a
Newton step costs the square of the columns, for every finding anew.
"""

from __future__ import annotations

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
