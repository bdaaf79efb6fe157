"""What an evaluation tells while it runs, whether it scores the studies itself or judges scores that are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.metrics.findings import FindingFigures


@dataclass(frozen=True)
class Planned:
    """Everything that will be measured, and what each row lacks ("" = nothing)."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Needs:
    """A row cannot be measured here."""

    evaluation: str
    needs: str


@dataclass(frozen=True)
class Reading:
    """A model is about to look at so many images of a row's parts."""

    evaluation: str
    model: str
    images: int


@dataclass(frozen=True)
class Looked:
    """One image has its features; `known`: from an earlier run."""

    known: bool


@dataclass(frozen=True)
class Measured:
    """The figures of one model on one row, the macro row last."""

    evaluation: str
    model: str
    figures: tuple[FindingFigures, ...]


@dataclass(frozen=True)
class Published:
    """The tables stand in `out`, which is still locked: the moment to write a page beside them. `curves`: finding -> reliability."""

    out: Path
    run: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]]
    curves: list[dict[str, Any]]


@dataclass(frozen=True)
class Finished:
    """The run is complete: `run` is what run.json holds, `tables` what the files hold."""

    run: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Notice:
    """Something to be said to a person; holds no identifier."""

    message: str


Event = Planned | Needs | Notice | Reading | Looked | Measured | Published | Finished
