"""How often the flags `orientation` and `out_of_distribution` are right, on pictures that their weights never saw.

    python tests/benchmarks/dicom_picture_checks.py MANIFEST.csv [--corpus FOLDER INDEX.csv] [--size 112]

MANIFEST.csv as for examples/train_picture_checks.py; of the sets that it learns from only the patients left for measuring are read.
Every frontal picture is asked as it is (what is flagged is a false alarm) and in the seven other ways to hang it. Precision is given
twice: for as many faulty pictures as right ones, and for one in a hundred, a guess at what an archive holds. Laterals are asked whether
they look strange. With --corpus, files of INDEX.csv (columns `file`, `modality`, `seen_by_eye`) that are no chest are decoded whatever
their header says, and noise and test patterns are made: how many look strange.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import logging
import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from engine.dicom.likeness import picture_flags
from engine.dicom.reader import read_file

LEARNT_FROM = frozenset({"kermany-224", "nih14-subset"})
WAYS = ("as it is", "90", "180", "270", "mirrored", "mirrored 90", "upside down", "mirrored 270")
RARE = 0.01


def is_left_for_measuring(row: dict[str, str]) -> bool:
    """The split of examples/train_picture_checks.py."""
    place = int(hashlib.sha256(f"picture checks:{row['patient_id']}".encode()).hexdigest(), 16) % 10
    return row["set"] not in LEARNT_FROM or place >= 8


def hung(picture: NDArray[np.uint8], way: int) -> NDArray[np.uint8]:
    """One of the eight ways, for pictures that are not square."""
    return np.rot90(picture if way < 4 else picture[:, ::-1], way % 4)


def made_up() -> list[tuple[str, NDArray[np.uint8]]]:
    """Noise of four grains, checks, stripes, discs: ten of each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:128, 0:128]
    pictures: list[tuple[str, NDArray[np.uint8]]] = []
    for _ in range(10):
        for grain in (1, 4, 16, 32):
            noise = np.kron(rng.integers(0, 256, (128 // grain, 128 // grain)), np.ones((grain, grain)))
            pictures.append((f"noise of grain {grain}", noise.astype(np.uint8)))
        step, turn, radius = rng.integers(6, 24), rng.uniform(0, np.pi), rng.integers(15, 60)
        pictures.append(("checks", (255 * ((x // step + y // step) % 2)).astype(np.uint8)))
        pictures.append(("stripes", (127 + 127 * np.sin((x * np.cos(turn) + y * np.sin(turn)) / step * 3)).astype(np.uint8)))
        pictures.append(("disc", (255 * (np.hypot(x - 64, y - 64) < radius)).astype(np.uint8)))
    return pictures


def strangers(folder: Path, index: Path) -> list[tuple[str, NDArray[np.uint8]]]:
    """(kind, picture) of every different picture of the corpus that is no chest radiograph."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    found, seen = [], set()
    with index.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if "chest" not in row["seen_by_eye"].replace("tag CHEST", "")]
    for row in rows:
        try:
            data = pydicom.dcmread(folder / row["file"], force=True)
            if data.Rows * data.Columns > 3e7 or int(data.get("NumberOfFrames") or 1) > 50:
                continue
            values = np.asarray(data.pixel_array, np.float64)
        except Exception:
            continue
        while values.ndim > 2:
            values = values[..., 0] if values.shape[-1] in (3, 4) else values[len(values) // 2]
        key = hashlib.sha256(values.tobytes()).digest()
        low, high = np.percentile(values, (0.5, 99.5))
        if min(values.shape) < 64 or high <= low or key in seen:
            continue
        seen.add(key)
        grey = np.clip((values - low) / (high - low), 0, 1)
        grey = 1 - grey if data.get("PhotometricInterpretation") == "MONOCHROME1" else grey
        kind = row["seen_by_eye"] if row["seen_by_eye"] not in ("", "none") else f"modality {row['modality'] or 'not told'}"
        found.append((kind, np.rint(255 * grey).astype(np.uint8)))
    return found


def main() -> int:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("manifest", type=Path)
    arguments.add_argument("--corpus", type=Path, nargs=2, metavar=("FOLDER", "INDEX"))
    arguments.add_argument("--size", type=int, default=112)
    given = arguments.parse_args()
    pictures: Counter[str] = Counter()
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with given.manifest.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if is_left_for_measuring(row)]
    for row in rows:
        picture = read_file(given.manifest.parent / row["file"], size=given.size, pictures=True).picture
        if picture is None:
            continue
        lateral = row["view"] == "L"
        for group in ("laterals",) if lateral else (row["set"], "all frontal"):
            pictures[group] += 1
            for way in range(1 if lateral else 8):
                counts[group].update(f"{WAYS[way]}: {flag}" for flag in picture_flags(hung(picture, way)))
    print(f"{'':26}{'':>9}{'false alarms':>22}   orientation found when")
    print(f"{'set':26}{'pictures':>9}{'strange':>11}{'orientation':>12}  " + "".join(f"{way:>14}" for way in WAYS[1:]))
    for group, number in sorted(pictures.items()):
        told = counts[group]
        found = [told[f"{way}: orientation"] / number for way in WAYS[1:]] if group != "laterals" else []
        alarms = told["as it is: out_of_distribution"], told["as it is: orientation"]
        print(f"{group:26}{number:9}{alarms[0]:11}{alarms[1]:12}  " + "".join(f"{share:14.1%}" for share in found))
    number, told = pictures["all frontal"], counts["all frontal"]
    wrong = told["as it is: orientation"] / number
    for way in WAYS[1:]:
        recall = told[f"{way}: orientation"] / number
        rare = RARE * recall / (RARE * recall + (1 - RARE) * wrong) if recall else 0.0
        print(f"orientation, {way:14} precision {recall / (recall + wrong):7.1%} (one in two), {rare:6.1%} (one in a hundred)")
    if given.corpus:
        asked, strange = Counter[str](), Counter[str]()
        for kind, picture in strangers(*given.corpus) + made_up():
            asked.update((kind, "all strangers"))
            strange.update((kind, "all strangers") if "out_of_distribution" in picture_flags(picture) else ())
        for kind, total in sorted(asked.items()):
            print(f"{kind:60}{strange[kind]:5} of {total:5} strange")
        share, wrong = strange["all strangers"] / asked["all strangers"], told["as it is: out_of_distribution"] / number
        rare = RARE * share / (RARE * share + (1 - RARE) * wrong)
        print(f"out_of_distribution: recall {share:.1%}, false alarms {wrong:.2%}, precision {share / (share + wrong):.1%}, {rare:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
