"""Whether the flag `burned_in` of a picture depends on how its pixels are encoded: JPEG, JPEG 2000 and HTJ2K come reduced by powers of two.

    python tests/benchmarks/dicom_text_encodings.py MANIFEST.csv [--pictures 200]

MANIFEST.csv and the patients as for tests/benchmarks/dicom_burned_in.py. Each picture is enlarged to a shorter side of 1,344 to 2,687
pixels with a little noise, given 12 bits (8 for JPEG) and one line of text whose capitals have 0.8 to 1.6 % of the shorter side, where some
lines are found and some are not. A line of the table: how many pictures are flagged in an encoding, and how many answers differ from those
about the same picture uncompressed. Seeded; two and a half seconds of one core for each picture, most of them for encoding JPEG 2000.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from dicom_burned_in import drawing
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import DigitalXRayImageStorageForPresentation, generate_uid

from engine.intake.reader import read_file

SIDES, HEIGHTS = (1344, 2688), (0.008, 0.016)
Values = NDArray[Any]
UIDS = {"implicit": "1.2.840.10008.1.2", "explicit": "1.2.840.10008.1.2.1", "deflated": "1.2.840.10008.1.2.1.99"}
FRAMES: dict[str, tuple[str, int, Callable[[Values], bytes]]] = {
    "RLE": ("1.2.840.10008.1.2.5", 12, lambda values: _rle(values)),
    "JPEG lossless": ("1.2.840.10008.1.2.4.70", 12, lambda values: imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=12)),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", 12, lambda values: imagecodecs.jpegls_encode(values)),
    "JPEG, 8 bits": ("1.2.840.10008.1.2.4.50", 8, lambda values: imagecodecs.jpeg8_encode(values, level=92)),
    "JPEG 2000": ("1.2.840.10008.1.2.4.90", 12, lambda values: _j2k(values, level=0, reversible=True)),
    "JPEG 2000, lossy": ("1.2.840.10008.1.2.4.91", 12, lambda values: _j2k(values, level=60, reversible=False)),
    "HTJ2K": ("1.2.840.10008.1.2.4.201", 12, lambda values: imagecodecs.htj2k_encode(values, reversible=True)),
}


def _rle(values: Values) -> bytes:
    low, high = (values & 255).astype(np.uint8), (values >> 8).astype(np.uint8)
    segments = [b"".join(imagecodecs.packbits_encode(row) for row in plane) for plane in (high, low)]  # PS3.5 G.3: row by row
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    starts = [2, 64, 64 + len(segments[0]), *[0] * 13]
    return np.array(starts, "<u4").tobytes() + b"".join(segments)


def _j2k(values: Values, **how: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(values, codecformat="j2k", bitspersample=12, **how))


def write(path: Path, values: Values, encoding: str) -> None:
    """A DX file of values of 12 bits."""
    uid, bits, encode = FRAMES.get(encoding, (UIDS.get(encoding, ""), 12, None))
    values = values if bits == 12 else (values >> 4).astype(np.uint8)
    data, data.file_meta = Dataset(), FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.Modality, data.BodyPartExamined, data.ViewPosition, data.PresentationIntentType = "DX", "CHEST", "PA", "FOR PRESENTATION"
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = *values.shape, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8 * values.dtype.itemsize, bits, bits - 1, 0
    data.WindowCenter, data.WindowWidth = 1 << (bits - 1), 1 << bits
    data.PixelData = encapsulate([encode(values)]) if encode else values.tobytes()
    data["PixelData"].VR = "OB" if encode else "OW"
    data.save_as(path, enforce_file_format=True)


def main() -> int:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("manifest", type=Path)
    arguments.add_argument("--pictures", type=int, default=200)
    given = arguments.parse_args()
    draw, rng = drawing(), np.random.default_rng(11)
    with given.manifest.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if draw.is_left_for_measuring(row["patient_id"])]
    flagged, differs, asked = Counter[str](), Counter[str](), 0
    for place in rng.permutation(len(rows)):
        side = int(rng.integers(*SIDES))
        large = draw.enlarged(draw.loaded(given.manifest.parent / rows[place]["file"]), side, rng)
        with_text = draw.burnt(large, rng, rng.uniform(*HEIGHTS) * side, 1)
        if with_text is None:
            continue
        values = np.clip(with_text[0].astype(np.uint16) * 16 + rng.integers(0, 16, large.shape, np.uint16), 0, 4095)
        answers = {}
        for encoding in (*UIDS, *FRAMES):
            with tempfile.TemporaryDirectory() as folder:
                write(path := Path(folder) / "picture.dcm", values, encoding)
                reading = read_file(path, size=224)
                assert reading.image is not None, (encoding, reading.reason)
                answers[encoding] = "burned_in" in reading.flags
        flagged.update(name for name, answer in answers.items() if answer)
        differs.update(name for name, answer in answers.items() if answer != answers["explicit"])
        asked += 1
        if asked == given.pictures:
            break
    print(f"{asked} pictures{'':10}{'flagged':>10}{'other than uncompressed':>26}")
    for encoding in (*UIDS, *FRAMES):
        print(f"{encoding:22}{flagged[encoding]:10}{differs[encoding]:26}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
