"""Change a byte, or twenty, inside the compressed pixels of sound DICOM files: how often is a wrong picture taken for a right one?

    python tests/benchmarks/dicom_damage.py FOLDER [--files 12] [--mutants 40] [--seed 0]

FOLDER holds radiographs as PNG or JPEG. Each is encoded in every way below, read once as it is (`turned away` must be 0), and then with
bytes changed anywhere in its codestream but in the first 600 and the last 8 bytes. A picture that differs from the sound one by less than
1 of 255 grey levels on average is harmless; any other is wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, generate_uid

from engine.intake.reader import read_file

Encode = Callable[[np.ndarray], bytes]
ENCODINGS: dict[str, tuple[str, int, Encode]] = {
    "JPEG, 8 bit": ("1.2.840.10008.1.2.4.50", 8, lambda values: imagecodecs.jpeg8_encode(values, level=90)),
    "JPEG, 12 bit": ("1.2.840.10008.1.2.4.51", 12, lambda values: imagecodecs.jpeg8_encode(values, level=90, bitspersample=12)),
    "JPEG lossless": ("1.2.840.10008.1.2.4.70", 12, lambda values: imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=12)),
    "JPEG lossless, 16 bit": (
        "1.2.840.10008.1.2.4.57",
        16,
        lambda v: imagecodecs.jpeg8_encode(v, lossless=True, predictor=4, bitspersample=16),
    ),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", 12, imagecodecs.jpegls_encode),
    "JPEG 2000": (
        "1.2.840.10008.1.2.4.90",
        12,
        lambda v: imagecodecs.jpeg2k_encode(v, codecformat="j2k", reversible=True, bitspersample=12),
    ),
    "JPEG 2000, lossy": ("1.2.840.10008.1.2.4.91", 12, lambda v: imagecodecs.jpeg2k_encode(v, 50, codecformat="j2k", bitspersample=12)),
    "HTJ2K": ("1.2.840.10008.1.2.4.201", 12, lambda values: imagecodecs.htj2k_encode(values, reversible=True)),
}


def values_of(path: Path, bits: int) -> np.ndarray:
    """A radiograph of 8 bits as one of so many, the rest of them noise."""
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L"))
    if bits == 8:
        return grey
    noise = np.random.default_rng(0).integers(0, 1 << (bits - 8), grey.shape)
    return ((grey.astype(np.uint16) << (bits - 8)) + noise).astype(np.uint16)


def write(path: Path, values: np.ndarray, stream: bytes, syntax: str, bits: int) -> None:
    """A DX file around a codestream."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1.1")
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality, ds.ViewPosition = generate_uid(), generate_uid(), "DX", "PA"
    ds.BodyPartExamined, ds.PresentationIntentType, ds.PhotometricInterpretation = "CHEST", "FOR PRESENTATION", "MONOCHROME2"
    ds.Rows, ds.Columns = values.shape
    ds.SamplesPerPixel, ds.PixelRepresentation, ds.BitsStored, ds.HighBit, ds.BitsAllocated = 1, 0, bits, bits - 1, 8 if bits == 8 else 16
    ds.WindowCenter, ds.WindowWidth = 2 ** (bits - 1), 2**bits
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].VR = "OB"
    ds.save_as(path, enforce_file_format=True)


def damaged(stream: bytes, rng: random.Random) -> bytes:
    """The stream with one byte changed, or twenty in a row, none of them to or from FF, which would make markers or take them away."""
    changed = bytearray(stream)
    at = rng.randrange(600, len(stream) - 28)
    for place in range(at, at + rng.choice((1, 20))):
        if 255 not in (changed[place - 1], changed[place]):
            changed[place] = rng.randrange(255)
    return bytes(changed)


def outcome(path: Path, sound: np.ndarray) -> str:
    """What became of a damaged file."""
    reading = read_file(path, size=224)
    if reading.image is None:
        return "turned away"
    difference = np.abs(reading.image.astype(int) - sound).mean()
    return "harmless" if difference < 1 else "wrong"


def main() -> int:
    """Print the table; exits 1 where a sound file was turned away."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--files", type=int, default=12)
    arguments.add_argument("--mutants", type=int, default=40)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    paths = sorted(path for path in given.folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    paths = random.Random(given.seed).sample(paths, min(given.files, len(paths)))
    total: Counter[str] = Counter()
    print(f"{'encoding':24} {'sound':>6} {'turned away':>12} | {'damaged':>8} {'turned away':>12} {'harmless':>9} {'wrong':>6}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file.dcm"
        for name, (syntax, bits, encode) in ENCODINGS.items():
            rng, sound, counts = random.Random(given.seed), 0, Counter[str]()
            for path in paths:
                values = values_of(path, bits)
                stream = encode(values)
                write(file, values, stream, syntax, bits)
                picture: Any = read_file(file, size=224).image
                sound += picture is not None
                for _ in range(given.mutants if picture is not None else 0):
                    write(file, values, damaged(stream, rng), syntax, bits)
                    counts[outcome(file, picture)] += 1
            figures = f"{counts.total():8} {counts['turned away']:12} {counts['harmless']:9} {counts['wrong']:6}"
            print(f"{name:24} {len(paths):6} {len(paths) - sound:12} | {figures}", flush=True)
            total += counts
            total["sound, turned away"] += len(paths) - sound
    print(f"wrong pictures: {total['wrong']} of {total['wrong'] + total['harmless'] + total['turned away']}")
    return int(total["sound, turned away"] > 0)


if __name__ == "__main__":
    sys.exit(main())
