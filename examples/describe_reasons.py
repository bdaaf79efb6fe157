"""Write engine/dicom/REASONS.md, the page of every reason code and flag, from engine/dicom/reasons.py.

python examples/describe_reasons.py
"""

from __future__ import annotations

from pathlib import Path

from engine.dicom import reasons, selection

PAGE = Path(reasons.__file__).with_name("REASONS.md")
HEADINGS = {
    "reject": "reject: not scored, by policy or because of damage",
    "skip": "skip: not an input of mmclip, or not yet",
    "duplicate": "duplicate: the same content earlier in the run",
}
INTRODUCTION = """# Reasons and flags

Every input file has one row in `images.csv` with one `outcome`. Outcome `score` has no `reason`, only `flags`; `reject`, `skip` and
`duplicate` have one reason of the closed lists below. `report.html` and the summary of `mmclip score` count them.

**failed** marks reasons of files that are damaged or unreadable: they make the exit code of `mmclip score` 1, unless `--fail-on never` is
given. The other reasons are decisions: exit code 0, unless `--fail-on reject` is given.
"""
SELECTION = "What tags decide, and what happens where they are blank:\n"
RULES = "Where several faults meet, the first of this order names the file:\n"


def page() -> str:
    """The page as Markdown: a table per outcome, the order of the reasons, the flags."""
    order = (reasons.__doc__ or "").partition(RULES)[2]
    decides = (selection.__doc__ or "").partition(SELECTION)[2]
    lines = [INTRODUCTION]
    for outcome, heading in HEADINGS.items():
        lines += [f"## {heading}", "", "| reason | | what it means | what to do |", "|---|---|---|---|"]
        for code, reason in sorted(reasons.REASONS.items()):
            if reason.outcome == outcome:
                failed = "failed" if code in reasons.FAILURES else ""
                lines.append(f"| `{code}` | {failed} | {_cell(reason.meaning)} | {_cell(reason.advice)} |")
        lines.append("")
    lines += ["## Which reason, where there are several", "", RULES, *(line.strip() for line in order.strip().splitlines()), ""]
    lines += ["## Which images are scored", "", SELECTION, *(line.removeprefix("  ") for line in decides.rstrip().splitlines()), ""]
    lines += ["## Flags of scored images", "", "| flag | what it means | what to do |", "|---|---|---|"]
    lines += [f"| `{flag}` | {_cell(reasons.FLAGS[flag])} | {_cell(reasons.FLAG_ADVICE[flag])} |" for flag in sorted(reasons.FLAGS)]
    lines += ["", "Generated from reasons.py and selection.py by `python examples/describe_reasons.py`.", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text for a cell of a table in Markdown; what is between backticks stays as it is."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if code % 2 else part.replace("*", "\\*").replace("_", "\\_") for code, part in enumerate(parts))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
