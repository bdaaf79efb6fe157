"""What judging has come to, as the tables of an evaluation that grow model by model (engine/tables/evaluation.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from engine.metrics.beside import measured_cells
from engine.metrics.events import Measured
from engine.metrics.judgement import Studies, group_figures, judged, reliabilities
from engine.metrics.rows import Rows, group_rows, metric_rows, reliability_rows
from engine.metrics.thresholds import Threshold
from engine.tables.evaluation import PREDICTIONS, SCHEMAS, predictions_of


@dataclass
class Verdicts:
    """Rows by table, the reliability curves for the page, and one frame of predictions for each model."""

    tables: dict[str, Rows] = field(default_factory=lambda: {name: [] for name in SCHEMAS})
    curves: Rows = field(default_factory=list)
    _predictions: list[pl.DataFrame] = field(default_factory=list)

    def add(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Rows of one table."""
        self.tables[table].extend(rows)

    def judge(
        self,
        evaluation: str,
        model: str,
        test: Studies,
        thresholds: Sequence[Threshold],
        *,
        names: Sequence[str],
        note: str,
        fewest: int,
        resamples: int,
        seed: int,
    ) -> Measured:
        """The figures of one model's scores: in all, by group, beside published ones; and its predictions.

        Args:
            thresholds: one per finding.
            names: of the studies, as they may be published.
            note: what the figures rest on.
            fewest: positives and negatives that a group must have.
            resamples: of the bootstrap over patients.
        """
        figures = judged(test, thresholds, resamples=resamples, seed=seed)
        self.add("metrics", metric_rows(evaluation, model, figures))
        groups = group_figures(test, thresholds, fewest=fewest, resamples=resamples, seed=seed)
        self.add("subgroups", group_rows(evaluation, model, groups))
        self.add("table", [measured_cells(evaluation, model, figures[-1], note).as_row()])
        self._predictions.append(predictions_of(evaluation, model, names, test.findings, test.scores, test.labels))
        return Measured(evaluation, model, tuple(figures))

    def compare_reliability(self, evaluation: str, model: str, raw: Studies, calibrated: Studies, *, resamples: int, seed: int) -> None:
        """How far the scores of the same studies are from probabilities, before and after calibration."""
        for kind, studies in (("raw", raw), ("calibrated", calibrated)):
            rows, curves = reliability_rows(evaluation, model, kind, reliabilities(studies, resamples=resamples, seed=seed))
            self.add("reliability", rows)
            self.curves.extend(curves)

    def predictions(self) -> pl.DataFrame:
        """All predictions, in the order in which they were judged."""
        return pl.concat([pl.DataFrame(schema=PREDICTIONS), *self._predictions])
