"""What a scoring run found out, kept as columns while it runs, and the three tables that come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.tables.columns import IMAGE_COLUMNS, PRIVATE_COLUMNS, image_schema, study_schema

Aggregate = Literal["mean", "max"]
FLAG_SEPARATOR = ";"
_CHUNK = 4096
"""Rows that are kept as Python objects before they become columns: a hundredth of the memory."""
_EXTRA: dict[str, type[pl.DataType]] = {"series_instance_uid": pl.String, "file": pl.String}


@dataclass(frozen=True)
class ResultRow:
    """One input file. `public` has IMAGE_COLUMNS, `private` PRIVATE_COLUMNS, series_instance_uid and file; `scores` (F,) or None."""

    public: dict[str, Any]
    private: dict[str, Any]
    scores: NDArray[np.float32] | None


def joined_flags(flags: Sequence[str]) -> str:
    """Flags as one cell."""
    return FLAG_SEPARATOR.join(flags)


def split_flags(cell: str | None) -> tuple[str, ...]:
    """The flags in a cell."""
    return tuple(cell.split(FLAG_SEPARATOR)) if cell else ()


class Results:
    """The rows of a run in the order of its inputs.

    Args:
        findings: the recipe's findings, in its order.
    """

    def __init__(self, findings: Sequence[str]) -> None:
        self.findings = tuple(findings)
        self._rows: list[ResultRow] = []
        self._frames: list[pl.DataFrame] = []

    def add(self, row: ResultRow) -> None:
        """One more file."""
        self._rows.append(row)
        if len(self._rows) >= _CHUNK:
            self._pack()

    def _pack(self) -> None:
        if not self._rows:
            return
        texts = pl.DataFrame([row.public | row.private for row in self._rows], schema=IMAGE_COLUMNS | PRIVATE_COLUMNS | _EXTRA)
        blank = np.full(len(self.findings), np.nan, dtype=np.float32)
        scores = np.stack([blank if row.scores is None else row.scores for row in self._rows])
        columns = [pl.Series(name, np.ascontiguousarray(scores[:, k])).fill_nan(None) for k, name in enumerate(self.findings)]
        self._frames.append(texts.with_columns(columns))
        self._rows = []

    def frame(self) -> pl.DataFrame:
        """All rows, public and private columns together."""
        self._pack()
        schema = IMAGE_COLUMNS | PRIVATE_COLUMNS | _EXTRA | dict.fromkeys(self.findings, pl.Float32)
        self._frames = [pl.concat([pl.DataFrame(schema=schema), *self._frames])]
        return self._frames[0]

    def reflag(self, flags_of: Callable[[dict[str, Any]], str]) -> None:
        """New flags for scored rows, from all that is known of each: some flags are only known when every file has been seen."""
        frame = self.frame()
        flags = [flags_of(row) if row["outcome"] == "score" else row["flags"] for row in frame.iter_rows(named=True)]
        self._frames = [frame.with_columns(pl.Series("flags", flags, dtype=pl.String))]

    def images(self) -> pl.DataFrame:
        """images.*: one row per input file."""
        return self.frame().select(list(image_schema(self.findings)))

    def private(self) -> pl.DataFrame:
        """private/files.parquet: whose files these are."""
        return self.frame().select(list(PRIVATE_COLUMNS))

    def studies(self, aggregate: Aggregate) -> pl.DataFrame:
        """scores.*: one row per study with a scored image, in the order of the inputs.

        A study's score is the mean, or the maximum, over its images of outcome `score`; duplicates have scores but are not counted again.
        Flags are those of any of its images.
        """
        scored = self.frame().filter(pl.col("outcome") == "score")
        over = [pl.col(name).cast(pl.Float64).mean() if aggregate == "mean" else pl.col(name).max() for name in self.findings]
        flags = pl.col("flags").str.split(FLAG_SEPARATOR).list.explode(keep_nulls=False, empty_as_null=False).unique().sort()
        grouped = scored.group_by("study", maintain_order=True).agg(
            pl.len().cast(pl.Int64).alias("n_images"), *over, flags.filter(flags != "").str.join(FLAG_SEPARATOR)
        )
        schema = study_schema(self.findings)
        return grouped.select([pl.col(name).cast(kind) for name, kind in schema.items()])

    def counts(self) -> dict[str, Any]:
        """Files by outcome and reason; the numbers add up to `files`."""
        table = self.frame().group_by("outcome", "reason").len().sort("outcome", "reason", nulls_last=True)
        by_outcome: dict[str, int] = {"score": 0, "duplicate": 0, "reject": 0, "skip": 0}
        reasons: dict[str, int] = {}
        for outcome, reason, count in table.iter_rows():
            by_outcome[outcome] += count
            if reason:
                reasons[reason] = reasons.get(reason, 0) + count
        return {"files": sum(by_outcome.values()), **by_outcome, "reasons": reasons}
