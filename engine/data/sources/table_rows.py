"""The rows of a CSV or Parquet file as the recipe names their columns."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from engine.errors import ConfigError, InputMissing, ReadError
from engine.recipe.sources import TableSource

Ours = Literal["file", "study", "patient", "view", "report", "split", "sex", "age"]
OURS: tuple[Ours, ...] = ("file", "study", "patient", "view", "report", "split", "sex", "age")
"""Our columns; all but `file` are optional."""


FILE_COLUMNS = frozenset({"filename", "file_name", "filepath", "path", "image", "image_path", "img", "img_path", "image index"})
"""What other tables call our column `file`, to ask whether one of these was meant."""


@dataclass(frozen=True)
class Row:
    """One row: our columns ("" = blank), all cells by the table's own names, and whether `where` leaves it out."""

    file: str
    study: str
    patient: str
    view: str
    report: str
    split: str
    sex: str
    age: str
    cells: Mapping[str, str]
    ragged: bool
    left_out: bool


def rows_of(path: Path, source: TableSource) -> tuple[tuple[str, ...], Iterator[Row]]:
    """The header, and the rows in the table's order.

    Raises:
        InputMissing, ReadError: no such table, or not one.
        ConfigError: the recipe names columns that the table lacks: all of them at once, each with the nearest one it has.
    """
    if not path.is_file():
        raise InputMissing(
            f"table {source.name or path.name} is missing", why=f"no file {path}", hint="set `file` of the source to a CSV or Parquet table"
        )
    records = _parquet(path) if _starts_with(path, b"PAR1") else _csv(path)
    header = tuple(next(records))
    names: dict[str, str] = {ours: source.columns.get(ours, ours) for ours in OURS}
    _check_columns(header, names, source)
    return header, (_row(record, header, names, source) for record in records)


def _check_columns(header: Sequence[str], names: Mapping[str, str], source: TableSource) -> None:
    needed = {names["file"], *source.columns.values(), *source.where, *([source.labels] if source.labels else [])}
    missing = sorted(needed - set(header))
    if missing:
        near = {name: difflib.get_close_matches(name, header, n=1) for name in missing}
        near["file"] = near.get("file") or [name for name in header if name.casefold() in FILE_COLUMNS][:1]
        said = [f"no column {name!r}" + (f" (did you mean {near[name][0]!r}?)" if near[name] else "") for name in missing]
        raise ConfigError(
            "the recipe does not fit the table",
            why="; ".join(said),
            hint=f"other names under `columns` of the source, as in columns: {{file: image}}; the table has {', '.join(header)}",
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ConfigError("the table's header names a column twice", why=", ".join(twice))


def _row(record: Sequence[str], header: Sequence[str], names: Mapping[str, str], source: TableSource) -> Row:
    cells = dict(zip(header, record, strict=False))
    ours = {name: cells.get(theirs, "").strip() for name, theirs in names.items()}
    left_out = any(cells.get(column, "") not in values for column, values in source.where.items())
    return Row(**ours, cells=cells, ragged=len(record) != len(header), left_out=left_out and len(record) == len(header))


def sex_of(cell: str) -> str:
    """F or M from how a table writes it (F, f, female, Female, ...); "" for anything else."""
    first = cell.strip().casefold()
    return {"f": "F", "female": "F", "m": "M", "male": "M"}.get(first, "")


def age_of(cell: str) -> float | None:
    """Years from `63`, `63.0`, `063Y`, `7M`, `3W` or `12D` (DICOM PS3.5, 6.2, AS); None for anything else or beyond 0 to 130."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([YMWD]?)", cell.strip().upper())
    if not found:
        return None
    years = float(found[1]) / {"": 1, "Y": 1, "M": 12, "W": 365.25 / 7, "D": 365.25}[found[2]]
    return years if years <= 130 else None


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _csv(path: Path) -> Iterator[list[str]]:
    """Header and rows of a CSV file, gzipped or not; blank lines are no rows."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
        if text.startswith("version https://git-lfs.github.com/spec/"):
            raise ReadError("the table is a Git-LFS pointer", why="the data themselves were never fetched", hint="git lfs pull")
        separator = max(",;\t", key=text.partition("\n")[0].count)  # spreadsheets of half of Europe write ;
        records = [record for record in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if record]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError(
            "the table cannot be read as CSV", why=str(error), hint="save it as UTF-8 CSV with a header, or as Parquet"
        ) from error
    if not records:
        raise ReadError("the table is empty", hint="give it a header with a column `file`")
    return iter(records)


def _parquet(path: Path) -> Iterator[list[str]]:
    try:
        frame = pl.read_parquet(path)
        frame = frame.select(pl.all().cast(pl.String).fill_null(""))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ReadError("the table cannot be read as Parquet", why=str(error).splitlines()[0]) from error
    return iter([frame.columns, *map(list, frame.iter_rows())])
