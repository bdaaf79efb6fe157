"""Labels: what is known of each study, 1 = finding present, 0 = absent, blank = unknown, joined to scored studies by name.

A labels file is a CSV (comma, semicolon or tab; UTF-8 with or without a byte order mark) or Parquet with one key column,
`StudyInstanceUID`, `study` or `file`, and one column per finding. Nothing is guessed: a cell that is no 1, 0 or blank is an error with its
row; rows that repeat are counted, rows that contradict each other make the finding unknown for that study, and both are listed.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from engine.errors import ConfigError, InputMissing, LabelsError, ReadError

KEYS = ("StudyInstanceUID", "study", "file")
OTHER_COLUMNS = frozenset({"study", "file", "patient", "view", "report", "split", "image", "n_images", "flags", "studyinstanceuid"})
"""Columns of tables that hold no labels: never taken for a misspelt finding."""
TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
_VALUES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "": None}
LISTED = 1000
"""The most rows or studies that are listed one by one; all are counted."""


def read_text_table(path: Path, error: Callable[..., ConfigError], *, what: str = "table") -> pl.DataFrame:
    """A CSV or Parquet file as texts: every column String, null where blank, in the file's order.

    Args:
        path: the file; Parquet by its first bytes, else text.
        error: makes the error to raise for a file that is no table.
        what: how an error calls the file.

    Raises:
        InputMissing: no such file.
        ReadError: it cannot be read.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputMissing(f"the {what} does not exist", hint="check the path") from None
    except OSError as fault:
        raise ReadError(f"the {what} cannot be read", why=os.strerror(fault.errno) if fault.errno else type(fault).__name__) from None
    if raw[:4] == b"PAR1":
        try:
            frame = pl.read_parquet(io.BytesIO(raw))
        except (pl.exceptions.PolarsError, OSError):
            raise error("the Parquet table is damaged", hint="write it again") from None
        for name, kind in frame.schema.items():
            if kind.is_nested() or kind in (pl.Binary, pl.Object):
                raise error(f"column {name!r} of the Parquet table holds {kind}", hint="text or numbers")
        texts = [pl.col(n).cast(pl.Int8).cast(pl.String) if k == pl.Boolean else pl.col(n).cast(pl.String) for n, k in frame.schema.items()]
        return frame.select(texts)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise error("the table is no UTF-8 text", hint="save it as CSV UTF-8 or Parquet") from None
    if "\0" in text:
        raise error("the table is no text", hint="CSV or Parquet")
    return _parse_csv(text, error)


def _parse_csv(text: str, error: Callable[..., ConfigError]) -> pl.DataFrame:
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as fault:
        raise error(f"the table cannot be read beyond line {reader.line_num}", why=str(fault)) from None
    if not rows:
        raise error("the table is empty", hint="a header line and a row per study")
    header = [name.strip() for name in rows[0]]
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise error(f"column {doubled[0]!r} stands twice in the table")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise error(f"row {number} of the table has {len(row)} cells where the header has {len(header)}")
    columns = {name: [row[i].strip() or None for row in rows[1:]] for i, name in enumerate(header)}
    return pl.DataFrame(columns, schema=dict.fromkeys(header, pl.String))


def plain_name(name: str) -> str:
    """A finding's name as it is compared: without regard to case, underscores and repeated blanks."""
    return " ".join(name.replace("_", " ").casefold().split())


@dataclass(frozen=True)
class Labels:
    """Labels as they stand in the file.

    Attributes:
        key: which of `KEYS` names the studies.
        keys: (rows,) the key of each row, as given.
        values: finding of the recipe -> (rows,) of 1, 0 or None; findings without a column are not in it.
        unknown: columns that are no finding of the recipe.
        folder: where relative names in `file` start from.
    """

    key: str
    keys: Sequence[str]
    values: Mapping[str, Sequence[int | None]]
    unknown: tuple[str, ...]
    folder: Path


def read_labels(path: Path, findings: Sequence[str]) -> Labels:
    """The labels in a file, checked.

    Raises:
        InputMissing, ReadError: the file.
        LabelsError: no key column, no column of a finding of the recipe, a cell that is no label, a row without a key.
    """
    return labels_of(read_text_table(path, LabelsError, what="table of labels"), findings, folder=path.parent)


def labels_of(frame: pl.DataFrame, findings: Sequence[str], *, folder: Path, key: str | None = None) -> Labels:
    """The labels in a table of texts, by its column `key` or the first of `KEYS` that it has; see `read_labels`."""
    key = key or next((name for name in KEYS if name in frame.columns), None)
    if key is None:
        raise LabelsError(
            "the labels name no studies", why="no column StudyInstanceUID, study or file", hint="one of these as the first column"
        )
    by_name = {plain_name(name): name for name in findings} | {name: name for name in findings}
    columns: dict[str, str] = {}
    unknown = []
    for column in frame.columns:
        finding = by_name.get(column) or by_name.get(plain_name(column))
        if finding is None:
            if column != key and column.casefold() not in OTHER_COLUMNS:
                unknown.append(column)
        elif finding in columns:
            raise LabelsError(f"columns {columns[finding]!r} and {column!r} of the labels are both {finding}")
        else:
            columns[finding] = column
    if not columns:
        near = [f"{column!r} for {match}" for column in unknown if (match := near_finding(column, findings))]
        raise LabelsError(
            "no column of the labels is a finding of the recipe",
            why=f"columns {', '.join(map(repr, unknown))}" if unknown else "there is no column beside the key",
            hint=f"rename {', '.join(near)}" if near else f"columns named {', '.join(findings[:4])} and so on",
        )
    values = {finding: [_value(cell, row, column) for row, cell in enumerate(frame[column], 1)] for finding, column in columns.items()}
    keys: list[str] = []
    for row, text in enumerate(frame[key], 1):
        if text is None:
            raise LabelsError(f"row {row} of the labels has no {key}")
        keys.append(text)
    return Labels(key, keys, values, tuple(unknown), folder)


def near_finding(column: str, findings: Sequence[str]) -> str | None:
    """The finding that a column's name was perhaps meant to be."""
    names = {plain_name(finding): finding for finding in findings}
    match = difflib.get_close_matches(plain_name(column), names, n=1, cutoff=0.6)
    return names[match[0]] if match else None


_NEAR_VALUES = frozenset(
    {"yes", "no", "y", "n", "true", "false", "t", "f", "pos", "neg", "positive", "negative", "x", "?", "-1", "-1.0", "2"}
)
"""What people write for a label, and what alone an error repeats: any other cell may be a name or a birth date in the wrong column."""


def _value(cell: str | None, row: int, column: str) -> int | None:
    text = (cell or "").strip()
    if text.lower() in ("nan", "null", "none"):
        raise LabelsError(f"row {row} of the labels, column {column!r}, holds {text!r}", hint="leave the cell blank where nothing is known")
    if text not in _VALUES:
        shown = repr(text) if text.lower() in _NEAR_VALUES else "something else"
        raise LabelsError(
            f"row {row} of the labels, column {column!r}, holds {shown}", hint="1 for present, 0 for absent, blank for unknown"
        )
    return _VALUES[text]


@dataclass(frozen=True)
class Joined:
    """Labels of scored studies: study -> finding -> 1, 0 or None; and the account of the join, for run.json, without identifiers."""

    labels: Mapping[str, Mapping[str, int | None]]
    account: Mapping[str, Any]

    def frame(self, findings: Sequence[str]) -> pl.DataFrame:
        """Studies with labels: `study`, and 1, 0 or null (Int8) per finding."""
        rows = [{"study": study} | {name: cells.get(name) for name in findings} for study, cells in self.labels.items()]
        return pl.DataFrame(rows, schema={"study": pl.String, **dict.fromkeys(findings, pl.Int8)})

    def notices(self) -> list[str]:
        """What a person should hear about the join, one sentence each."""
        said = [f"{what}: {self.account[name]}" for name, what in _SAID.items() if self.account[name]]
        if columns := self.account["unknown_columns"]:
            said.append(f"columns of the labels that are no finding of the recipe: {', '.join(columns)}")
        return said


_SAID = {
    "unmatched_rows": "rows of the labels that match no scored study",
    "ambiguous_rows": "rows of the labels that name a study with conflicting UIDs, and are not joined",
    "duplicate_rows": "rows of the labels that repeat a study",
    "disagreements": "labels that contradict an earlier row, and count as unknown",
    "studies_without_labels": "scored studies without labels",
}


def join(truth: Sequence[Labels], studies: Sequence[str | None], scored: Mapping[str, str]) -> Joined:
    """Labels by study, and what became of every row.

    Args:
        truth: what one or several files say.
        studies: for each row of all of them, the study's name in the tables, None where no study answers to its key.
        scored: the studies that have scores -> "" or the reason why no label may be joined to them.

    Rows are numbered from 1, without headers, on from one file to the next. A row ends in exactly one of: matched, unmatched (no scored
    study), ambiguous (two patients or two studies share a UID).
    """
    table: dict[str, dict[str, int | None]] = {}
    first_row: dict[str, int] = {}
    unmatched: list[int] = []
    ambiguous: list[int] = []
    duplicates: list[dict[str, int]] = []
    contradicted: dict[tuple[str, str], dict[str, Any]] = {}
    rows = ({finding: cells[row] for finding, cells in labels.values.items()} for labels in truth for row in range(len(labels.keys)))
    for row, (study, mine) in enumerate(zip(studies, rows, strict=True), 1):
        if study is None or study not in scored:
            unmatched.append(row)
            continue
        if scored[study]:
            ambiguous.append(row)
            continue
        known = table.setdefault(study, {})
        if study in first_row:
            duplicates.append({"row": row, "first_row": first_row[study]})
        first_row.setdefault(study, row)
        for finding, value in mine.items():
            if known.get(finding) not in (None, value) and value is not None:
                contradicted.setdefault((study, finding), {"study": study, "finding": finding, "row": row, "first_row": first_row[study]})
            elif known.get(finding) is None:
                known[finding] = value
    for study, finding in contradicted:
        table[study][finding] = None
    account = {
        "rows": len(studies),
        "matched_rows": len(studies) - len(unmatched) - len(ambiguous),
        "unmatched_rows": len(unmatched),
        "ambiguous_rows": len(ambiguous),
        "duplicate_rows": len(duplicates),
        "disagreements": len(contradicted),
        "studies_with_labels": len(table),
        "studies_without_labels": len(scored) - len(table),
        "unknown_columns": sorted({name for labels in truth for name in labels.unknown}),
        "listed": {
            "unmatched": unmatched[:LISTED],
            "ambiguous": ambiguous[:LISTED],
            "duplicate": duplicates[:LISTED],
            "disagreeing": list(contradicted.values())[:LISTED],
        },
    }
    return Joined(table, account)
