"""What a table's labels say about each finding: present, absent, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.label_cells import (
    LabelPolicy,
    could_be_labels,
    listing_column,
    match_findings,
    near_finding,
    read_column,
    read_listing,
    split_listing,
)
from engine.data.sources.table_rows import Row
from engine.errors import ConfigError, LabelsError
from engine.recipe.section import plain_name
from engine.recipe.sources import CHEXPERT_FINDINGS, TableSource


@dataclass(frozen=True)
class Findings:
    """What one row says: findings that are there, findings that were looked for and are not; all others are unknown."""

    present: tuple[str, ...]
    absent: tuple[str, ...]
    contradicts: bool

    @property
    def values(self) -> dict[str, int]:
        """Finding -> 1 = present, 0 = absent."""
        return {**dict.fromkeys(self.absent, 0), **dict.fromkeys(self.present, 1)}


NOTHING = Findings((), (), contradicts=False)


@dataclass(frozen=True)
class TableFindings:
    """The labels of a table.

    Attributes:
        rows: what each row says, in the order of the rows given.
        named: findings that have a column, in the table's order.
        used: columns that labels were read from.
        unused: columns of labels that are no finding that is known, and are not learned.
        taken: columns that were recognised under another name, for the user.
        uncertain: number of uncertain cells.
        unread: why a column that is called as one that lists findings was not read: what, why and hint of an error for who needs labels.
    """

    rows: list[Findings]
    named: tuple[str, ...]
    used: tuple[str, ...]
    unused: tuple[str, ...]
    taken: tuple[str, ...]
    uncertain: int
    unread: tuple[str, str, str] | None = None


def table_findings(rows: Sequence[Row], others: Sequence[str], source: TableSource) -> TableFindings:
    """The labels of the rows, with what the recipe says they imply.

    Args:
        rows: the rows that are used.
        others: columns without another role.

    A row without any label says nothing at all: blank is not 0.

    Raises:
        LabelsError: a cell that is no label, two columns of one finding, or a column that is nearly called like a finding.
        ConfigError: a finding that the recipe names is no column.
    """
    known = tuple(dict.fromkeys((*source.exhaustive, *source.implies, *source.findings, *CHEXPERT_FINDINGS)))
    cells = {name: [row.cells.get(name, "") for row in rows] for name in others}
    if source.labels:
        return _listed(rows, source.labels, source, closed=source.unlisted == "absent")
    found = match_findings(cells, known, rename=source.rename)
    missing = [name for name in source.findings if name not in found.columns.values()]
    if missing and (found.columns or listing_column(others) is None):
        spelt = [name + (f" (did you mean {near!r}?)" if (near := near_finding(name, others, 0.6)) else "") for name in missing]
        raise ConfigError(f"the table has no column {', '.join(spelt)}", why=f"it has {', '.join(others)}", hint="check the name")
    numbers = [row.number for row in rows]
    if not found.columns:
        listing = listing_column(others)
        if listing is None or could_be_labels(cells[listing]):
            return TableFindings([NOTHING] * len(rows), (), (), found.unused, (), 0)
        try:
            return _listed(rows, listing, source, closed=True, known=None if source.findings else known)
        except LabelsError as fault:  # a recipe that reads reports, say, needs no labels
            return TableFindings([NOTHING] * len(rows), (), (), found.unused, (), 0, (fault.what, fault.why, fault.hint))
    read = {finding: read_column(cells[column], column, _policy(source), numbers=numbers) for column, finding in found.columns.items()}
    said = []
    for place in range(len(rows)):
        present = [name for name, each in read.items() if each.values[place] == 1]
        absent = [name for name, each in read.items() if each.values[place] == 0]
        said.append(implied(present, absent, source) if present or absent else NOTHING)
    return TableFindings(said, tuple(read), tuple(found.columns), found.unused, found.taken, sum(each.uncertain for each in read.values()))


def _policy(source: TableSource) -> LabelPolicy:
    return LabelPolicy(source.uncertain, source.label_threshold)


def _listed(rows: Sequence[Row], column: str, source: TableSource, *, closed: bool, known: Sequence[str] | None = None) -> TableFindings:
    """Labels of a column that lists findings.

    Args:
        closed: a finding that is not listed for an image, and is for others, is absent.
        known: the findings that the column may list, also as synonyms; None: `rename` and the column's own names, as the recipe says.
    """
    cells = [row.cells.get(column, "") for row in rows]
    if known is not None:
        listing = read_listing(cells, column, known)
        names = [None if each is None else list(each) for each in listing.names]
    else:
        wanted = {plain_name(name): name for name in (*source.findings, *source.exhaustive, *CHEXPERT_FINDINGS)}
        names = []
        for cell in cells:
            # a recipe's own column joins names by bars alone, and a name may hold a comma
            given = split_listing(cell) if closed or cell.startswith("[") else [each.strip() for each in cell.split("|") if each.strip()]
            listed = [source.rename.get(each, wanted.get(plain_name(each), each)) for each in given]
            names.append([each for each in listed if each] if given else None)
    everything = tuple(dict.fromkeys(name for each in names for name in each or ()))
    if missing := [name for name in source.findings if name not in everything]:
        raise ConfigError(
            f"column {column!r} never lists {', '.join(missing)}", why=f"it lists {', '.join(everything[:8])}", hint="check the spelling"
        )
    said = []
    for each in names:
        if each is None:
            said.append(NOTHING)
            continue
        absent = [name for name in everything if name not in each] if closed else []
        said.append(implied(each, absent, source))
    taken = f"{column!r} as a list of findings" + (", where one that is not listed for an image is absent" if closed else "")
    return TableFindings(said, everything if closed else (), (column,), (), () if source.labels else (taken,), 0)


def implied(present: Sequence[str], absent: Sequence[str], source: TableSource) -> Findings:
    """What follows from these findings by `implies` and `exhaustive` of the recipe."""
    there, gone = dict.fromkeys(present), dict.fromkeys(absent)
    waiting = list(present)
    while waiting:
        for finding, value in source.implies.get(waiting.pop(), {}).items():
            if value == 0:
                gone[finding] = None
            elif finding not in there:
                there[finding] = None
                waiting.append(finding)
    contradicts = any(finding in there for finding in gone)
    gone.update(dict.fromkeys(finding for finding in source.exhaustive if finding not in there))
    return Findings(tuple(sorted(there)), tuple(sorted(gone)), contradicts)
