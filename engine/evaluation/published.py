"""The table of measured and published figures (table.csv): at the papers' threshold and at one chosen without the test labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from engine.metrics.findings import FindingFigures
from engine.recipe.evaluation import PublishedTable

NOT_PUBLISHED = "not published"
_ABSENT = (NOT_PUBLISHED, NOT_PUBLISHED, NOT_PUBLISHED, NOT_PUBLISHED)


@dataclass(frozen=True)
class ComparisonRow:
    """A row of table.csv: figures as text in percent; a figure that is missing says why.

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
    interval = f" ({_percent(macro.auroc_low, reason)}-{_percent(macro.auroc_high, reason)})" if macro.auroc_low is not None else ""
    return ComparisonRow(
        evaluation,
        model,
        auc=_percent(macro.auroc, reason),
        f1=_percent(macro.test_max_f1, reason),
        accuracy=_percent(macro.test_max_f1_accuracy, reason),
        auroc=_percent(macro.auroc, reason) + interval,
        f1_at_threshold=_percent(macro.f1, reason),
        accuracy_at_threshold=_percent(macro.accuracy, reason),
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


def _percent(value: float | None, reason: str) -> str:
    return reason if value is None else f"{100 * value:.2f}"


def _published(value: float | None) -> str:
    return NOT_PUBLISHED if value is None else f"{value:.2f}"
