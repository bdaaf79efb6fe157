"""What was judged, as rows of the evaluation's tables (see engine/tables/evaluation.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from engine.metrics.calibration import Reliability
from engine.metrics.findings import FindingFigures
from engine.metrics.judgement import GroupFigures, Studies
from engine.metrics.paired import Paired
from engine.metrics.roc import Floats, auroc

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


def comparison_rows(evaluation: str, first: str, second: str, found: Mapping[str, Paired | str]) -> Rows:
    """comparisons.*"""
    rows = []
    for finding, each in found.items():
        row: dict[str, Any] = {"evaluation": evaluation, "first": first, "second": second, "finding": finding}
        if isinstance(each, Paired):
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
