"""Schemas of the tables, CSV and Parquet writers, safe cells, and the notice in every file.

In a CSV the notice is the name of a last, empty column, so it is in an empty table too, and readers need not skip a comment line. In
Parquet it is in the file's metadata.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO, RawIOBase
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import polars as pl

from engine.errors import ConfigError
from engine.tables.atomic import AtomicGroup, publish
from engine.tables.batches import Batches, batches_of

NOTICE = "RESEARCH USE ONLY - not for clinical use"
TABLE_VERSION = "1"
METADATA = {"notice": NOTICE, "mmclip_table_version": TABLE_VERSION}
"""Of every Parquet file."""
GROUP_ROWS = 8192
"""Rows of a row group of a Parquet file that is written in batches."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A spreadsheet takes a cell that begins with one of these for a formula (OWASP, CSV injection)."""

FLAG_SEPARATOR = ";"
"""Between the flags of a cell."""

STUDY_COLUMNS: dict[str, type[pl.DataType]] = {"study": pl.String, "n_images": pl.Int64}
IMAGE_COLUMNS: dict[str, type[pl.DataType]] = {
    "image": pl.String,
    "study": pl.String,
    "content_hash": pl.String,
    "outcome": pl.String,
    "reason": pl.String,
    "detail": pl.String,
    "flags": pl.String,
    "modality": pl.String,
    "view": pl.String,
    "rows": pl.Int64,
    "columns": pl.Int64,
    "transfer_syntax": pl.String,
    "file": pl.String,
}
"""`file` is the key of a row: a pseudonym of the file's path. `image` is not, as copies of one instance share it."""
PRIVATE_COLUMNS: dict[str, type[pl.DataType]] = {
    "image": pl.String,
    "path": pl.String,
    "sop_instance_uid": pl.String,
    "study_instance_uid": pl.String,
    "patient": pl.String,
    "file": pl.String,
}
METRIC_COLUMNS: dict[str, type[pl.DataType]] = {
    "finding": pl.String,
    "n": pl.Int64,
    "n_positive": pl.Int64,
    "auroc": pl.Float64,
    "auroc_low": pl.Float64,
    "auroc_high": pl.Float64,
    "auprc": pl.Float64,
    "auprc_low": pl.Float64,
    "auprc_high": pl.Float64,
    "f1": pl.Float64,
    "f1_low": pl.Float64,
    "f1_high": pl.Float64,
    "accuracy": pl.Float64,
    "sensitivity": pl.Float64,
    "specificity": pl.Float64,
    "mcc": pl.Float64,
    "threshold": pl.Float64,
    "threshold_source": pl.String,
    "test_max_f1": pl.Float64,
    "test_max_f1_low": pl.Float64,
    "test_max_f1_high": pl.Float64,
    "test_max_f1_accuracy": pl.Float64,
    "test_max_f1_threshold": pl.Float64,
    "brier": pl.Float64,
    "ece": pl.Float64,
    "interval": pl.String,
    "reason": pl.String,
}
"""`interval` names how auroc_low and auroc_high were found; `reason` says why a finding has no figures."""


LAST_SEEN = "last_seen"
"""Column of scores.* and images.* of a run with `--keep`: the UTC date of the last run that had the file, or a file of the study."""


def study_schema(findings: Sequence[str], *, keep: bool = False) -> dict[str, type[pl.DataType]]:
    """Columns of scores.*: study, n_images, one score in [0, 1] per finding, flags, and with `keep` LAST_SEEN."""
    return {**STUDY_COLUMNS, **dict.fromkeys(findings, pl.Float32), "flags": pl.String, **dict.fromkeys([LAST_SEEN] * keep, pl.String)}


def image_schema(findings: Sequence[str], *, keep: bool = False) -> dict[str, type[pl.DataType]]:
    """Columns of images.*: codes of the header, outcome and reason, one score per finding (null: not scored), and with `keep` LAST_SEEN."""
    return {**IMAGE_COLUMNS, **dict.fromkeys(findings, pl.Float32), **dict.fromkeys([LAST_SEEN] * keep, pl.String)}


def check_findings(findings: Sequence[str]) -> None:
    """Refuses findings whose names are taken by other columns.

    Raises:
        ConfigError: a finding is called like a column of the tables, or like the row of means.
    """
    taken = {*STUDY_COLUMNS, *IMAGE_COLUMNS, *PRIVATE_COLUMNS, "flags", "series_instance_uid", "file", "macro", LAST_SEEN, NOTICE} & set(
        findings
    )
    if taken:
        raise ConfigError(f"the prompts call findings like columns of the tables: {', '.join(sorted(taken))}", hint="other names for them")


def neutral(text: str) -> str:
    """The text with an apostrophe before it where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def joined_flags(flags: Sequence[str]) -> str:
    """Flags as one cell."""
    return FLAG_SEPARATOR.join(flags)


def has_flag(flags: Iterable[str]) -> pl.Expr:
    """Whether the column `flags` holds one of these."""
    return pl.col("flags").fill_null("").str.split(FLAG_SEPARATOR).list.eval(pl.element().is_in(sorted(flags))).list.any()


def split_flags(cell: str | None) -> tuple[str, ...]:
    """The flags in a cell."""
    return tuple(cell.split(FLAG_SEPARATOR)) if cell else ()


def plain_code(text: str | None) -> str | None:
    """A code of plain characters, as modality, view and transfer syntax are; None for anything else, which may identify."""
    plain = (text or "").strip()
    return plain if plain and len(plain) <= 64 and plain.isascii() and all(c.isalnum() or c in "._ " for c in plain) else None


def write_csv(
    table: pl.DataFrame | Batches, path: Path, *, mode: int = 0o666, byte_order_mark: bool = False, to: AtomicGroup | None = None
) -> None:
    """The table as UTF-8 CSV with six decimals, published whole; cells and column names neutralised, the notice as last column.

    With a byte order mark Excel takes it for UTF-8, which matters where cells are paths. `to`: it waits there to be published.

    Raises:
        OutputError: it cannot be written.
    """

    def write(stream: BinaryIO) -> None:
        with _watched(stream) as watched:
            for number, frame in enumerate(batches_of(table).frames()):
                first = number == 0
                _safe(frame).write_csv(watched, float_precision=6, include_header=first, include_bom=first and byte_order_mark)

    (to.add if to else publish)(path, write, mode=mode)


def _safe(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows with neutralised cells and column names, and the notice."""
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    starts = r"^[=+\-@\t\r\n]"
    safe = frame.with_columns(
        pl.when(pl.col(name).str.contains(starts)).then(pl.concat_str(pl.lit("'"), pl.col(name))).otherwise(pl.col(name)).alias(name)
        for name in texts
    ).rename({name: neutral(name) for name in frame.columns if neutral(name) != name})
    return safe.with_columns(pl.lit(None, dtype=pl.String).alias(NOTICE))


def write_parquet(table: pl.DataFrame | Batches, path: Path, *, mode: int = 0o666, to: AtomicGroup | None = None) -> None:
    """The table as Parquet (zstd), published whole, the notice and the table's version in the file's metadata.

    `to`: it waits there to be published.

    Raises:
        OutputError: it cannot be written.
    """

    def write(stream: BinaryIO) -> None:
        with _watched(stream) as watched:
            if isinstance(table, Batches):
                table.lazy().sink_parquet(watched, metadata=METADATA, row_group_size=GROUP_ROWS)
            else:
                table.write_parquet(watched, metadata=METADATA)

    (to.add if to else publish)(path, write, mode=mode)


def read_later(path: Path) -> pl.LazyFrame:
    """Scan a Parquet file of ours lazily."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # Polars knows no names but those of UTF-8
        return pl.scan_parquet(BytesIO(path.read_bytes()))
    return pl.scan_parquet(path, glob=False)


class _Watched(RawIOBase):
    """A stream that keeps the OSError of a failed write; it has no descriptor, so that Polars writes through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        try:
            return self._stream.write(content)
        except OSError as error:
            self.error = error
            raise


@contextmanager
def _watched(stream: BinaryIO) -> Iterator[IO[bytes]]:
    """A stream for Polars' writers that raises the system's own error (a full disk, say), which Polars replaces by one without a number."""
    watched = _Watched(stream)
    try:
        yield cast("IO[bytes]", watched)
    except Exception:
        if watched.error is not None:
            raise watched.error from None
        raise


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
