"""How often the flag `burned_in` is right about a picture, on patients that its weights never saw.

    python tests/benchmarks/dicom_burned_in.py MANIFEST.csv --seen examples/text_in_pictures.csv [--corpus FOLDER]

MANIFEST.csv as for examples/train_text_check.py, whose half of the patients that is left for measuring is read here. Two forms of every
picture are asked: as it is, and enlarged to a shorter side of 512 with a little noise, as a large radiograph looks once it was averaged
down. Recall: text drawn into the enlarged form of every third picture without text, by the height of its capitals (a share of the shorter
side) and its number of lines; and pictures that came with text, as an eye saw it (SEEN.csv; it looked at what earlier versions of the
check put forward, so that figure flatters). Precision is given for text in one picture in two, one in ten (of the adults here it is one
in five), and one in fifty. With --corpus, every DICOM file below FOLDER that is scored and flagged is named. Seeded.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from engine.dicom.burned_in_text import shows_text
from engine.intake.reader import read_file

SIDE = 512
HEIGHTS = (0.008, 0.01, 0.014, 0.02, 0.03, 0.04)
LINES = (1, 2, 3, 6)
CHILDREN_KEPT = 3000
DRAWN_INTO = 3
"""Text is drawn into every so many of the pictures."""
RARE = 0.02
GROUPS = {"no": "without text", "yes": "with text", "unsure": "unsure"}


def drawing() -> Any:
    """The module examples/train_text_check.py, which knows how text is drawn and who is left for measuring."""
    path = Path(__file__).resolve().parents[2] / "examples" / "train_text_check.py"
    spec = importlib.util.spec_from_file_location("train_text_check", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("manifest", type=Path)
    arguments.add_argument("--seen", type=Path, required=True)
    arguments.add_argument("--corpus", type=Path)
    arguments.add_argument("--list", action="store_true", help="name the pictures without text that are flagged")
    given = arguments.parse_args()
    draw, rng = drawing(), np.random.default_rng(7)
    with given.seen.open(encoding="utf-8", newline="") as file:
        seen = {row["file"]: row["text"] for row in csv.DictReader(file)}
    with given.manifest.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if draw.is_left_for_measuring(row["patient_id"])]
    children = [row for row in rows if row["set"] == draw.CHILDREN]
    rows = [row for row in rows if row["set"] != draw.CHILDREN] + [children[n] for n in rng.permutation(len(children))[:CHILDREN_KEPT]]
    alarms: defaultdict[tuple[str, str], list[list[bool]]] = defaultdict(list)
    found: defaultdict[tuple[float, int], list[bool]] = defaultdict(list)
    spent, asked = 0.0, 0
    for number, row in enumerate(rows):
        picture = draw.loaded(given.manifest.parent / row["file"])
        large = draw.enlarged(picture, SIDE, rng)
        text = seen.get(row["file"], "no")
        began = time.process_time()
        answers = [shows_text(picture), shows_text(large)]
        spent, asked = spent + time.process_time() - began, asked + 2
        alarms[text, row["set"]].append(answers)
        alarms[text, "all"].append(answers)
        if text == "no" and any(answers) and given.list:
            print("flagged without text:", row["file"], answers)
        if text != "no" or number % DRAWN_INTO:
            continue
        for height in HEIGHTS:
            for many in LINES if height <= 0.02 else LINES[:1]:
                with_text = draw.burnt(large, rng, height * SIDE, many)
                if with_text is not None:
                    found[height, many].append(shows_text(with_text[0]))
    print(f"{'pictures':44}{'number':>8}{'flagged as they are':>21}{'flagged enlarged':>18}")
    for (text, name), flags in sorted(alarms.items()):
        shares = np.mean(flags, 0)
        print(f"{GROUPS[text] + ', ' + name:44}{len(flags):8}{shares[0]:21.1%}{shares[1]:18.1%}")
    print("\nrecall of text drawn, by height of the capitals and lines\n" + " " * 8 + "".join(f"{many:>8}" for many in LINES))
    for height in HEIGHTS:
        cells = (f"{np.mean(found[height, many]):8.1%}" if (height, many) in found else f"{'':8}" for many in LINES)
        print(f"{height:8.1%}" + "".join(cells))
    wrong = float(np.mean(np.array(alarms["no", "all"])[:, 1]))
    right = float(np.mean([answer for (height, _), answers in found.items() if height >= 0.01 for answer in answers]))
    for share, words in ((0.5, "one picture in two"), (0.1, "one in ten"), (RARE, "one in fifty")):
        print(f"capitals of 1 % and more: recall {right:.1%}, false alarms {wrong:.2%}, precision with text in {words}: ", end="")
        print(f"{share * right / (share * right + (1 - share) * wrong):.1%}")
    print(f"{1000 * spent / asked:.2f} ms a picture")
    if given.corpus:
        for path in sorted(path for path in given.corpus.rglob("*") if path.is_file()):
            reading = read_file(path, size=224)
            if "burned_in" in reading.flags and reading.image is not None:
                print("flagged:", path.relative_to(given.corpus))
    return 0


if __name__ == "__main__":
    sys.exit(main())
