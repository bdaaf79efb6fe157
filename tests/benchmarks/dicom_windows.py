"""Windows and VOI LUTs that show nothing of an image, and sound ones that are narrow: how often each is passed over with a flag.

    python tests/benchmarks/dicom_windows.py MANIFEST.csv [--images 160] [--exposed 0.3] [--corpus FOLDER INDEX.csv]

MANIFEST.csv has a column `file`: 8-bit radiographs, here spread over 12 bits; --images of them are drawn with a fixed seed. Each is shown
by wrong windows and by a VOI LUT of 256 entries, and by sound windows, with a border of collimation over 0, 1, 5 and 20 % of the image:
  saturated  images of which at least 90 % of what lies inside the border became black or white and that were scored without a flag;
             in brackets at least 2/3
  flagged    for sound windows: false alarms
Sound windows cut 0, 1, 5 or 10 % of the tissue at either end. `direct exposure`: a share of the field (--exposed) lies far above the tissue
and is noisy; the window leaves it out; `marker`: 0.4 % of the field holds 65535. Collimation is black, or far above all.
With --corpus the windows of real radiographs are tried as their files have them (columns `file`, `is_radiograph` and `expected_outcome`).
Exits 1 where a saturated image has no flag, or more than 0.5 % of the sound windows have one.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.dicom.grey import to_grey_image
from engine.dicom.header import Header
from engine.dicom.lookup_table import LookupTable
from engine.dicom.pixels import Stored
from engine.intake.reader import read_file

BORDERS = (0.0, 0.01, 0.05, 0.2)
WRONG = ((128.0, 256.0), (40.0, 400.0), (-600.0, 1500.0), (512.0, 1024.0), (3900.0, 300.0), (32768.0, 65536.0))
"""Center and width: of 8 bits, CT of soft tissue, CT of the lung, of 10 bits, the top of 12 bits, of 16 bits."""
CUT = (0, 1, 5, 10)
MOST_FALSE_ALARMS = 0.005
FLAGS = {"bad_window", "bad_lut"}
Values = NDArray[np.uint16]


def images(manifest: Path, count: int) -> Iterator[Values]:
    """12-bit radiographs, smoothly spread between the grey levels of their files."""
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(0)
    for place in rng.permutation(len(rows))[:count]:
        path = next(
            folder / rows[place]["file"] for folder in (manifest.parent, manifest.parent.parent) if (folder / rows[place]["file"]).exists()
        )
        grey = np.asarray(Image.open(path).convert("L"), np.float64)
        yield np.clip((grey + rng.uniform(-0.5, 0.5, grey.shape)) * 16 + 8, 0, 4095).astype(np.uint16)


def bordered(values: Values, share: float, collimation: int) -> tuple[Values, NDArray[np.bool_]]:
    """The image with a border over `share` of it, and where its field is."""
    inside = np.zeros(values.shape, bool)
    wide = [math.ceil(side * (1 - math.sqrt(1 - share)) / 2) for side in values.shape]
    inside[wide[0] : values.shape[0] - wide[0], wide[1] : values.shape[1] - wide[1]] = True
    return np.where(inside, values, np.uint16(collimation)), inside


def shown(values: Values, **described: object) -> tuple[NDArray[np.uint8], set[str]]:
    """The 8-bit image of the same size that the reader makes of stored values, and its flags."""
    header = Header(**{"photometric": "MONOCHROME2", "bits_allocated": 16, "bits_stored": 16, "samples": 1, "signed": 0, **described})  # type: ignore[arg-type]
    picture, flags = to_grey_image(Stored(values, *values.shape), header, min(values.shape))
    return picture, set(flags)


def sound(
    values: Values, field: NDArray[np.bool_], exposure: float, rng: np.random.Generator
) -> Iterator[tuple[str, Values, tuple[float, float]]]:
    """Name, stored values and a window that suits them."""
    for cut in CUT:
        low, high = np.percentile(values[field], (cut, 100 - cut))
        window = ((low + high) / 2, max(high - low, 1.0))
        yield f"cuts {cut} % at either end", values, window
        tissue = values[field] // 4 + 500
        low, high = np.percentile(tissue, (cut, 100 - cut))
        window = ((low + high) / 2, max(high - low, 1.0))
        exposed, marked = values.copy(), values.copy()
        exposed[field] = marked[field] = tissue
        rows, columns = np.nonzero(field)
        place = columns > np.quantile(columns, 1 - exposure)
        exposed[rows[place], columns[place]] = rng.normal(9000, 300, np.count_nonzero(place)).astype(np.uint16)
        yield f"cuts {cut} %, direct exposure", exposed, window
        marked[rows[: len(rows) // 250], columns[: len(rows) // 250]] = 65535
        yield f"cuts {cut} %, marker", marked, window


def tried(values: Values, exposure: float, number: int) -> Iterator[tuple[str, float, float, bool]]:
    """Name, border, saturated share of the field and whether it is flagged; names of sound windows begin with `cuts`."""
    rng = np.random.default_rng(number)
    for share in BORDERS:
        for collimation in (0, 16383):
            image, field = bordered(values, share, collimation)
            kinds: list[tuple[str, Values, dict[str, object]]] = [
                (f"window {center:g} / {width:g}", image, {"windows": ((center, width),)}) for center, width in WRONG
            ]
            kinds.append(("VOI LUT of 256 entries", image, {"voi_lut": LookupTable(0, 8, np.arange(256, dtype=np.float32))}))
            kinds += [(name, stored, {"windows": (window,)}) for name, stored, window in sound(image, field, exposure, rng)]
            for name, stored, described in kinds:
                picture, flags = shown(stored, **described)
                ends = (picture[field] == 0) | (picture[field] == 255)
                yield name, share, float(ends.mean()), not FLAGS.isdisjoint(flags)


def corpus_lines(folder: Path, index: Path) -> Iterator[tuple[str, float, bool]]:
    """File, black and white share of the image and whether it is flagged, of radiographs that are scored."""
    with index.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["is_radiograph"] == "yes" and row["expected_outcome"] == "score"]
    for row in rows:
        reading = read_file(folder / row["file"], size=224)
        if reading.image is not None and "no_window" not in reading.flags:
            ends = (reading.image == 0) | (reading.image == 255)
            yield row["file"], float(ends.mean()), not FLAGS.isdisjoint(reading.flags)


def main() -> int:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("manifest", type=Path)
    arguments.add_argument("--images", type=int, default=160)
    arguments.add_argument("--exposed", type=float, default=0.3)
    arguments.add_argument("--corpus", type=Path, nargs=2, metavar=("FOLDER", "INDEX"))
    given = arguments.parse_args()
    counts: dict[tuple[str, float], list[tuple[float, bool]]] = {}
    for number, values in enumerate(images(given.manifest, given.images)):
        for name, share, saturated, flagged in tried(values, given.exposed, number):
            counts.setdefault((name, share), []).append((saturated, flagged))
    missed = false_alarms = asked = 0
    print(f"{'of':28}" + "".join(f"border {share:4.0%}{'':10}" for share in BORDERS))
    for name in dict.fromkeys(name for name, _ in counts):
        cells = []
        for share in BORDERS:
            each = counts[name, share]
            flagged = sum(flag for _, flag in each)
            if name.startswith("cuts"):
                false_alarms, asked = false_alarms + flagged, asked + len(each)
                cells.append(f"{flagged} of {len(each)}")
            else:
                unflagged = [saturated for saturated, flag in each if not flag]
                silent = sum(saturated >= 0.9 for saturated in unflagged)
                missed += silent
                cells.append(f"{silent} ({sum(saturated >= 2 / 3 for saturated in unflagged)}) of {len(each)}")
        print(f"{name:28}" + "".join(f"{cell:21}" for cell in cells))
    if given.corpus:
        lines = list(corpus_lines(*given.corpus))
        print(f"corpus: {sum(flag for *_, flag in lines)} of {len(lines)} scored radiographs with a window are flagged:")
        print("\n".join(f"  {share:4.0%} black or white  {file}" for file, share, flag in lines if flag or share >= 0.5))
    print(f"saturated without a flag: {missed}; false alarms: {false_alarms} of {asked}, {false_alarms / asked:.2%}")
    return int(missed > 0 or false_alarms > MOST_FALSE_ALARMS * asked)


if __name__ == "__main__":
    sys.exit(main())
