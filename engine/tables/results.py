"""Result rows of a scoring run, kept on the disk while it runs, and the three tables that are made of them."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.tables.batches import Batches
from engine.tables.columns import IMAGE_COLUMNS, LAST_SEEN, PRIVATE_COLUMNS, image_schema
from engine.tables.studies import Aggregate, study_table

_CHUNK = 1024
"""Rows that are kept as Python objects before they become columns on the disk."""
_EXTRA: dict[str, type[pl.DataType]] = {"series_instance_uid": pl.String, "location": pl.String, LAST_SEEN: pl.String}


@dataclass(frozen=True)
class ResultRow:
    """One input file. `public` has IMAGE_COLUMNS, `private` PRIVATE_COLUMNS and what tables leave out; `scores` (F,) or None."""

    public: dict[str, Any]
    private: dict[str, Any]
    scores: NDArray[np.float32] | None


class Results:
    """The rows of a run in the order of its inputs, in an unlinked temporary file: memory holds the last thousand.

    Args:
        findings: the recipe's findings, in its order.
        folder: where that file is made, as rows hold identifiers. None: in memory.
        keep: the tables have the column `last_seen`.
    """

    def __init__(self, findings: Sequence[str], folder: Path | None = None, *, keep: bool = False) -> None:
        self.findings = tuple(findings)
        self.keep = keep
        self._schema = IMAGE_COLUMNS | PRIVATE_COLUMNS | _EXTRA | dict.fromkeys(self.findings, pl.Float32)
        self._folder = folder
        self._rows: list[ResultRow] = []
        self._counts: Counter[tuple[str, str | None]] = Counter()
        self._file: IO[bytes] | None = None
        self._ends = [0]
        self._lowest, self._highest = (np.full(len(self.findings), end, dtype=np.float32) for end in (np.inf, -np.inf))

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, row: ResultRow) -> None:
        """One more file."""
        self._rows.append(row)
        self._counts[row.public["outcome"], row.public["reason"]] += 1
        if row.scores is not None and row.public["outcome"] == "score":
            np.minimum(self._lowest, row.scores, out=self._lowest)
            np.maximum(self._highest, row.scores, out=self._highest)
        if len(self._rows) >= _CHUNK:
            self._pack()

    def close(self) -> None:
        """Drop the rows."""
        if self._file is not None:
            with suppress(OSError):  # the rows are not needed any more
                self._file.close()
        self._file, self._ends = None, [0]

    def _pack(self) -> None:
        if not self._rows:
            return
        texts = pl.DataFrame([row.public | row.private for row in self._rows], schema=IMAGE_COLUMNS | PRIVATE_COLUMNS | _EXTRA)
        blank = np.full(len(self.findings), np.nan, dtype=np.float32)
        scores = np.stack([blank if row.scores is None else row.scores for row in self._rows])
        columns = [pl.Series(name, np.ascontiguousarray(scores[:, k])).fill_nan(None) for k, name in enumerate(self.findings)]
        self._keep(texts.with_columns(columns))
        self._rows = []

    def _keep(self, chunk: pl.DataFrame) -> None:
        packed = BytesIO()
        chunk.write_ipc(packed, compression="zstd")
        if self._file is None:
            self._file = TemporaryFile(dir=self._folder) if self._folder else BytesIO()  # noqa: SIM115 - open until `close`
        try:
            self._file.seek(self._ends[-1])
            self._file.write(packed.getvalue())
            self._file.flush()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else type(error).__name__
            raise OutputError("cannot write a temporary file", why=why, hint="free space or another folder with --out") from None
        self._ends.append(self._file.tell())

    def _chunks(self) -> Iterator[pl.DataFrame]:
        self._pack()
        for start, end in itertools.pairwise(self._ends):
            assert self._file is not None  # as there is something in it
            self._file.seek(start)
            yield pl.read_ipc(BytesIO(self._file.read(end - start)))

    def frame(self, *columns: str, where: pl.Expr | None = None) -> pl.DataFrame:
        """The rows that match `where`, by default all, with these columns, by default all."""
        wanted = columns or tuple(self._schema)
        chunks = ((chunk if where is None else chunk.filter(where)).select(wanted) for chunk in self._chunks())
        return pl.concat([pl.DataFrame(schema={name: self._schema[name] for name in wanted}), *chunks], rechunk=True)

    def reflag(self, flags_of: Callable[[dict[str, Any]], str]) -> None:
        """Replace the flags of scored rows: UID conflicts are known only when every file has been read."""
        flagged = Results(self.findings, self._folder, keep=self.keep)
        for chunk in self._chunks():
            flags = [flags_of(row) if row["outcome"] == "score" else row["flags"] for row in chunk.iter_rows(named=True)]
            flagged._keep(chunk.with_columns(pl.Series("flags", flags, dtype=pl.String)))
        self.close()
        self._file, self._ends = flagged._file, flagged._ends

    def batches(self, *columns: str, where: pl.Expr | None = None) -> Batches:
        """The rows that match `where`, by default all, with these columns, a thousand at a time."""
        schema = {name: self._schema[name] for name in columns}
        return Batches(schema, lambda: ((chunk if where is None else chunk.filter(where)).select(*schema) for chunk in self._chunks()))

    def images(self) -> Batches:
        """images.*: one row per input file."""
        return self.batches(*image_schema(self.findings, keep=self.keep))

    def contents(self) -> Iterator[pl.Series]:
        """Content hashes of the input files, a thousand at a time."""
        return (chunk["content_hash"] for chunk in self._chunks())

    def private(self) -> Batches:
        """private/files.parquet: paths and identifiers of the same rows."""
        return self.batches(*PRIVATE_COLUMNS)

    def studies(self, aggregate: Aggregate, left_out: Collection[str] = frozenset()) -> tuple[Batches, int]:
        """scores.* and its number of rows: one row per study with a scored image, in the order of the inputs.

        A study's score is the mean, or the maximum, over its images of outcome `score`; duplicates have scores but are not counted again,
        nor are images with a flag of `left_out`. Flags are those of any of its images.
        """
        seen = [LAST_SEEN] if self.keep else []
        images = self.batches("study", "flags", *self.findings, *seen, where=pl.col("outcome") == "score")
        return study_table(images, self.findings, aggregate, left_out)

    def spread(self) -> float:
        """The largest difference between scores of a finding over all scored images; 0 where there are none."""
        return max(0.0, float((self._highest - self._lowest).max(initial=0.0)))

    def counts(self) -> dict[str, Any]:
        """Files by outcome and reason; the numbers add up to `files`."""
        by_outcome: dict[str, int] = {"score": 0, "duplicate": 0, "reject": 0, "skip": 0}
        reasons: dict[str, int] = {}
        for (outcome, reason), count in sorted(self._counts.items(), key=lambda each: (each[0][0], each[0][1] or "")):
            by_outcome[outcome] += count
            if reason:
                reasons[reason] = reasons.get(reason, 0) + count
        return {"files": sum(by_outcome.values()), **by_outcome, "reasons": reasons}
