"""Labels of studies from a user's table: which columns, which studies, joined by name.

A table of labels is a CSV or Parquet file with a key column (StudyInstanceUID, study or file, in any usual spelling) and either a column
per finding, a column that lists findings, or a row for each label (columns finding and value). Cells are read by
`engine.data.label_cells`. Rows that repeat are counted; rows that contradict each other make the finding unknown for that study.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from engine.data.label_cells import (
    DEFAULT_POLICY,
    VALUE_NAMES,
    LabelPolicy,
    could_be_labels,
    listing_column,
    match_findings,
    near_finding,
    read_column,
    read_listing,
)
from engine.data.splits import check_split_names
from engine.errors import LabelsError
from engine.recipe.section import plain_name
from engine.tables.column_names import Columns, columns_by_role, plain_column
from engine.tables.study_names import StudyNames, key_form
from engine.tables.text_tables import read_text_table

LISTED = 1000
"""The most rows or studies that are listed one by one; all are counted."""
_UID_COLUMNS = ("studyinstanceuid", "studyuid")
_MANGLED = re.compile(r"\d(?:[.,]\d+)?E\+\d+", re.IGNORECASE)
"""A long number as a spreadsheet shows it: 1.2E+20."""
FACTS = ("patient", "sex", "age", "view", "source", "split")


@dataclass(frozen=True)
class Labels:
    """Labels as they are in the table.

    Attributes:
        key: the column that names the studies; by_file: it holds paths.
        keys: (rows,) the key of each row, as given.
        values: finding of the recipe -> (rows,) of 1, 0 or None; findings without a column are not in it.
        unused: columns of labels that are no finding of the recipe.
        folder: the folder that relative paths start from.
        facts: name of `FACTS` -> (rows,) cells, for columns that are there.
        uncertain: number of uncertain cells, by what the policy made of them.
        taken: sentences about columns and findings that were recognised under another name.
    """

    key: str
    by_file: bool
    keys: Sequence[str]
    values: Mapping[str, Sequence[int | None]]
    unused: tuple[str, ...]
    folder: Path
    facts: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    uncertain: int = 0
    taken: tuple[str, ...] = ()


def read_labels(path: Path, findings: Sequence[str], policy: LabelPolicy = DEFAULT_POLICY, column: str | None = None) -> Labels:
    """The labels in a file.

    Args:
        findings: the findings of the recipe.
        policy: how uncertain cells and soft labels are read.
        column: the column that lists findings; None: found by its name where no column is a finding.

    Raises:
        InputMissing, ReadError: the file.
        LabelsError: no key column, no column of a finding of the recipe, a cell that is no label, a row without a key,
            an unknown name of a split.
    """
    frame = read_text_table(path, LabelsError, what="table of labels")
    return labels_in(frame, findings, folder=path.parent, policy=policy, column=column)


def labels_in(
    frame: pl.DataFrame,
    findings: Sequence[str],
    *,
    folder: Path,
    policy: LabelPolicy = DEFAULT_POLICY,
    column: str | None = None,
    by_file: bool = False,
) -> Labels:
    """The labels in a table of texts; see `read_labels`. by_file: its key is the column of files."""
    roles = columns_by_role(frame.columns, error=LabelsError, key="rename the column: columns")
    key, is_file = _key(frame, roles, by_file)
    keys = _keys(frame[key].to_list(), key, is_file)
    facts = {name: frame[found].to_list() for name, found in _facts(frame, roles, key).items()}
    check_split_names(name or "" for name in facts.get("split", ()))
    others = {name: frame[name].to_list() for name in frame.columns if name not in {key, *roles.by_role.values()} and name != "source"}
    values, unused, taken, uncertain = _values(others, findings, policy, column)
    said = [roles.taken.replace("columns taken: ", "")] if roles.taken else []
    return Labels(key, is_file, keys, values, unused, folder, facts, uncertain, (*said, *taken))


def has_labels(frame: pl.DataFrame, findings: Sequence[str]) -> bool:
    """Whether an image table has a column that is a finding, or is nearly called like one and holds labels."""
    roles = set(columns_by_role(frame.columns, error=LabelsError).by_role.values())
    others = {name: frame[name].to_list() for name in frame.columns if name not in roles}
    try:
        return bool(match_findings(others, findings).columns)
    except LabelsError:
        return True  # `labels_in` raises it


def _key(frame: pl.DataFrame, roles: Columns, by_file: bool) -> tuple[str, bool]:
    """The key column, and whether it holds paths."""
    plain = {plain_column(name): name for name in reversed(frame.columns)}
    uid = next((plain[name] for name in _UID_COLUMNS if name in plain), None)
    file, study = roles.by_role.get("file"), roles.by_role.get("study")
    if by_file and file:
        return file, True
    if uid or study:
        return uid or study or "", False
    if file:
        return file, True
    why = "no column StudyInstanceUID, study or file"
    hint = "one of these as a column"
    if "accessionnumber" in plain:
        why += "; AccessionNumber is not kept with the scores"
        hint = "StudyInstanceUID, or file with the paths of the scored files"
    elif "patient" in roles.by_role:
        why += f"; {roles.by_role['patient']!r} names patients, who may have several studies"
        hint = "StudyInstanceUID, or file with the paths of the scored files"
    raise LabelsError("the labels name no studies", why=why, hint=hint)


def _keys(cells: Sequence[str | None], key: str, is_file: bool) -> list[str]:
    keys = []
    for row, text in enumerate(cells, 1):
        if text is None:
            raise LabelsError(f"row {row} of the labels has no {key}", hint="fill in the cell, or leave the row out")
        if not is_file and _MANGLED.fullmatch(text):
            raise LabelsError(
                f"row {row} of the labels, column {key!r}, holds a number such as 1.2E+20",
                why="a spreadsheet has turned the keys into numbers, and their digits are lost",
                hint="export the table again with this column as text",
            )
        keys.append(text)
    return keys


def _facts(frame: pl.DataFrame, roles: Columns, key: str) -> dict[str, str]:
    """Name of `FACTS` -> its column."""
    named = {name: found for name, found in roles.by_role.items() if name in FACTS and found != key}
    plain = {plain_column(name): name for name in reversed(frame.columns)}
    return {str(name): found for name, found in named.items()} | ({"source": plain["source"]} if "source" in plain else {})


def _values(
    columns: Mapping[str, Sequence[str | None]], findings: Sequence[str], policy: LabelPolicy, listing: str | None
) -> tuple[dict[str, Sequence[int | None]], tuple[str, ...], tuple[str, ...], int]:
    """Finding -> labels of the rows; unused columns of labels; what was taken for what; uncertain cells."""
    if listing is not None and listing not in columns:
        raise LabelsError(f"the labels have no column {listing!r}", why=f"they have {', '.join(map(repr, columns))}")
    found = match_findings(columns, findings)
    if found.columns and listing is None:
        read = {finding: read_column(columns[column], column, policy) for column, finding in found.columns.items()}
        return {name: each.values for name, each in read.items()}, found.unused, found.taken, sum(each.uncertain for each in read.values())
    name = listing or listing_column(tuple(columns))
    if name is None or could_be_labels(columns[name]):
        raise _no_finding(columns, found.unused, findings)
    listed = read_listing(columns[name], name, findings, open_set=listing is not None)
    value = next((each for each in columns if each != name and plain_name(each) in VALUE_NAMES), None)
    wanted = [finding for finding in listed.findings if finding in findings]
    if not wanted:
        raise LabelsError(f"column {name!r} lists no finding of the recipe", why=", ".join(listed.findings[:6]))
    other = tuple(finding for finding in listed.findings if finding not in findings)
    if value is not None:
        cells = read_column(columns[value], value, policy)
        long = {
            finding: [given if names and finding in names else None for names, given in zip(listed.names, cells.values, strict=True)]
            for finding in wanted
        }
        return dict(long), other, (f"{name!r} and {value!r} as a label a row",), cells.uncertain
    values = {finding: [None if names is None else int(finding in names) for names in listed.names] for finding in wanted}
    said = f"{name!r} as a list of findings, where one that is listed elsewhere in the column and not for a study is absent"
    return dict(values), other, (said,), 0


def _no_finding(columns: Mapping[str, object], unused: Sequence[str], findings: Sequence[str]) -> LabelsError:
    near = [f"{column!r} to {match}" for column in columns if (match := near_finding(column, findings, cutoff=0.6))]
    return LabelsError(
        "no column of the labels is a finding of the recipe",
        why=f"columns {', '.join(map(repr, list(columns)[:12]))}" if columns else "there is no column beside the key",
        hint=f"rename {', '.join(near)}" if near else f"columns named {', '.join(findings[:4])} and so on",
    )


@dataclass(frozen=True)
class JoinedLabels:
    """Labels of scored studies: study -> finding -> 1, 0 or None; and the account of the join, for run.json, without identifiers."""

    labels: Mapping[str, Mapping[str, int | None]]
    account: Mapping[str, Any]

    def frame(self, findings: Sequence[str]) -> pl.DataFrame:
        """Studies with labels: `study`, and 1, 0 or null (Int8) per finding."""
        rows = [{"study": study} | {name: cells.get(name) for name in findings} for study, cells in self.labels.items()]
        return pl.DataFrame(rows, schema={"study": pl.String, **dict.fromkeys(findings, pl.Int8)})

    def notices(self) -> list[str]:
        """What a user should know about the join, a sentence each."""
        said = [f"{what}: {self.account[name]}" for name, what in _NOTICES.items() if self.account[name]]
        if columns := self.account["unknown_columns"]:
            said.append(f"columns of the labels that are no finding of the recipe: {', '.join(columns)}")
        if taken := self.account["taken"]:
            said.append(f"columns of the labels taken: {'; '.join(taken)}")
        return said


_NOTICES = {
    "unmatched_rows": "rows of the labels that match no scored study",
    "ambiguous_rows": "rows of the labels that name a study with conflicting UIDs, and are not joined",
    "duplicate_rows": "rows of the labels that repeat a study",
    "disagreements": "labels that contradict an earlier row, and count as unknown",
    "uncertain_cells": "uncertain labels (-1), read as --uncertain says",
    "studies_without_labels": "scored studies without labels",
}


def studies_of(labels: Labels, names: StudyNames) -> list[str | None]:
    """The scored study of each row; None where no study answers to its key."""
    if labels.by_file:
        return [names.study_of_file(key, labels.folder) for key in labels.keys]
    return [names.study(key) for key in labels.keys]


def join(truth: Sequence[Labels], names: StudyNames) -> JoinedLabels:
    """Labels by study, and what became of every row.

    Args:
        truth: what one or several tables say.

    Rows are numbered from 1, without headers, on from one table to the next. A row is counted as exactly one of: matched, unmatched (no
    scored study), ambiguous (two patients or two studies share a UID).
    """
    table: dict[str, dict[str, int | None]] = {}
    first_row: dict[str, int] = {}
    unmatched: list[int] = []
    ambiguous: list[int] = []
    duplicates: list[dict[str, int]] = []
    contradicted: dict[tuple[str, str], dict[str, Any]] = {}
    studies = [study for labels in truth for study in studies_of(labels, names)]
    rows = ({finding: cells[row] for finding, cells in labels.values.items()} for labels in truth for row in range(len(labels.keys)))
    for row, (study, mine) in enumerate(zip(studies, rows, strict=True), 1):
        if study is None or study not in names.scored:
            unmatched.append(row)
            continue
        if names.scored[study]:
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
        "uncertain_cells": sum(labels.uncertain for labels in truth),
        "studies_with_labels": len(table),
        "studies_without_labels": len(names.scored) - len(table),
        "unknown_columns": sorted({name for labels in truth for name in labels.unused}),
        "key_form": key_form(truth[0].keys[0]) if truth and truth[0].keys else "",
        "taken": sorted({said for labels in truth for said in labels.taken}),
        "listed": {
            "unmatched": unmatched[:LISTED],
            "ambiguous": ambiguous[:LISTED],
            "duplicate": duplicates[:LISTED],
            "disagreeing": list(contradicted.values())[:LISTED],
        },
    }
    return JoinedLabels(table, account)
