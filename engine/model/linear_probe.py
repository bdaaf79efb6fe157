"""Logistic regression to its optimum, on features that stand still: the linear probe, and the raw-pixel baseline.

For each finding the minimum over (w, b) of

    sum_i m_i log(1 + exp(-y_i (w.x_i + b)))  +  |w|^2 / (2 C)          x standardised by the training rows, y = +-1

over the rows whose label is known; with `balanced`, m_i = n / (2 n_of_its_class), else 1. This is scikit-learn's
`LogisticRegression(C=C, class_weight=...)`, whose results it meets in the tests. It is solved by torch's L-BFGS in float64, all findings at
once, because torch is here anyway: on a GPU machine scikit-learn need not be. Calibration, which has a column or two and must not wait for
torch, keeps the Newton steps of engine/metrics/logistic.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import NotFinite
from engine.model.preprocessing import resized

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """`x @ weight.T + bias` are the logits of rows x as they came: the standardisation is folded in. weight (F, D), bias (F,)."""

    strength: float
    weight: Floats
    bias: Floats

    def logits(self, x: Floats) -> Floats:
        """(N, F) of rows (N, D)."""
        return x @ self.weight.T + self.bias


def fits(x: Floats, labels: NDArray[np.float32], strengths: Sequence[float], *, balanced: bool) -> list[Fit]:
    """One fit per strength C, in the order given.

    Args:
        x: (N, D).
        labels: (N, F) of 1, 0 and NaN; each column with both classes.

    Raises:
        NotFinite: x holds NaN or infinity, or the fit came to no end.
    """
    import torch

    if not np.isfinite(x).all():
        raise NotFinite("the features to fit hold NaN or infinity", hint="another model, or --device cpu")
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread[spread == 0] = 1.0
    rows = torch.from_numpy((x - mean) / spread)
    known = ~np.isnan(labels)
    signs = torch.from_numpy(np.where(labels == 1, 1.0, -1.0))
    weights = torch.from_numpy(_row_weights(labels, known, balanced))
    count = float(known.sum())
    w = torch.zeros(labels.shape[1], x.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(labels.shape[1], dtype=torch.float64, requires_grad=True)
    found: dict[float, Fit] = {}
    for strength in sorted(strengths):  # from stiff to loose: each optimum is a good start for the next
        solver = torch.optim.LBFGS(
            [w, b], max_iter=1000, history_size=20, tolerance_grad=1e-8, tolerance_change=1e-13, line_search_fn="strong_wolfe"
        )

        def objective(strength: float = strength, solver: torch.optim.LBFGS = solver) -> torch.Tensor:
            solver.zero_grad()
            losses = torch.nn.functional.softplus(-signs * (rows @ w.T + b))
            value = ((weights * losses).sum() + w.square().sum() / (2 * strength)) / count
            value.backward()  # type: ignore[no-untyped-call]
            return value

        solver.step(objective)  # type: ignore[no-untyped-call]
        scaled = w.detach().numpy() / spread
        found[strength] = Fit(strength, scaled, b.detach().numpy() - scaled @ mean)
        if not (np.isfinite(scaled).all() and np.isfinite(found[strength].bias).all()):
            raise NotFinite("logistic regression did not converge", hint="smaller linear.strengths")
    return [found[strength] for strength in strengths]


def best_fit(found: Sequence[Fit], worth: Callable[[Fit], float | None]) -> tuple[Fit, float | None]:
    """The fit that is worth most, the first of equals, and its worth; None, which is less than any number, where it has none."""
    values = [worth(fit) for fit in found]
    best = max(range(len(found)), key=lambda number: (-1.0 if (value := values[number]) is None else value, -number))
    return found[best], values[best]


def _row_weights(labels: NDArray[np.float32], known: NDArray[np.bool_], balanced: bool) -> Floats:
    """(N, F): 0 where the label is unknown."""
    weights = known.astype(np.float64)
    if balanced:
        for column in range(labels.shape[1]):
            n = known[:, column].sum()
            for value in (0, 1):
                of_class = labels[:, column] == value
                weights[of_class, column] = n / (2 * of_class.sum())
    return weights


def raw_pixels(pictures: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], side: int) -> Floats:
    """(N, side * side) grey values in [0, 1] of pictures (H, W) squashed to small squares."""
    rows = np.stack([resized(picture, side, "squash") for picture in pictures]) if len(pictures) else np.zeros((0, side, side), np.uint8)
    return rows.reshape(len(rows), side * side) / 255.0


def separate_logits(x: NDArray[np.float32], labels: NDArray[np.float32], rows: NDArray[np.float32], strength: float) -> Floats:
    """(M, F) logits of `rows` (M, D) by one logistic regression for each finding, on the rows of `x` (N, D) whose label is known.

    Rows of NaN, pictures that could not be read, teach nothing and have logits of NaN.

    Args:
        labels: (N, F): 1, 0, NaN = unknown. A finding with one class only has logits of 0: nothing was learnt.
        strength: C, as in scikit-learn.
    """
    seen, read = ~np.isnan(x).any(axis=1), ~np.isnan(rows).any(axis=1)
    logits = np.where(read[:, None], 0.0, np.full((len(rows), labels.shape[1]), np.nan))
    for k in range(labels.shape[1]):
        known = seen & ~np.isnan(labels[:, k])
        if 0 < labels[known, k].sum() < known.sum():
            (fit,) = fits(x[known].astype(np.float64), labels[known, k : k + 1], [strength], balanced=False)
            logits[read, k] = fit.logits(rows[read].astype(np.float64))[:, 0]
    return logits
