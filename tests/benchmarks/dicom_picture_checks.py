"""How often the flags that a picture earns by its looks are right, on pictures that their weights never saw.

    python tests/benchmarks/dicom_picture_checks.py MANIFEST.csv [--corpus FOLDER INDEX.csv] [--size 112]

MANIFEST.csv as for examples/train_picture_checks.py, with a column `view`; of the sets that it learns from only the patients left for
measuring are read. Every frontal picture is asked as it is (what is flagged is a false alarm), in the seven other ways to hang it, and
inverted. Laterals are given in two halves by a hash of the patient: the first was looked at while the checks were made, the second was kept
for the end. With --corpus, files of INDEX.csv (columns `file`, `modality`, `seen_by_eye`) that are no chest are decoded whatever their
header says, and noise and test patterns are made: how many look strange, in two such halves. Precision is given twice: for as many faulty
pictures as right ones, and for one in a hundred, a guess at what an archive holds.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import logging
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from engine.dicom.elements import read_meta, scan_elements
from engine.dicom.grey import to_grey_image
from engine.dicom.header import read_header
from engine.dicom.pixels import read_pixels
from engine.dicom.view_check import view_flags
from engine.intake.limits import LIMITS
from engine.intake.reader import load_bytes, read_file

LEARNT_FROM = frozenset({"kermany-224", "nih14-subset"})
FLAGS = ("out_of_distribution", "looks_lateral", "orientation", "polarity")
RARE = 0.01
Picture = NDArray[np.uint8]


def is_left_for_measuring(row: dict[str, str]) -> bool:
    """The split of examples/train_picture_checks.py."""
    place = int(hashlib.sha256(f"picture checks:{row['patient_id']}".encode()).hexdigest(), 16) % 10
    return row["set"] not in LEARNT_FROM or place >= 8


def half_of(key: bytes, byte: int) -> str:
    """Which of the two halves, by a byte of the key's hash."""
    return "kept for the end" if hashlib.sha256(key).digest()[byte] % 2 else "looked at before"


def hung(picture: Picture, way: int) -> Picture:
    """One of the eight ways, for pictures that are not square."""
    return np.rot90(picture if way < 4 else picture[:, ::-1], way % 4)


def made_up() -> Iterator[tuple[str, Picture]]:
    """Noise of four grains, checks, stripes, discs: ten of each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:128, 0:128]
    for _ in range(10):
        for grain in (1, 4, 16, 32):
            noise = np.kron(rng.integers(0, 256, (128 // grain, 128 // grain)), np.ones((grain, grain)))
            yield f"made: noise of grain {grain}", noise.astype(np.uint8)
        step, turn, radius = rng.integers(6, 24), rng.uniform(0, np.pi), rng.integers(15, 60)
        yield "made: checks", (255 * ((x // step + y // step) % 2)).astype(np.uint8)
        yield "made: stripes", (127 + 127 * np.sin((x * np.cos(turn) + y * np.sin(turn)) / step * 3)).astype(np.uint8)
        yield "made: disc", (255 * (np.hypot(x - 64, y - 64) < radius)).astype(np.uint8)


def as_pydicom_reads(path: Path) -> Picture:
    """The middle frame between the percentiles 0.5 and 99.5 of its grey."""
    data = pydicom.dcmread(path, force=True)
    if data.Rows * data.Columns > 3e7 or int(data.get("NumberOfFrames") or 1) > 50:
        raise ValueError("more than is worth a look")
    values = np.asarray(data.pixel_array, np.float64)
    while values.ndim > 2:
        values = values[..., 0] if values.shape[-1] in (3, 4) else values[len(values) // 2]
    low, high = np.percentile(values, (0.5, 99.5))
    grey = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(values.shape)
    return np.rint(255 * (1 - grey if data.get("PhotometricInterpretation") == "MONOCHROME1" else grey)).astype(np.uint8)


def as_we_read(path: Path) -> Picture:
    """What the reader would make of it, were it a chest."""
    view = memoryview(load_bytes(path, LIMITS.file_bytes))
    meta = read_meta(view)
    walked = scan_elements(view, meta.body, meta.transfer_syntax, max_depth=LIMITS.depth)
    header = read_header(view, walked)
    stored = read_pixels(view, walked, header, meta.transfer_syntax, least=224, max_pixels=LIMITS.pixels)
    return to_grey_image(stored, header, 112)[0]


def strangers(folder: Path, index: Path) -> Iterator[tuple[str, Picture]]:
    """(kind, picture) of every different picture of the corpus that is no chest radiograph."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    seen = set()
    with index.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if "chest" not in row["seen_by_eye"].replace("tag CHEST", "")]
    for row in rows:
        try:
            picture = as_pydicom_reads(folder / row["file"])
        except Exception:  # whatever hostile files bring about; many only lack a decoder
            try:
                picture = as_we_read(folder / row["file"])
            except Exception:  # refused, or damaged
                continue
        key = hashlib.sha256(picture.tobytes()).digest()
        if min(picture.shape) < 64 or picture.min() == picture.max() or key in seen:
            continue
        seen.add(key)
        named = row["seen_by_eye"] not in ("", "none")
        yield row["seen_by_eye"] if named else f"modality {row['modality'] or 'not told'}", picture


def groups_of(row: dict[str, str]) -> tuple[str, ...]:
    """The lines of the tables that a picture counts in."""
    if row["view"] == "L":
        return "laterals, " + half_of(b"laterals:" + row["patient_id"].encode(), -1), "laterals"
    if row["view"] in ("", "?"):
        return (f"{row['set']}, view not told",)
    people = "children" if row["set"] == "kermany-224" else f"adults, {'PA' if row['view'].startswith('PA') else 'AP'}"
    return (row["set"], people, *(("adults",) if people != "children" else ()), "all frontal")


def precisions(flag: str, recall: float, wrong: float) -> str:
    """One line: recall, false alarms, and precision at two prevalences."""
    rare = RARE * recall / max(RARE * recall + (1 - RARE) * wrong, 1e-12)
    even = recall / max(recall + wrong, 1e-12)
    return f"{flag:34} recall {recall:6.1%}  false alarms {wrong:6.2%}  precision {even:6.1%} (one in two) {rare:6.1%} (one in a hundred)"


def main() -> int:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("manifest", type=Path)
    arguments.add_argument("--corpus", type=Path, nargs=2, metavar=("FOLDER", "INDEX"))
    arguments.add_argument("--size", type=int, default=112)
    given = arguments.parse_args()
    asked: Counter[str] = Counter()
    told: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with given.manifest.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if is_left_for_measuring(row)]
    for row in rows:
        picture = read_file(given.manifest.parent / row["file"], size=given.size, plain_images=True).image
        if picture is None:
            continue
        answers = {"as it is": view_flags(picture), "inverted": view_flags(255 - picture)}
        answers |= {str(way): view_flags(hung(picture, way)) for way in range(1, 8)}
        for group in groups_of(row):
            asked[group] += 1
            told[group].update(f"{way}: {flag}" for way, flags in answers.items() for flag in flags)

    def share(group: str, *ways: str, flag: str) -> float:
        return sum(told[group][f"{way}: {flag}"] for way in ways) / asked[group] / len(ways)

    turned = ("1", "2", "3", "5", "6", "7")
    print(f"{'':42}{'flagged as they are':^48}{'found when they are':^33}")
    print(f"{'':34}{'pictures':>8}" + "".join(f"{flag:>12}" for flag in ("strange", "lateral", "orientation", "polarity")), end="")
    print("".join(f"{way:>11}" for way in ("turned", "mirrored", "inverted")))
    for group, number in sorted(asked.items()):
        print(f"{group:34}{number:8}" + "".join(f"{share(group, 'as it is', flag=flag):12.2%}" for flag in FLAGS), end="")
        found = share(group, *turned, flag="orientation"), share(group, "4", flag="orientation"), share(group, "inverted", flag="polarity")
        print("" if "lateral" in group else "".join(f"{part:11.1%}" for part in found))
    for group in ("children", "adults", "all frontal"):
        wrong = {flag: share(group, "as it is", flag=flag) for flag in FLAGS}
        print(group)
        print(precisions("  orientation, turned", share(group, *turned, flag="orientation"), wrong["orientation"]))
        print(precisions("  orientation, mirrored", share(group, "4", flag="orientation"), wrong["orientation"]))
        print(precisions("  polarity, inverted", share(group, "inverted", flag="polarity"), wrong["polarity"]))
        for half in (name for name in sorted(asked) if name.startswith("laterals")):
            print(precisions(f"  looks_lateral, {half}"[:34], share(half, "as it is", flag="looks_lateral"), wrong["looks_lateral"]))
    if given.corpus:
        kinds, strange = Counter[str](), Counter[str]()
        for kind, picture in (*strangers(*given.corpus), *made_up()):
            which = ("made" if kind.startswith("made") else half_of(picture.tobytes(), 0), "all")
            kinds.update((kind, *(f"strangers, {name}" for name in which)))
            if "out_of_distribution" in view_flags(picture):
                strange.update((kind, *(f"strangers, {name}" for name in which)))
        for kind, total in sorted(kinds.items()):
            print(f"{kind:60}{strange[kind]:5} of {total:5} strange")
        for name in ("looked at before", "kept for the end", "made", "all"):
            recall = strange[f"strangers, {name}"] / kinds[f"strangers, {name}"]
            print(precisions(f"out_of_distribution, {name}", recall, share("all frontal", "as it is", flag="out_of_distribution")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
