"""The text of a report: cleaned, and for MIMIC-CXR cut into its sections and reduced to the one that is trained on.

`clean` gives the one text that is both tokenised and searched for entities, so that the offsets of both mean the same characters.
Lower-casing is left to the tokenizer, whose offsets point into the text as it was given.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise

from engine.errors import ReadError

PRIORITY = ("impression", "findings", "last paragraph", "comparison")
"""The section that represents the report: the first of these that holds text, as in MIMIC-CXR's own section tool."""

HEADERS = {
    "impression": (
        "impression",
        "impressions",
        "imp",
        "conclusion",
        "conclusions",
        "opinion",
        "findings and impression",
        "findings/impression",
        "impresion",
        "impresion diagnostica",
        "conclusiones",
    ),
    "findings": ("findings", "finding", "reference findings", "report", "discussion", "hallazgos", "informe", "descripcion"),
    "comparison": ("comparacion", "comparison", "comparisons", "comparison exam", "comparison film", "comparison study", "reference exam"),
    "indication": (
        "indication",
        "indications",
        "reason for exam",
        "reason for examination",
        "reason for this examination",
        "clinical indication",
        "indicacion",
    ),
    "history": ("history", "clinical history", "patient history", "clinical information", "pfi", "medical condition"),
    "examination": ("examination", "exam", "type of examination", "study", "procedure"),
    "technique": ("technique",),
    "recommendations": ("recommendation", "recommendations", "recommendation(s)"),
    "notification": ("notification", "notifications", "notification(s)"),
    "wet read": ("wet read", "wetread", "preliminary report"),
    "addendum": ("addendum",),
    "date": ("date",),
    "comment": ("comment", "comments"),
}
"""Section -> its headers as reports spell them, in lower case; misspelt ones are found by likeness (`section_of`)."""

_NAMES = {header: section for section, headers in HEADERS.items() for header in headers}
_LONG_NAMES = [header for header in _NAMES if len(header) >= 7]
_VIEW = re.compile(r"\b(chest|views?|portable|radiographs?|lateral)\b")
_HEADER = re.compile(r"^[ \t]*([A-Za-zÀ-ÿ][A-Za-zÀ-ÿ ()/,&'-]{0,70}?)[ \t]*:", re.MULTILINE)
_INLINE = re.compile(
    r"(?<=[.;?!])[ \t]+(FINDINGS?|IMPRESSIONS?|CONCLUSIONS?|COMPARISON|INDICATION|IMPRESI[OÓ]N|CONCLUSI[OÓ]N|HALLAZGOS)[ \t]*:"
)
"""Headers in capitals after a sentence, in a report of one line."""
_REFERS = re.compile(
    r"(?:please )?(?:as|see|same as|per)\b(?: (?:the|noted|described|stated|detailed|discussed|mentioned|per|in|body|of|full|report|"
    r"findings?|comments?|above|below|dictated|text|section|impression))*|no impression|none|n/?a|not applicable|"
    r"ver (?:informe|hallazgos|arriba)",
    re.IGNORECASE,
)
"""A section that only refers to another one."""
_STOP = re.compile(r"\b(RECOMMENDATION|NOTIFICATION)(?:S|\(S\))?[ \t]*:")
_BANNER = re.compile(r"^[ \t]*(?:FINAL REPORT:?|FINAL ADDENDUM|INTERIM REPORT|WET READ VERSION.*)[ \t]*$", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_LFS_POINTER = "version https://git-lfs.github.com/spec/"

_MASK = re.compile(r"_{2,}|\bX{4,}\b")  # MIMIC writes ___, Indiana XXXX where a name, a date or a number stood
_SPACE_BEFORE = re.compile(r"\s+(?=[.,;:)])(?![.]\d)")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u2060\ufeff]")


def clean(text: str) -> str:
    """The text on one line: masks of removed words taken out, line breaks and runs of white space made single spaces.

    Case is kept. Characters are composed (NFC), since a tokenizer's own NFC leaves the second half of "e" + accent without offsets.
    Cleaning twice changes nothing more. Lone surrogates, which no tokenizer takes, become question marks.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = _MASK.sub(" ", unicodedata.normalize("NFC", _CONTROL.sub("", text)))
    return " ".join(_SPACE_BEFORE.sub("", text).split())


def says_something(text: str) -> bool:
    """Whether a cleaned section says something itself: it has a letter, and does not only refer to another section ("As above.")."""
    plain = text.strip(" .,;:!-*/()")
    return any(char.isalpha() for char in plain) and _REFERS.fullmatch(plain) is None


@dataclass(frozen=True)
class ReportText:
    """The text of a report that is trained on, and the section that it comes from; "" and "none" where no section says anything.

    passed_over: sections of higher priority that hold no letter, or only refer to another section.
    """

    text: str
    section: str
    passed_over: tuple[str, ...] = ()


def report_text(text: str) -> ReportText:
    """What a MIMIC-CXR report says, cleaned: the first of its impression, findings, last paragraph and comparison that says something.

    Raises:
        ReadError: the text is a Git-LFS pointer.
    """
    return first_section(sections(text), PRIORITY)


def first_section(found: Mapping[str, str], priority: Sequence[str]) -> ReportText:
    """The first section in order of priority that says something itself; see `says_something`."""
    passed: list[str] = []
    for name in priority:
        if found.get(name):
            if says_something(found[name]):
                return ReportText(found[name], name, tuple(passed))
            passed.append(name)
    return ReportText("", "none", tuple(passed))


def section_counts(reports: Iterable[ReportText]) -> dict[str, int]:
    """Section -> reports whose text comes from it; and `passed over: SECTION` for those that say nothing themselves."""
    counts = Counter[str]()
    for each in reports:
        counts[each.section] += 1
        counts.update(f"passed over: {name}" for name in each.passed_over)
    return dict(sorted(counts.items()))


def sections(text: str) -> dict[str, str]:
    """Sections of a MIMIC-CXR report that hold text, by the names of `HEADERS`, cleaned, in the order of the report.

    A header is at the start of a line and ends in a colon. Headers of another kind ("HEART:", "BONES:") stay in the section they
    are in. Of two sections of one name the later stays, as it is the corrected one. Without impression and findings, what follows the
    first paragraph of the last section is the "last paragraph"; in a text without any header, all of it is. A section ends where
    RECOMMENDATION(S): or NOTIFICATION(S): stands, even inside a line.

    Raises:
        ReadError: the text is a Git-LFS pointer: the file itself was never fetched.
    """
    if text.lstrip().startswith(_LFS_POINTER):
        raise ReadError("a report is a Git-LFS pointer, not a text", hint="git lfs pull in the folder of the reports")
    pieces = [(name, body) for name, body in _pieces(text.replace("\r\n", "\n")) if clean(body)]
    if not any(name in {"impression", "findings"} for name, _ in pieces):
        pieces = _with_last_paragraph(pieces)
    found: dict[str, str] = {}
    for name, body in pieces:
        if name and clean(body):
            found.pop(name, None)
            found[name] = clean(body)
    return found


def section_of(header: str) -> str | None:
    """The section that a header opens, None for a header that opens none.

    Capitals may be misspelt ("IMPRESSOIN", "FINDNGS", but not as far as "COMPRESSION") or name the view ("CHEST, TWO VIEWS": findings);
    other spellings must be exact.
    """
    name = " ".join(_without_accents(header.lower()).split())
    if name in _NAMES:
        return _NAMES[name]
    if not header.isupper():
        return None
    if near := get_close_matches(name, _LONG_NAMES, n=1, cutoff=0.87):
        return _NAMES[near[0]]
    return "findings" if _VIEW.search(name) else None


def _without_accents(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))


def _pieces(text: str) -> list[tuple[str, str]]:
    """(section, raw text) in the order of the report; "" names what no header announces."""
    marks = [(match.start(), match.end(), section) for match in _HEADER.finditer(text) if (section := section_of(match[1]))]
    marks += [(match.start(), match.end(), section_of(match[1]) or "") for match in _STOP.finditer(text)]
    if "\n" not in text.strip():
        marks += [(match.start(), match.end(), section_of(match[1]) or "") for match in _INLINE.finditer(text)]
    marks += [(match.start(), match.end(), "") for match in _BANNER.finditer(text)]
    marks = sorted({end: (start, end, section) for start, end, section in sorted(marks, reverse=True)}.values())
    borders = [(0, 0, ""), *marks, (len(text), len(text), "")]
    return [(name, text[end:following]) for (_, end, name), (following, _, _) in pairwise(borders)]


def _with_last_paragraph(pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pieces, with the last paragraphs of the last telling section cut off as a section of their own."""
    telling = [place for place, (name, _) in enumerate(pieces) if name not in {"recommendations", "notification", "wet read"}]
    if not telling:
        return pieces
    name, body = pieces[telling[-1]]
    first, rest = "", body
    if name:
        first, _, rest = body.partition(split[0]) if (split := _PARAGRAPH.search(body.rstrip())) else (body, "", "")
    return [*pieces[: telling[-1]], (name, first), ("last paragraph", rest), *pieces[telling[-1] + 1 :]]
