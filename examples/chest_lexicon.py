"""The chest lexicon: radiology terms written by us, each with its label, from the plain file chest_lexicon.txt next to this script.

The notation is at the head of that file: one entry a line, `{a|b}` for one of several, `@name` for a named list, `[LABEL]` for a label.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from engine.errors import Fault, RecipeError

LEXICON = Path(__file__).with_name("chest_lexicon.txt")
LABELS = ("DISEASE", "FINDING", "DEVICE", "PROCEDURE")
"""The label scheme of chest_ner: what a BC5CDR or NCBI annotator would mark, what a radiograph shows, what was put in, what was done."""

_NAME = re.compile(r"@([a-z]+)")


@dataclass(frozen=True)
class Term:
    """One term of the lexicon: lower case, single spaces, and one of `LABELS`."""

    text: str
    label: str


def read_lexicon(file: Path = LEXICON) -> list[Term]:
    """Every term of the lexicon once, in the order of the file; a term under two labels keeps the first.

    Raises:
        RecipeError: entries that cannot be read, each with its line.
    """
    lists: dict[str, str] = {}
    terms: dict[str, Term] = {}
    faults: list[Fault] = []
    label = ""
    for number, raw in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            if line.startswith("[") and line.endswith("]"):
                label = line[1:-1]
                if label not in LABELS:
                    raise ValueError(f"unknown label {label}; the labels are {', '.join(LABELS)}")
            elif match := re.fullmatch(r"@([a-z]+)\s*=\s*(.+)", line):
                lists[match[1]] = "{" + "|".join(choice.strip() for choice in match[2].split("|")) + "}"
            elif not label:
                raise ValueError("a term stands before the first [LABEL]")
            else:
                for text in expand(line, lists):
                    terms.setdefault(text, Term(text, label))
        except ValueError as error:
            faults.append(Fault(number, "", str(error)))
    if faults:
        raise RecipeError(file.name, faults)
    return list(terms.values())


def expand(entry: str, lists: dict[str, str] | None = None) -> list[str]:
    """Every text that an entry represents, with single spaces. `lists` maps a name to its choices as `{a|b}`.

    Raises:
        ValueError: an unknown @name, or braces that do not close.
    """

    def choices_of(match: re.Match[str]) -> str:
        if match[1] not in (lists or {}):
            raise ValueError(f"no list is called @{match[1]}")
        return (lists or {})[match[1]]

    pieces = re.split(r"([{}|])", _NAME.sub(choices_of, entry))
    if "|" in pieces and "{" not in pieces:
        raise ValueError(f"choices stand outside braces in {entry[:40]!r}")
    texts, rest = _alternatives(pieces, 0)
    if rest != len(pieces):
        raise ValueError(f"braces do not open in {entry[:40]!r}")
    return list(dict.fromkeys(" ".join(text.split()) for text in texts))


def _alternatives(pieces: list[str], start: int) -> tuple[list[str], int]:
    """The texts of the choices that start at `start`, and the place of the brace that closes them (the end, at the outermost level)."""
    done: list[str] = []
    current = [""]
    place = start
    while place < len(pieces):
        piece = pieces[place]
        if piece == "}":
            break
        if piece == "|":
            done += current
            current = [""]
        elif piece == "{":
            inner, place = _alternatives(pieces, place + 1)
            if place == len(pieces):
                raise ValueError("braces do not close")
            current = [before + after for before, after in product(current, inner)]
        else:
            current = [before + piece for before in current]
        place += 1
    return done + current, place
