"""What judging has come to, as the tables of an evaluation that grow model by model (engine/tables/evaluation.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl

from engine.evaluation.events import Measured
from engine.evaluation.output import PREDICTIONS, SCHEMAS, predictions_of
from engine.evaluation.published import measured_cells
from engine.evaluation.studies import GroupFigures, Studies, group_figures, judged, reliabilities
from engine.metrics.calibration import Reliability
from engine.metrics.findings import FindingFigures
from engine.metrics.roc import Floats, auroc
from engine.metrics.significance import PairedComparison
from engine.metrics.thresholds import Threshold

# What was judged, as rows of the evaluation's tables (see engine/tables/evaluation.py).

Rows = list[dict[str, Any]]


def metric_rows(evaluation: str, model: str, figures: Sequence[FindingFigures]) -> Rows:
    """metrics.*"""
    return [{"evaluation": evaluation, "model": model, **each.as_row()} for each in figures]


def group_rows(evaluation: str, model: str, groups: Sequence[GroupFigures]) -> Rows:
    """subgroups.*"""
    who = {"evaluation": evaluation, "model": model}
    return [{**who, "column": each.column, "group": each.group, **each.figures.as_row()} for each in groups]


def phrase_row(evaluation: str, model: str, test: Studies, finding: str, side: str, text: str, scores: Floats) -> dict[str, Any]:
    """A row of prompt_sensitivity.*: `scores` (N,) of the test's studies by one phrase; AUROC None with one class."""
    labels = test.labels[:, test.findings.index(finding)]
    known = ~np.isnan(labels)
    positives = int((labels[known] == 1).sum())
    area = auroc(scores[known], labels[known]) if 0 < positives < known.sum() else None
    return {
        "evaluation": evaluation, "model": model, "finding": finding, "side": side, "phrase": text,
        "n": int(known.sum()), "n_positive": positives, "auroc": area,
    }  # fmt: skip


def comparison_rows(evaluation: str, first: str, second: str, found: Mapping[str, PairedComparison | str]) -> Rows:
    """comparisons.*"""
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
    """reliability.*, and the curves for the page; `scores` is raw or calibrated."""
    who = {"evaluation": evaluation, "model": model, "scores": scores}
    rows, curves = [], []
    for finding, each in found.items():
        cells = asdict(each)
        curves.append({**who, "finding": finding, "curve": cells.pop("curve")})
        rows.append({**who, "finding": finding, **cells})
    return rows, curves


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
