"""The rows of a CSV or Parquet file as the recipe names their columns."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError, InputMissing, ReadError
from engine.model.population import age_in_years as age_of
from engine.recipe.sources import TableSource
from engine.tables.column_names import ROLES, Columns, columns_by_role, near_file_columns
from engine.tables.text_tables import TextTable, plain_key, read_text_rows

__all__ = ["Row", "TableRows", "age_of", "rows_of", "sex_of"]


@dataclass(frozen=True)
class Row:
    """One row: mmclip's columns ("" = blank), all cells by the table's own names, and whether `where` leaves it out."""

    number: int
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


@dataclass(frozen=True)
class TableRows:
    """A table: its rows in their order, its columns by role, and its other columns."""

    rows: tuple[Row, ...]
    columns: Columns
    others: tuple[str, ...]


def rows_of(path: Path, source: TableSource) -> TableRows:
    """The rows of a table.

    Raises:
        InputMissing, ReadError: no such table, or not one.
        ConfigError: the recipe names columns that the table lacks (all of them at once, each with the nearest one it has), the table has
            no column of files, or a column that may be the patient's is not taken for it.
    """
    if not path.is_file():
        raise InputMissing(
            f"table {source.name or path.name} is missing", why=f"no file {path}", hint="set `file` of the source to a CSV or Parquet table"
        )
    table = read_text_rows(path, ReadError)
    _check_named(table.header, source)
    roles = columns_by_role([name for name in table.header if not _is_label(name, source)], source.columns, key="--set sources.0.columns")
    if "file" not in roles.by_role:
        near = near_file_columns(table.header)
        raise ConfigError(
            "the table has no column of files",
            why="no column 'file'" + (f" (did you mean {near[0]!r}?)" if near else ""),
            hint="--set sources.0.columns.file=COLUMN",
        )
    taken = set(roles.by_role.values())
    others = tuple(name for name in table.header if name and name not in taken)
    return TableRows(tuple(_rows(table, roles, source)), roles, others)


def _is_label(name: str, source: TableSource) -> bool:
    return not name or name == source.labels or name in source.rename or name in source.findings


def _check_named(header: Sequence[str], source: TableSource) -> None:
    needed = {*source.columns.values(), *source.where, *([source.labels] if source.labels else [])}
    if missing := sorted(needed - set(header)):
        near = {name: difflib.get_close_matches(name, header, n=1) for name in missing}
        said = [f"no column {name!r}" + (f" (did you mean {near[name][0]!r}?)" if near[name] else "") for name in missing]
        has = ", ".join(filter(None, header))
        raise ConfigError(
            "the recipe does not fit the table",
            why="; ".join(said),
            hint=f"other names under `columns` of the source, as in columns: {{file: image}}; the table has {has}",
        )


def _rows(table: TextTable, roles: Columns, source: TableSource) -> list[Row]:
    rows = []
    for number, record in enumerate(table.rows, 1):
        cells = dict(zip(table.header, record, strict=False))
        cells.pop("", None)
        ours = {role: cells.get(roles.by_role[role], "") if role in roles.by_role else "" for role in ROLES}
        ours |= {key: plain_key(ours[key]) for key in ("file", "study", "patient")}
        ragged = len(record) != len(table.header)
        left_out = any(cells.get(column, "") not in values for column, values in source.where.items())
        rows.append(Row(number, **ours, cells=cells, ragged=ragged, left_out=left_out and not ragged))
    return rows


def sex_of(cell: str) -> str:
    """F or M from how a table writes it (F, f, female, Female, ...); "" for anything else."""
    first = cell.strip().casefold()
    return {"f": "F", "female": "F", "m": "M", "male": "M"}.get(first, "")
