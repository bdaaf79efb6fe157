"""Numbers for choosing between models, one for all findings: the mean AUROC, and the mean loss that breaks a tie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.metrics.roc import auroc


def macro_auroc(scores: NDArray[np.floating[Any]], labels: NDArray[np.floating[Any]]) -> float | None:
    """Mean AUROC over the findings with both classes; None where there is none.

    Args:
        scores: (N, F), higher = more likely present, finite.
        labels: (N, F) of 1 = present, 0 = absent, NaN = unknown and left out.
    """
    areas = []
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        if len(np.unique(labels[known, column])) == 2:
            areas.append(auroc(scores[known, column], labels[known, column]))
    return float(np.mean(areas)) if areas else None


def mean_log_loss(scores: NDArray[np.floating[Any]], labels: NDArray[np.floating[Any]]) -> float:
    """Mean over all known labels of -log(score of what is true), no single one above -log(1e-12).

    Args:
        scores: (N, F) in [0, 1], the probability of present.
        labels: (N, F) of 1 = present, 0 = absent, NaN = unknown and left out.
    """
    known = ~np.isnan(labels)
    likely = np.where(labels == 1, scores, 1 - scores)[known]
    return float(-np.log(np.clip(likely, 1e-12, 1)).mean())
