"""Linear probe: logistic regression on frozen features or raw pixels, one per finding, fitted by scikit-learn.

scikit-learn is imported when a probe is fitted, so that it costs no start-up time (1.5 s on a cold disk).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import NotFinite
from engine.model.preprocessing import resized

Floats = NDArray[np.float64]
TOLERANCE, MOST_STEPS = 1e-8, 10_000
"""Of L-BFGS. Logits then differ from the exact optimum by 1e-5 or less, and by 1e-2 where the training data are separable and C is 100."""


@dataclass(frozen=True)
class Fit:
    """`x @ weight.T + bias` are the logits of rows x, which need no standardisation. weight (F, D), bias (F,). `strength`: C."""

    strength: float
    weight: Floats
    bias: Floats

    def logits(self, x: Floats) -> Floats:
        """(N, F) of rows (N, D)."""
        return x @ self.weight.T + self.bias


def fits(x: Floats, labels: NDArray[np.float32], strengths: Sequence[float], *, balanced: bool) -> list[Fit]:
    """One fit per strength C, in the given order; features are standardised, and each finding is fitted on its known labels.

    Args:
        x: (N, D).
        labels: (N, F) of 1, 0 and NaN = unknown; each column with both classes.
        balanced: both classes of a finding have the same total weight.

    Raises:
        NotFinite: x holds NaN or infinity, or the fit did not converge.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if not np.isfinite(x).all():
        raise NotFinite("the features to fit hold NaN or infinity", hint="another model, or --device cpu")
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation[deviation == 0] = 1.0
    rows, ascending = (x - mean) / deviation, sorted(strengths)  # the fit of a smaller C is a good start for the next
    weight, bias = np.zeros((len(strengths), labels.shape[1], x.shape[1])), np.zeros((len(strengths), labels.shape[1]))
    for k in range(labels.shape[1]):
        known = ~np.isnan(labels[:, k])
        solver = LogisticRegression(class_weight="balanced" if balanced else None, tol=TOLERANCE, max_iter=MOST_STEPS, warm_start=True)
        for number, strength in enumerate(ascending):
            with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # at the limit of float64
                solver.set_params(C=strength).fit(rows[known], labels[known, k])
            weight[number, k] = solver.coef_[0] / deviation
            bias[number, k] = solver.intercept_[0] - weight[number, k] @ mean
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise NotFinite("logistic regression did not converge", hint="smaller linear.strengths")
    found = {strength: Fit(strength, weight[number], bias[number]) for number, strength in enumerate(ascending)}
    return [found[strength] for strength in strengths]


def best_fit(found: Sequence[Fit], worth: Callable[[Fit], float | None]) -> tuple[Fit, float | None]:
    """The fit of the highest worth, the first of equal ones, and its worth. None counts less than any number."""
    values = [worth(fit) for fit in found]
    best = max(range(len(found)), key=lambda number: (-1.0 if (value := values[number]) is None else value, -number))
    return found[best], values[best]


def raw_pixels(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], side: int) -> Floats:
    """(N, side * side) grey values in [0, 1] of images (H, W), squashed to small squares."""
    rows = np.stack([resized(image, side, "squash") for image in images]) if len(images) else np.zeros((0, side, side), np.uint8)
    return rows.reshape(len(rows), side * side) / 255.0


def separate_logits(x: NDArray[np.float32], labels: NDArray[np.float32], rows: NDArray[np.float32], strength: float) -> Floats:
    """(M, F) logits of `rows` (M, D) by one logistic regression per finding, each on the rows of `x` (N, D) with a known label.

    Rows of NaN (images that could not be read) are not used for training and have logits of NaN.

    Args:
        labels: (N, F): 1, 0, NaN = unknown. A finding with one class only has logits of 0.
        strength: C, as in scikit-learn.
    """
    used, read = ~np.isnan(x).any(axis=1), ~np.isnan(rows).any(axis=1)
    logits = np.where(read[:, None], 0.0, np.full((len(rows), labels.shape[1]), np.nan))
    for k in range(labels.shape[1]):
        known = used & ~np.isnan(labels[:, k])
        if 0 < labels[known, k].sum() < known.sum():
            (fit,) = fits(x[known].astype(np.float64), labels[known, k : k + 1], [strength], balanced=False)
            logits[read, k] = fit.logits(rows[read].astype(np.float64))[:, 0]
    return logits
