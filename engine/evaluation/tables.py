"""The tables of an evaluation in memory, filled model by model; output.py has their columns and writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl

from engine.evaluation.events import ModelFigures
from engine.evaluation.output import PREDICTIONS, SCHEMAS, predictions_of
from engine.evaluation.published import measured_row
from engine.evaluation.studies import GroupFigures, ScoredStudies, group_figures, reliabilities, study_figures
from engine.metrics.calibration import Reliability
from engine.metrics.findings import FindingFigures
from engine.metrics.roc import Floats, auroc
from engine.metrics.significance import PairedComparison
from engine.metrics.thresholds import Threshold

Rows = list[dict[str, Any]]


def metric_rows(evaluation: str, model: str, figures: Sequence[FindingFigures]) -> Rows:
    """Rows of metrics.csv."""
    return [{"evaluation": evaluation, "model": model, **each.as_row()} for each in figures]


def group_rows(evaluation: str, model: str, groups: Sequence[GroupFigures]) -> Rows:
    """Rows of subgroups.csv."""
    model_cells = {"evaluation": evaluation, "model": model}
    return [{**model_cells, "column": each.column, "group": each.group, **each.figures.as_row()} for each in groups]


def phrase_row(evaluation: str, model: str, test: ScoredStudies, finding: str, side: str, text: str, scores: Floats) -> dict[str, Any]:
    """A row of prompt_sensitivity.csv: `scores` (N,) of the test studies by one phrase; AUROC is None with one class."""
    labels = test.labels[:, test.findings.index(finding)]
    known = ~np.isnan(labels)
    positives = int((labels[known] == 1).sum())
    area = auroc(scores[known], labels[known]) if 0 < positives < known.sum() else None
    return {
        "evaluation": evaluation, "model": model, "finding": finding, "side": side, "phrase": text,
        "n": int(known.sum()), "n_positive": positives, "auroc": area,
    }  # fmt: skip


def comparison_rows(evaluation: str, first: str, second: str, found: Mapping[str, PairedComparison | str]) -> Rows:
    """Rows of comparisons.csv."""
    rows = []
    for finding, each in found.items():
        row: dict[str, Any] = {"evaluation": evaluation, "first": first, "second": second, "finding": finding}
        if isinstance(each, PairedComparison):
            areas = {"first_auroc": each.first, "second_auroc": each.second, "difference": each.difference}
            rows.append(row | areas | {"low": each.low, "high": each.high, "p": each.p, "method": each.method})
        else:
            rows.append(row | {"reason": each})
    return rows


def reliability_rows(evaluation: str, model: str, scores: str, found: Mapping[str, Reliability]) -> tuple[Rows, Rows]:
    """Rows of reliability.csv, and the curves for the page; `scores` is raw or calibrated."""
    model_cells = {"evaluation": evaluation, "model": model, "scores": scores}
    rows, curves = [], []
    for finding, each in found.items():
        cells = asdict(each)
        curves.append({**model_cells, "finding": finding, "curve": cells.pop("curve")})
        rows.append({**model_cells, "finding": finding, **cells})
    return rows, curves


@dataclass
class EvaluationTables:
    """Rows by table, reliability curves for the page, and a frame of predictions per model."""

    rows: dict[str, Rows] = field(default_factory=lambda: {name: [] for name in SCHEMAS})
    curves: Rows = field(default_factory=list)
    _predictions: list[pl.DataFrame] = field(default_factory=list)

    def add(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows to one table."""
        self.rows[table].extend(rows)

    def add_model(
        self,
        evaluation: str,
        model: str,
        test: ScoredStudies,
        thresholds: Sequence[Threshold],
        *,
        names: Sequence[str],
        note: str,
        fewest: int,
        resamples: int,
        seed: int,
    ) -> ModelFigures:
        """Add the figures of one model's scores (overall, by subgroup, for comparison with published ones) and its predictions.

        Args:
            thresholds: one per finding.
            names: (N,) pseudonyms of the studies.
            note: the studies that the figures are based on.
            fewest: positives and negatives that a subgroup needs.
            resamples: of the bootstrap over patients.
        """
        figures = study_figures(test, thresholds, resamples=resamples, seed=seed)
        self.add("metrics", metric_rows(evaluation, model, figures))
        groups = group_figures(test, thresholds, fewest=fewest, resamples=resamples, seed=seed)
        self.add("subgroups", group_rows(evaluation, model, groups))
        self.add("table", [measured_row(evaluation, model, figures[-1], note).as_row()])
        self._predictions.append(predictions_of(evaluation, model, names, test.findings, test.scores, test.labels))
        return ModelFigures(evaluation, model, tuple(figures))

    def add_reliability(
        self, evaluation: str, model: str, raw: ScoredStudies, calibrated: ScoredStudies, *, resamples: int, seed: int
    ) -> None:
        """Add Brier score and calibration error of the same studies before and after calibration."""
        for kind, studies in (("raw", raw), ("calibrated", calibrated)):
            rows, curves = reliability_rows(evaluation, model, kind, reliabilities(studies, resamples=resamples, seed=seed))
            self.add("reliability", rows)
            self.curves.extend(curves)

    def predictions(self) -> pl.DataFrame:
        """The predictions of all models, in the order in which they were added."""
        return pl.concat([pl.DataFrame(schema=PREDICTIONS), *self._predictions])
