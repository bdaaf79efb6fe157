"""Read a corpus of DICOM files and compare every outcome with its index; exits 1 on any difference.

    python tests/benchmarks/dicom_corpus.py FOLDER INDEX.csv [--size 224] [--workers 2] [--verbose]

INDEX.csv has the columns `file` (relative to FOLDER), `expected_outcome`, `reason` (a code, or `flag:` codes of scored files separated by
commas) and `note`. A note of the form `or reject:CODE` names an alternative. Three kinds of rows are counted apart from differences:
  alternative  what the note allows;
  copy         expected to score, and a duplicate of a file of the same run that did: the index judges files one by one;
  policy       the differences listed in POLICY, where we hold another view, each with its reason.
Flags that the index does not ask for are no difference, missing ones are.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from engine.intake.duplicates import DuplicateIndex
from engine.intake.files import WalkedFile, find_files
from engine.intake.read_result import ReadResult
from engine.intake.workers import read_files

POLICY = {
    ("decode_error", "truncated"): "a codestream cut short is truncated, whatever a decoder makes of it",
    ("not_dicom", "archive"): "a gzip file is an archive in every folder",
    ("corrupt_header", "wrong_modality"): "what the intact part of a header rules out is not called damaged",
    ("corrupt_header", "unsupported_sop_class"): "what the intact part of a header rules out is not called damaged",
    ("corrupt_header", "truncated"): "a file that is nothing but a preamble ends early",
    (
        "missing_attribute",
        "corrupt_header",
    ): "a meta group or deflated stream that cannot be followed is corrupt, whatever is missing after it",
    (
        "missing_attribute",
        "unsupported_sop_class",
    ): "a modality, or a class in the meta group, that is no radiograph's rules a file out although the data set names no class",
    ("wrong_modality", "corrupt_header"): "a meta group that cannot be followed: what comes after it is not guessed",
    ("wrong_modality", "unsupported_sop_class"): "damaged before any pixel attribute: nothing says that there is a picture",
}
"""(expected, got) reason -> why ours differs."""


def readings_of(folder: Path, size: int, workers: int) -> list[ReadResult]:
    """All files of a folder in the order of the walk, settled."""
    found = list(find_files([folder]))
    read = read_files((item.path for item in found if item.outcome is None), size=size, workers=workers)
    duplicates = DuplicateIndex()
    settled = [duplicates.resolve(_decided(item) if item.outcome else next(read)) for item in found]
    return [replace(each, flags=duplicates.final_flags(each)) for each in settled]


def _decided(item: WalkedFile) -> ReadResult:
    assert item.outcome is not None
    return ReadResult(item.path, item.outcome, item.reason)


def verdict(reading: ReadResult, outcome: str, reason: str, note: str) -> str:
    """'same', 'alternative', 'copy', 'policy', 'flags' (a flag is missing), 'reason' or 'outcome' (what differs)."""
    if reading.outcome == outcome == "score":
        wanted = {flag.removeprefix("flag:") for flag in reason.split(",") if flag}
        return "same" if wanted <= set(reading.flags) else "flags"
    if (reading.outcome, reading.reason) == (outcome, reason):
        return "same"
    if f"{reading.outcome}:{reading.reason}" in re.findall(r"\bor ([a-z]+:[a-z_]+)", note):
        return "alternative"
    if "else score + flag" in note and reading.outcome == "score" and "view_unknown" in reading.flags:
        return "alternative"
    if (reading.outcome, outcome) == ("duplicate", "score"):
        return "copy"
    if (reason, reading.reason) in POLICY and "score" not in (outcome, reading.outcome):
        return "policy"
    return "reason" if reading.outcome == outcome else "outcome"


def main() -> int:
    """Print the table of expected and got outcomes and every difference."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("index", type=Path)
    arguments.add_argument("--size", type=int, default=224)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--verbose", action="store_true", help="also list what is counted apart")
    given = arguments.parse_args()
    with given.index.open(encoding="utf-8", newline="") as file:
        index = {row["file"]: row for row in csv.DictReader(file)}
    began = time.monotonic()
    got = {str(reading.path.relative_to(given.folder)): reading for reading in readings_of(given.folder, given.size, given.workers)}
    seconds = time.monotonic() - began
    verdicts: Counter[str] = Counter()
    table: Counter[tuple[str, str, str]] = Counter()
    lines = []
    for file, row in index.items():
        reading = got.pop(file, None)
        expected = (row["expected_outcome"], row["reason"])
        kind = "lost" if reading is None else verdict(reading, *expected, row["note"])
        verdicts[kind] += 1
        answer = "nothing" if reading is None else ":".join(filter(None, (reading.outcome, reading.reason, ",".join(reading.flags))))
        short = expected[0] if expected[0] == "score" else ":".join(expected)
        table[short, answer if reading is None or reading.outcome != "score" else "score", kind] += 1
        if kind != "same" and (given.verbose or kind not in ("alternative", "copy", "policy")):
            lines.append(f"{kind:12} {':'.join(filter(None, expected)):42} {answer:42} {file}")
    print(f"{'expected':36} {'got':36} {'verdict':12} files")
    for (expected_text, answer, kind), count in sorted(table.items()):
        print(f"{expected_text:36} {answer:36} {kind:12} {count:5}")
    for line in sorted(lines):
        print(line)
    print(
        f"{len(index)} files in {seconds:.1f} s, {len(got)} more in the folder than in the index: "
        + ", ".join(f"{k} {v}" for k, v in verdicts.items())
    )
    return int(any(verdicts[kind] for kind in ("lost", "flags", "reason", "outcome")))


if __name__ == "__main__":
    sys.exit(main())
