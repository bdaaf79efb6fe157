"""How often the polarity flag is right: every picture of a table as it is, and inverted.

    python tests/benchmarks/dicom_polarity.py TABLE.csv [--size 112]

TABLE.csv has the columns `file` (PNG or JPEG, relative to the table) and `view`; pictures are taken to be bone bright. Prints, per view,
how many pictures are flagged (false alarms) and how many of their negatives are (found).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

from engine.dicom.polarity import looks_inverted
from engine.dicom.reader import read_file


def main() -> int:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("table", type=Path)
    arguments.add_argument("--size", type=int, default=112)
    given = arguments.parse_args()
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    with given.table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            picture = read_file(given.table.parent / row["file"], size=given.size, pictures=True).picture
            if picture is None:
                continue
            for view in (row["view"] or "not told", "all"):
                counts[view][0] += 1
                counts[view][1] += looks_inverted(picture)
                counts[view][2] += looks_inverted(255 - picture)
    print(f"{'view':12} {'pictures':>8} {'flagged':>8} {'inverted: found':>16}")
    for view, (pictures, flagged, found) in sorted(counts.items()):
        print(f"{view:12} {pictures:8} {flagged:8} {found:8} {found / pictures:7.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
