"""What do the label tables of published data sets say, part by part? The rows of "Data sets with labels" in recipes/README.md.

    python examples/count_labels.py chexpert=FOLDER nih14=FOLDER rsna=FOLDER covidx=FOLDER padchest_evaluation=FOLDER [--findings]

Each folder is laid out as its data set is published (engine/data/sources/layouts.py); tables are enough, pictures need not be there.
Of each part: images or studies, how many of them have their picture, and the first 12 digits of the SHA-256 of their sorted names, which
a figure may quote to say what it was measured on.
With --findings each finding follows: present, absent. Ten seconds for the tables of NIH, RSNA and PadChest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import pydantic

from engine.data.sources import READERS
from engine.errors import EngineError
from engine.recipe.sources import Source

PARTS: dict[str, list[dict[str, Any]]] = {
    "chexpert": [{"part": part} for part in ("train", "valid", "test")],
    "nih14": [
        {"part": "test"},
        *({"part": part, "split": "70_10_20"} for part in ("all", "test")),
        {"part": "valid", "labels": "google2019"},
        {"part": "test", "labels": "google2019"},
    ],
    "rsna": [{"part": part, "split": "70_15_15"} for part in ("all", "test")],
    "covidx": [{"release": release, "part": "test", "overlap": "leave_out"} for release in ("6", "8B", "9B")],
    "padchest_evaluation": [{"findings": findings} for findings in ("seen_8", "unseen_10", "unseen_20", "unseen_173")],
}
"""Kind -> the keys of each row that is printed."""


def rows_of(kind: str, root: str, *, findings: bool) -> Iterator[str]:
    """One line of Markdown for each part, and with `findings` one for each of its findings."""
    adapter: pydantic.TypeAdapter[Source] = pydantic.TypeAdapter(Source)
    for keys in PARTS[kind]:
        source = adapter.validate_python({"kind": kind, "root": root, **keys})
        said = ", ".join(f"{key}: {value}" for key, value in keys.items() if key != "overlap")
        try:
            facts = READERS[kind](source).facts
        except EngineError as error:
            yield f"| {kind} | {said} | not read: {error.what} | | | | |"
            continue
        split = facts["split"]
        units = "studies" if split["unit"] == "study" else "images"
        yield (
            f"| {kind} | {said} | {split['name']} | {split['n']:,} {units} | {split['there']:,} | `{split['sha256'][:12]}` | "
            f"{len(split['present'])} |"
        )
        if findings:
            yield from (
                f"|  | {name} | {count:,} present | {split['absent'][name]:,} absent |  |  |  |" for name, count in split["present"].items()
            )


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="KIND=FOLDER", help=f"kinds: {', '.join(PARTS)}")
    parser.add_argument("--findings", action="store_true", help="count each finding too")
    options = parser.parse_args()
    named = [folder.partition("=") for folder in options.folders]
    if strange := [kind for kind, _, folder in named if kind not in PARTS or not folder]:
        parser.error(f"not KIND=FOLDER: {', '.join(strange)}")
    sys.stdout.write("| kind | keys | split | counted | with picture | SHA-256 | findings |\n|---|---|---|---|---|---|---|\n")
    for kind, _, folder in named:
        for row in rows_of(kind, folder, findings=options.findings):
            sys.stdout.write(row + "\n")


if __name__ == "__main__":
    main()
