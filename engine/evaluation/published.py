"""The table of measured and published figures (table.csv): at the papers' threshold and at one chosen without the test labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.metrics.findings import FindingFigures
from engine.recipe.evaluation import PublishedTable

NOT_PUBLISHED = "not published"
_ABSENT = (NOT_PUBLISHED, NOT_PUBLISHED, NOT_PUBLISHED, NOT_PUBLISHED)


@dataclass(frozen=True)
class ComparisonRow:
    """A row of table.csv: figures as text in [0, 1]; a figure that is missing says why.

    Attributes:
        evaluation: title of the studies and findings.
        auc, f1, accuracy: as in the papers: F1 and accuracy at the threshold of best F1 on the test labels.
        auroc: with its 95 % interval.
        f1_at_threshold, accuracy_at_threshold, threshold: at a threshold that does not depend on the test labels, and where it comes from.
        note: the studies measured, or where the figure was published.
    """

    evaluation: str
    model: str
    auc: str
    f1: str
    accuracy: str
    auroc: str
    f1_at_threshold: str
    accuracy_at_threshold: str
    threshold: str
    note: str

    def as_row(self) -> dict[str, Any]:
        """Column -> text."""
        return asdict(self)


def measured_row(evaluation: str, model: str, macro: FindingFigures, note: str) -> ComparisonRow:
    """The figures of a macro row."""
    reason = macro.reason or "no figure"
    interval = f" ({_figure(macro.auroc_low, reason)}-{_figure(macro.auroc_high, reason)})" if macro.auroc_low is not None else ""
    return ComparisonRow(
        evaluation,
        model,
        auc=_figure(macro.auroc, reason),
        f1=_figure(macro.test_max_f1, reason),
        accuracy=_figure(macro.test_max_f1_accuracy, reason),
        auroc=_figure(macro.auroc, reason) + interval,
        f1_at_threshold=_figure(macro.f1, reason),
        accuracy_at_threshold=_figure(macro.accuracy, reason),
        threshold=macro.threshold_source or "none",
        note=note,
    )


def missing_row(evaluation: str, model: str, needs: str) -> ComparisonRow:
    """A row that cannot be measured: every cell says what it needs."""
    return ComparisonRow(evaluation, model, needs, needs, needs, needs, needs, needs, needs, "-")


def published_rows(evaluation: str, table: PublishedTable) -> list[ComparisonRow]:
    """The rows of one table of published figures."""
    rows = []
    for each in table.figures:
        auc, f1, accuracy = (_published(value) for value in (each.auc, each.f1, each.accuracy))
        name = f"{each.model}, {each.row}" if each.row else each.model
        rows.append(ComparisonRow(evaluation, name, auc, f1, accuracy, *_ABSENT, each.source or table.source))
    return rows


def one_auroc(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of table.csv with one column of AUROC: with its interval where it was measured, else as published."""
    return [{**row, "auroc": row["auc"] if row["auroc"] == NOT_PUBLISHED else row["auroc"]} for row in cells]


def _figure(value: float | None, reason: str) -> str:
    return reason if value is None else f"{value:.3f}"


def _published(value: float | None) -> str:
    """A published percentage in [0, 1], with all its digits."""
    return NOT_PUBLISHED if value is None else f"{value / 100:.4f}"
