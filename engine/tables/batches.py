"""Tables that may not fit into memory: a schema, and batches of rows that can be iterated several times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl
from polars.io.plugins import register_io_source

BATCH_ROWS = 8192
"""Rows at a time of a table that is in memory anyhow."""


@dataclass(frozen=True)
class Batches:
    """A table, batch by batch.

    schema: its columns and their types. made: gives its rows from the first on, at every call.
    """

    schema: Mapping[str, type[pl.DataType]]
    made: Callable[[], Iterable[pl.DataFrame]]

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows in their order. The first batch has none, so that a table without rows has its columns all the same."""
        yield pl.DataFrame(schema=dict(self.schema))
        yield from self.made()

    def changed(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Batches:
        """The table with every batch changed; columns and types stay."""
        return Batches(self.schema, lambda: map(change, self.made()))

    def lazy(self) -> pl.LazyFrame:
        """The table for Polars, which holds a few batches of it at a time when it sinks them."""

        def source(columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, size: int | None) -> Iterator[pl.DataFrame]:
            seen = 0
            for frame in self.frames():
                rows = frame if n_rows is None else frame.head(n_rows - seen)
                seen += rows.height
                rows = rows if predicate is None else rows.filter(predicate)
                yield rows if columns is None else rows.select(columns)
                if seen == n_rows:
                    return

        return register_io_source(source, schema=dict(self.schema))

    def frame(self) -> pl.DataFrame:
        """All of it, in memory."""
        return pl.concat(self.frames(), rechunk=True)


def batches_of(table: pl.DataFrame | Batches) -> Batches:
    """The table as batches."""
    if isinstance(table, Batches):
        return table
    return Batches(dict(table.schema), lambda: table.iter_slices(BATCH_ROWS))  # type: ignore[arg-type]  # types, or instances of them
