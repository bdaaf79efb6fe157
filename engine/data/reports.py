"""The text of a report: cleaned, and for MIMIC-CXR cut into its sections and reduced to the one that is trained on.

`clean` gives the one text that is both tokenised and searched for entities, so that the offsets of both mean the same characters.
Lower-casing is left to the tokenizer, whose offsets point into the text as it was given.
"""

from __future__ import annotations

import re


PRIORITY = ("impression", "findings", "last paragraph", "comparison")
"""The section that stands for the report: the first of these that holds text (design of MIMIC-CXR's own section tool)."""

_MASK = re.compile(r"_{2,}|\bX{4,}\b")  # MIMIC writes ___, Indiana XXXX where a name, a date or a number stood
_SPACE_BEFORE = re.compile(r"\s+(?=[.,;:)])(?![.]\d)")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u2060\ufeff]")


def clean(text: str) -> str:
    """The text on one line: masks of removed words taken out, line breaks and runs of white space made single spaces.

    Case is kept. Cleaning twice changes nothing more. Lone surrogates, which no tokenizer takes, become question marks.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = _MASK.sub(" ", _CONTROL.sub("", text))
    return " ".join(_SPACE_BEFORE.sub("", text).split())
