"""Paired test of two models: do their AUROCs on the same studies differ?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from engine.metrics.intervals import Area, IntervalMethod, area_of, difference_interval


@dataclass(frozen=True)
class PairedComparison:
    """AUROCs of two models on the same studies.

    Attributes:
        first, second: AUROC in [0, 1].
        difference: first minus second; `low` and `high` are the ends of its 95 % interval.
        p: two-sided p-value of no difference, the one that fits the interval: below 0.05 where and only where 0 is outside.
        method: of the interval.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    method: IntervalMethod


def paired_test(first: ArrayLike, second: ArrayLike, labels: ArrayLike, patients: ArrayLike) -> PairedComparison:
    """Compare two models by their scores of the same N studies, clustered by patient.

    Args:
        first, second: (N,) finite scores.
        labels: (N,) of 1 and 0.
        patients: (N,) any label of the patient that each study belongs to.

    Raises:
        ValueError: one class only, or scores that are not finite.
    """
    names, patient = np.unique(np.asarray(patients), return_inverse=True)
    one, other = (area_of(scores, labels, patient, names.size) for scores in (first, second))
    found = difference_interval(one, other)
    return PairedComparison(one.value, other.value, found.value, found.low, found.high, _p_value(one, other), found.method)


def _p_value(first: Area, second: Area) -> float:
    """The p-value whose interval just reaches 0, found by bisection over normal quantiles up to 8 (p = 1e-15)."""
    inside, outside = 8.0, 0.0  # an interval of quantile `inside` holds 0 (or is the widest tried), one of `outside` does not
    for _ in range(40):
        z = (inside + outside) / 2
        found = difference_interval(first, second, z=z)
        if found.low <= 0 <= found.high:
            inside = z
        else:
            outside = z
    return math.erfc(outside / math.sqrt(2))
