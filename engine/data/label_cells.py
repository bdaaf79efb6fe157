"""Label cells and label columns: one reading for every verb and every table.

A cell is present (1), absent (0), unknown (blank) or uncertain (-1, u). What is uncertain becomes is a policy, by default unknown. Soft
labels (0.7) need a threshold that the user gives. Anything else is an error with its row and column.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.errors import ConfigError, LabelsError
from engine.recipe.section import plain_name

Uncertain = Literal["unknown", "present", "absent"]

PRESENT = frozenset({"1", "true", "t", "yes", "y", "positive", "pos", "present", "+"})
ABSENT = frozenset({"0", "false", "f", "no", "n", "negative", "neg", "absent"})
UNKNOWN = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "nil", "unknown", "?", "-", ".", "missing", "not mentioned"})
UNCERTAIN = frozenset({"-1", "u", "uncertain", "equivocal", "-1.", "maybe"})
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d*)?(?:e[+-]?\d+)?")
_HARMLESS = re.compile(r"[+-]?\d{1,3}(?:[.,]\d{1,8})?|[a-z?!+-]{1,2}|x+")
"""Cells that an error repeats; any other cell may be a name or a birth date in the wrong column."""

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "Pleural Effusion": ("effusion", "pleural effusions", "effusions"),
    "Edema": ("oedema", "pulmonary edema", "pulmonary oedema", "lung edema", "lung oedema"),
    "No Finding": ("no findings", "normal", "healthy"),
    "Lung Opacity": ("airspace opacity", "opacity", "lung opacities", "opacities"),
    "Lung Lesion": ("lung lesions",),
    "Enlarged Cardiomediastinum": ("enlarged cardiom", "enlarged cardiomediastinal silhouette"),
    "Support Devices": ("support device",),
    "Fracture": ("fractures",),
    "Infiltration": ("infiltrate", "infiltrates"),
    "Pleural Thickening": ("pleural thickenings",),
    "Pneumonia": ("pneumonias",),
    "Pneumothorax": ("pneumothoraces", "ptx"),
    "Atelectasis": ("atelectases",),
    "Consolidation": ("consolidations",),
    "Cardiomegaly": ("enlarged heart", "cardiac enlargement"),
}
"""Finding -> what the label sets of NIH, CheXpert, MIMIC-CXR, PadChest, VinDr and RSNA call it, as `plain_name` writes it."""

LISTING_NAMES = (
    "finding labels", "labels", "label", "findings", "finding", "class", "classes", "class name", "diagnosis", "diagnoses", "pathology",
    "pathologies", "category",
)  # fmt: skip
"""Columns that list findings by name, as `plain_name` writes them: NIH's `Finding Labels`, PadChest's `Labels`, VinDr's `class_name`."""
VALUE_NAMES = ("value", "present", "presence", "status", "result", "is present", "label value")
"""Columns with the value of the finding that the row names, in tables with a row for each label."""


@dataclass(frozen=True)
class LabelPolicy:
    """How cells that are neither 1, 0 nor blank are read.

    Attributes:
        uncertain: what -1 and u mean.
        threshold: soft labels (numbers between 0 and 1) from this value on are present; None: a soft label is an error.
    """

    uncertain: Uncertain = "unknown"
    threshold: float | None = None


DEFAULT_POLICY = LabelPolicy()


def read_cell(cell: str | None, policy: LabelPolicy = DEFAULT_POLICY) -> tuple[int | None, bool]:
    """(1, 0 or None = unknown; whether the cell was uncertain).

    Raises:
        ValueError: the cell is no label, with what it is as the message.
    """
    text = " ".join((cell or "").split()).casefold()
    if _NUMBER.fullmatch(text):
        number = float(text.replace(",", "."))
        if number in (0.0, 1.0, -1.0):
            text = str(int(number))
        elif 0 < number < 1:
            if policy.threshold is None:
                raise ValueError("soft")
            return int(number >= policy.threshold), False
    if text in PRESENT:
        return 1, False
    if text in ABSENT:
        return 0, False
    if text in UNKNOWN:
        return None, False
    if text in UNCERTAIN:
        return {"unknown": None, "present": 1, "absent": 0}[policy.uncertain], True
    raise ValueError("no label")


@dataclass(frozen=True)
class LabelColumn:
    """A column of labels: (rows,) of 1, 0 or None, and the number of uncertain cells."""

    values: list[int | None]
    uncertain: int


def read_column(cells: Sequence[str | None], column: str, policy: LabelPolicy, *, numbers: Sequence[int] | None = None) -> LabelColumn:
    """The labels of one column.

    Args:
        numbers: row number of each cell, for errors; None: 1, 2, 3 and so on.

    Raises:
        LabelsError: a cell that is no label: row, column, the cell where it is a number or a short word, and the option that helps.
    """
    known: dict[str | None, tuple[int | None, bool]] = {}
    values: list[int | None] = []
    uncertain = 0
    for place, cell in enumerate(cells):
        if cell not in known:
            try:
                known[cell] = read_cell(cell, policy)
            except ValueError as fault:
                raise _no_label(cell or "", column, numbers[place] if numbers else place + 1, soft=str(fault) == "soft") from None
        value, unsure = known[cell]
        values.append(value)
        uncertain += unsure
    return LabelColumn(values, uncertain)


def _no_label(cell: str, column: str, row: int, *, soft: bool) -> LabelsError:
    text = cell.strip()
    shown = repr(text) if _HARMLESS.fullmatch(text.casefold()) else "text that is no label"
    if soft:
        return LabelsError(
            f"row {row} of the labels, column {column!r}, holds {shown}",
            why="a number between 0 and 1 is a soft label",
            hint="--label-threshold 0.5 to call it present from there on",
        )
    return LabelsError(
        f"row {row} of the labels, column {column!r}, holds {shown}",
        why="labels are 1 or yes (present), 0 or no (absent), -1 (uncertain), and blank or NA (unknown)",
        hint="correct the cell, or rename the column if it holds no labels",
    )


def could_be_labels(cells: Sequence[str | None]) -> bool:
    """Whether a column holds nothing but labels, at least one of them known."""
    found = set()
    for cell in dict.fromkeys(cells):
        try:
            value, unsure = read_cell(cell, LabelPolicy(threshold=0.5))
        except ValueError:
            return False
        found.add(value if not unsure else -1)
    return bool(found & {0, 1})


@dataclass(frozen=True)
class FindingColumns:
    """Which columns of a table are findings.

    Attributes:
        columns: the table's column -> finding.
        unused: columns that hold labels and are no finding that is known.
        taken: what was recognised under another name, for the user.
    """

    columns: Mapping[str, str]
    unused: tuple[str, ...]
    taken: tuple[str, ...]


def match_findings(
    columns: Mapping[str, Sequence[str | None]],
    findings: Sequence[str],
    *,
    rename: Mapping[str, str | None] | None = None,
    error: Callable[..., ConfigError] = LabelsError,
) -> FindingColumns:
    """The finding of each column: by `rename`, by its name in any spelling, then as a synonym of the public label sets.

    Args:
        columns: columns that have no other role -> their cells.
        findings: the findings that are known.
        rename: column -> finding, or None to drop it.

    Raises:
        error: two columns are one finding; or a column of labels is nearly called like a finding that has none (a typing error).
    """
    rename = rename or {}
    by_name = {plain_name(name): name for name in findings}
    synonyms = {word: name for name in findings for word in SYNONYMS.get(name, ()) if word not in by_name}
    named: dict[str, str] = {}
    taken: list[str] = []
    rest: list[str] = []
    for column in columns:
        if column in rename:
            if (renamed := rename[column]) is not None:
                _take(named, column, renamed, error)
        elif finding := by_name.get(plain_name(column)):
            _take(named, column, finding, error)
        else:
            rest.append(column)
    for column in list(rest):
        finding = synonyms.get(plain_name(column))
        if finding and finding not in named.values() and could_be_labels(columns[column]):
            named[column] = finding
            taken.append(f"{column!r} as {finding}")
            rest.remove(column)
    unused = tuple(column for column in rest if could_be_labels(columns[column]))
    for column in unused:
        near = near_finding(column, [name for name in findings if name not in named.values()])
        if near:
            raise error(
                f"column {column!r} is no finding, and nearly spelled like {near}",
                hint=f"correct it to {near}, or rename the column if it is another finding",
            )
    return FindingColumns(named, unused, tuple(taken))


def _take(named: dict[str, str], column: str, finding: str, error: Callable[..., ConfigError]) -> None:
    if earlier := next((other for other, name in named.items() if name == finding), None):
        raise error(f"columns {earlier!r} and {column!r} are the same finding, {finding}", hint="drop or rename one of them")
    named[column] = finding


def near_finding(column: str, findings: Sequence[str], cutoff: float = 0.84) -> str | None:
    """The finding that a column's name was perhaps meant to be."""
    names = {plain_name(finding): finding for finding in findings}
    match = difflib.get_close_matches(plain_name(column), names, n=1, cutoff=cutoff)
    return names[match[0]] if match else None


def split_listing(cell: str | None) -> list[str]:
    """The names in a cell that lists findings: joined by a bar, semicolon or comma, or a list as Python or JSON writes it.

    >>> split_listing("Edema|Pneumonia"), split_listing("['edema', 'pneumonia']"), split_listing("Edema")
    (['Edema', 'Pneumonia'], ['edema', 'pneumonia'], ['Edema'])
    """
    text = (cell or "").strip()
    if text.startswith("[") and text.endswith("]"):
        try:
            items = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            items = text[1:-1].split(",")
        names = [str(item).strip().strip("'\"") for item in items]
    else:
        separator = next((each for each in "|;," if each in text), None)
        names = [part.strip() for part in text.split(separator)] if separator else [text]
    return [name for name in dict.fromkeys(names) if plain_name(name) not in UNKNOWN]


@dataclass(frozen=True)
class Listing:
    """A column that lists findings by name.

    Attributes:
        names: (rows,) the findings that each row lists, as they are known; None where the cell is blank.
        findings: all findings of the column, in the order of their frequency.
    """

    names: list[tuple[str, ...] | None]
    findings: tuple[str, ...]


def listing_column(header: Sequence[str]) -> str | None:
    """The first column that is called as one that lists findings."""
    by_plain = {plain_name(name): name for name in reversed(header)}
    return next((by_plain[name] for name in LISTING_NAMES if name in by_plain), None)


def read_listing(cells: Sequence[str | None], column: str, findings: Sequence[str], *, open_set: bool = False) -> Listing:
    """The findings that a column lists.

    Args:
        findings: the findings that are known, also by their synonyms.
        open_set: take names that are not known as findings of their own (the user named the column).

    Raises:
        LabelsError: the column names what is no finding, unless `open_set`. Shows names that occur three times or more: such a name is
            a class, and no patient's.
    """
    known = {word: name for name in findings for word in SYNONYMS.get(name, ())} | {plain_name(name): name for name in findings}
    counts = Counter[str]()
    strange = Counter[str]()
    rows: list[tuple[str, ...] | None] = []
    for cell in cells:
        listed = split_listing(cell)
        names = []
        for each in listed:
            name = known.get(plain_name(each), each if open_set else None)
            if name is None:
                strange[each] += 1
            else:
                names.append(name)
        counts.update(names)
        rows.append(tuple(dict.fromkeys(names)) if listed else None)
    if strange:
        shown = [name for name, count in strange.most_common(6) if count >= 3]
        raise LabelsError(
            f"column {column!r} lists {len(strange)} names that are no known finding",
            why=", ".join(shown) or "none of them occurs three times",
            hint=f"--label-column {column!r} to take every name as a finding, or --findings for some of them",
        )
    return Listing(rows, tuple(name for name, _ in counts.most_common()))
