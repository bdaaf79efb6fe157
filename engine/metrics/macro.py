"""One number for choosing between models: the mean AUROC over findings."""

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
