"""Points of a learning curve: what a way of scoring is worth on the test part, after learning from a fraction of the patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.metrics.findings import FindingFigures, figures


@dataclass(frozen=True)
class Chosen:
    """What the validation part chose: the best look's step, or the best strength C of the linear probe; its macro AUROC there."""

    fraction: float
    method: str
    what: str
    value: float
    auroc: float | None


@dataclass(frozen=True)
class Measured:
    """Figures on the test part: one row per finding and their mean, by method (full, linear, raw_pixels, zero_shot)."""

    fraction: float
    method: str
    figures: tuple[FindingFigures, ...]


@dataclass(frozen=True)
class HeldOut:
    """The test part, which every way of scoring is judged on.

    Attributes:
        findings: F names, in the order of the rows of figures.
        labels: (N, F) of 1 = present, 0 = absent, NaN = unknown.
        patients: (N,) any label of the patient that each image belongs to.
    """

    findings: tuple[str, ...]
    labels: NDArray[np.floating[Any]]
    patients: NDArray[Any]

    def measured(self, fraction: float, method: str, scored: Sequence[str], scores: NDArray[np.float64], reason: str) -> Measured:
        """The figures of these scores; findings that were not scored keep their row, without figures, with the reason.

        Args:
            fraction: of the training patients that the method learned from; 0 for none.
            scored: S of the findings, in any order.
            scores: (N, S) in [0, 1].
            reason: why the others have no score.
        """
        columns = [self.findings.index(name) for name in scored]
        rows = {row.finding: row for row in figures(list(scored), scores, self.labels[:, columns], self.patients)}
        for column, name in enumerate(self.findings):
            if name not in rows:
                known = self.labels[:, column][~np.isnan(self.labels[:, column])]
                rows[name] = FindingFigures(name, len(known), int(known.sum()), reason=reason)
        return Measured(fraction, method, tuple(rows[name] for name in (*self.findings, "macro")))


def curve_rows(measured: Measured, patients: int = 0, images: int = 0, positive: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """The rows of curve.csv, one per row of figures.

    Args:
        patients, images: trained on.
        positive: finding -> training images that show it; the macro row has their sum, and a finding that is absent here has 0.
    """
    positive = positive or {}
    counts = {**positive, "macro": sum(positive.values())}
    return [
        {
            "fraction": measured.fraction,
            "method": measured.method,
            "train_patients": patients,
            "train_images": images,
            "train_positive": counts.get(row.finding, 0),
            **row.as_row(),
        }
        for row in measured.figures
    ]
