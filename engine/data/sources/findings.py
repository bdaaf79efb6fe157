"""What a table's labels say about each finding: present, absent, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import ConfigError
from engine.recipe.sources import CHEXPERT_FINDINGS, TableSource

PRESENT = frozenset({"1", "1.0", "true", "True"})
ABSENT = frozenset({"0", "0.0", "false", "False"})
UNKNOWN = frozenset({"", "-1", "-1.0", "nan", "NaN", "null"})


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


def finding_columns(header: Sequence[str], source: TableSource) -> dict[str, str]:
    """The table's finding columns -> findings: those that `rename` names, and those named as one of the 14, in any case.

    {} where `labels` is set.
    """
    if source.labels:
        return {}
    known = {_bare(name): name for name in (*source.exhaustive, *source.implies, *CHEXPERT_FINDINGS)}
    named = {column: source.rename.get(column, known.get(_bare(column))) for column in header}
    columns = {column: finding for column, finding in named.items() if finding}
    if len(set(columns.values())) < len(columns):
        raise ConfigError(
            "two columns of the table are the same finding", why="see `rename`", hint="drop one with `rename: {column: null}`"
        )
    return columns


def _bare(name: str) -> str:
    return name.strip().replace("_", " ").casefold()


def findings_of(cells: Mapping[str, str], columns: Mapping[str, str], source: TableSource) -> Findings:
    """What one row says, with what the recipe says it implies.

    Args:
        cells: the row by the table's own column names.
        columns: from `finding_columns`.

    A row without any label says nothing at all: blank is not 0.

    Raises:
        ConfigError: a finding column holds something that is no label.
    """
    if source.labels:
        labels = [name.strip() for name in cells.get(source.labels, "").split("|") if name.strip()]
        named = [name for name in (source.rename.get(label, label) for label in labels) if name]
        denied: list[str] = []
    else:
        labels = [column for column in columns if cells.get(column, "").strip() not in UNKNOWN]
        named, denied = _celled(cells, columns)
    if not labels:
        return Findings((), (), contradicts=False)
    present, absent = dict.fromkeys(named), dict.fromkeys(denied)
    waiting = list(named)
    while waiting:
        for finding, value in source.implies.get(waiting.pop(), {}).items():
            if value == 0:
                absent[finding] = None
            elif finding not in present:
                present[finding] = None
                waiting.append(finding)
    contradicts = any(finding in present for finding in absent)
    absent.update(dict.fromkeys(finding for finding in source.exhaustive if finding not in present))
    return Findings(tuple(sorted(present)), tuple(sorted(absent)), contradicts)


def _celled(cells: Mapping[str, str], columns: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Findings that a row's cells call present, and absent."""
    present, absent = [], []
    for column, finding in columns.items():
        cell = cells.get(column, "").strip()
        if cell in PRESENT:
            present.append(finding)
        elif cell in ABSENT:
            absent.append(finding)
        elif cell not in UNKNOWN:
            raise ConfigError(
                f"column {column} holds something that is no label",
                why="labels are 1 (present), 0 (absent), -1 (uncertain) and blank (unknown)",
                hint=f"write 1, 0 or nothing, or leave the column out with `rename: {{{column}: null}}`",
            )
    return present, absent
