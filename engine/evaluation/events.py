"""Events of an evaluation, of a recipe and of given scores alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.metrics.findings import FindingFigures


@dataclass(frozen=True)
class RowPlan:
    """A row before its first image is read.

    Attributes:
        evaluation: title.
        needs: what the row lacks, "" where nothing is missing; the counts are then there.
        splits: split -> number of images, studies and patients.
        labels: finding -> split -> studies with and without the finding.
        notices: what to know beforehand, findings without a positive for instance.
    """

    evaluation: str
    needs: str = ""
    splits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationPlan:
    """All that is known before the first image is read; `device` is cpu or cuda, "" where no model runs."""

    rows: tuple[RowPlan, ...]
    device: str = ""


@dataclass(frozen=True)
class EvaluationSkipped:
    """A row that cannot be measured, and what it needs."""

    evaluation: str
    needs: str


@dataclass(frozen=True)
class ModelStarted:
    """A model begins to encode this many images of a row."""

    evaluation: str
    model: str
    images: int


@dataclass(frozen=True)
class ImageEncoded:
    """The features of one image are there; `known`: from an earlier run."""

    known: bool


@dataclass(frozen=True)
class ModelFigures:
    """The figures of one model on one row, the macro row last."""

    evaluation: str
    model: str
    figures: tuple[FindingFigures, ...]


@dataclass(frozen=True)
class TablesWritten:
    """The tables are in `out`, which is still locked, so that a page can be written to it. `curves`: reliability curves by finding."""

    out: Path
    run: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]]
    curves: list[dict[str, Any]]


@dataclass(frozen=True)
class EvaluationFinished:
    """The end: `run` is the content of run.json, `tables` that of the other files."""

    run: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class EvaluationNotice:
    """A message for the user, without identifiers."""

    message: str


Event = (
    EvaluationPlan | EvaluationSkipped | EvaluationNotice | ModelStarted | ImageEncoded | ModelFigures | TablesWritten | EvaluationFinished
)
