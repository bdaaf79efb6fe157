"""A small folder of studies to try mmclip on: real DICOM files that a package on PyPI carries, and labelled synthetic chest pictures.

    pip install 'mmclip[examples]'
    python examples/make_studies.py FOLDER
    mmclip score FOLDER --prompts chest14 --labels FOLDER/labels.csv

FOLDER/real/       pydicom-data's RG1 (one frontal chest radiograph in four encodings), RG3 (a leg, to be turned away), 693 (a CT, likewise)
FOLDER/synthetic/  drawn here, by numpy alone, as 12-bit DX in six transfer syntaxes: normal ones, ones with patches of consolidation, ones
                   with a wide heart. They look like chest radiographs to a machine and to nobody else. Every file says so itself:
                   Synthetic Data (0008,001C) is YES. An AUROC on them shows that the line works, never how well a model reads patients.
FOLDER/labels.csv  the labels of the synthetic studies, by StudyInstanceUID

The same seed gives the same files to the bit.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    generate_uid,
)

REAL = ("RG1_UNCR.dcm", "RG1_UNCI.dcm", "RG1_J2KR.dcm", "RG1_J2KI.dcm", "RG3_UNCR.dcm", "RG3_J2KI.dcm", "693_J2KR.dcm")
FINDINGS = ("No Finding", "Cardiomegaly", "Lung Opacity", "Consolidation", "Pneumonia")
KINDS = {
    "normal": {"No Finding": 1, "Cardiomegaly": 0, "Lung Opacity": 0, "Consolidation": 0, "Pneumonia": 0},
    # a drawn patch is an opacity and a consolidation; what would have caused it no drawing can know, so pneumonia goes with it
    "consolidation": {"No Finding": 0, "Cardiomegaly": 0, "Lung Opacity": 1, "Consolidation": 1, "Pneumonia": 1},
    "wide heart": {"No Finding": 0, "Cardiomegaly": 1, "Lung Opacity": 0, "Consolidation": 0, "Pneumonia": 0},
}
ROWS, COLUMNS = 640, 544

Encoder = Callable[[NDArray[np.uint16]], bytes]
ENCAPSULATED: dict[UID, Encoder] = {
    JPEGLosslessSV1: lambda stored: bytes(imagecodecs.ljpeg_encode(stored, bitspersample=12)),
    JPEGLSLossless: lambda stored: bytes(imagecodecs.jpegls_encode(stored, level=0)),
    JPEG2000Lossless: lambda stored: bytes(
        imagecodecs.jpeg2k_encode(stored, level=0, codecformat="j2k", reversible=True, bitspersample=12)
    ),
}
SYNTAXES: tuple[UID, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, *ENCAPSULATED)


def draw_chest(kind: str, rng: np.random.Generator) -> NDArray[np.uint16]:
    """A chest-like picture, (640, 544) of 0..4095, bone bright: lungs, heart, spine, ribs, clavicles, diaphragm, noise."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float64)
    y, x = y / ROWS, x / COLUMNS

    def blob(cx: float, cy: float, sx: float, sy: float, power: float = 2.0) -> NDArray[np.float64]:
        soft: NDArray[np.float64] = np.exp(-(np.abs((x - cx) / sx) ** power) - np.abs((y - cy) / sy) ** power)
        return soft

    def jitter(scale: float = 0.01) -> float:
        return float(rng.normal(0, scale))

    middle = 0.5 + jitter()
    picture = 0.6 * blob(middle, 0.7, 0.49, 0.8, 10)
    lungs = np.zeros_like(picture)
    for side in (-1, 1):
        lungs += blob(middle + side * (0.215 + jitter(0.005)), 0.46 + jitter(0.005), 0.165, 0.36, 3.5)
    lungs = np.clip(lungs, 0, 1)
    picture -= 0.45 * lungs
    heart = rng.uniform(1.6, 1.9) if kind == "wide heart" else rng.uniform(0.95, 1.1)
    picture += 0.33 * lungs * blob(middle + 0.035 * heart, 0.64, 0.125 * heart, 0.17, 3.2)
    picture += 0.1 * blob(middle, 0.5, 0.04, 0.7, 4) + 0.14 * blob(middle, 0.3, 0.07, 0.25, 3)
    for side in (-1, 1):
        dome = 0.81 + (0.02 if side > 0 else 0.0) + 2.2 * (x - middle - side * 0.2) ** 2
        picture += 0.4 * lungs / (1 + np.exp(-(y - dome) / 0.008))
        out = np.clip((x - middle) * side, 0, None)
        for rib in range(8):
            arc = 0.16 + 0.072 * rib + 0.25 * out + 1.3 * (out - 0.16) ** 2 + jitter(0.002)
            picture += 0.075 * np.exp(-(((y - arc) / 0.011) ** 2)) * (out > 0.04) * (out < 0.36)
        picture += 0.12 * np.exp(-(((y - 0.17 + 0.22 * out) / 0.014) ** 2)) * (out > 0.04) * (out < 0.34)
        for _ in range(26):
            reach, angle = rng.uniform(0.03, 0.16), rng.uniform(-1.2, 1.2)
            hilum = (middle + side * 0.1, 0.46)
            picture += 0.035 * blob(hilum[0] + side * reach * np.cos(angle), hilum[1] + reach * np.sin(angle), 0.02, 0.012)
    if kind == "consolidation":
        filled = np.zeros_like(picture)
        for _ in range(rng.integers(3, 5)):
            side = rng.choice((-1, 1))
            cx, cy = middle + side * rng.uniform(0.14, 0.25), rng.uniform(0.42, 0.66)
            filled += sum(blob(cx + jitter(0.03), cy + jitter(0.03), rng.uniform(0.06, 0.12), rng.uniform(0.06, 0.12)) for _ in range(5))
        # air that is replaced by fluid is as bright as soft tissue, never brighter
        picture += 0.4 * lungs * np.clip(filled, 0, 1) * (1 + 0.12 * _smooth(rng.normal(size=picture.shape), 25))
    picture += 0.012 * _smooth(rng.normal(size=picture.shape), 5) + 0.01 * rng.normal(size=picture.shape)
    grey = 150 + 3400 * np.clip((picture + 0.05) / 1.15, 0, 1)
    stored: NDArray[np.uint16] = np.clip(np.rint(grey), 0, 4095).astype(np.uint16)
    return stored


def _smooth(noise: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Noise averaged over squares of `reach` pixels, brought back to unit deviation."""
    for axis in (0, 1):
        noise = np.mean([np.roll(noise, shift, axis) for shift in range(reach)], axis=0)
    result: NDArray[np.float64] = noise / noise.std()
    return result


def chest_dataset(stored: NDArray[np.uint16], name: str, syntax: UID, *, seed: int = 0) -> FileDataset:
    """The picture as DX For Presentation (PS3.3 A.26.2), in one of SYNTAXES; UIDs follow from `name` and `seed` alone."""

    def uid(part: str) -> str:
        return str(generate_uid(entropy_srcs=["mmclip synthetic", str(seed), name, part]))

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid("instance")
    meta.TransferSyntaxUID = syntax
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, uid("instance")
    data.StudyInstanceUID, data.SeriesInstanceUID = uid("study"), uid("series")
    data.SyntheticData = "YES"
    data.PatientName, data.PatientID, data.PatientSex, data.PatientBirthDate = "Synthetic^Drawing", f"SYNTHETIC-{name}", "", ""
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = data.StudyID = ""
    data.Manufacturer, data.InstanceNumber, data.SeriesNumber = "mmclip examples", "1", "1"
    data.Modality, data.PresentationIntentType = "DX", "FOR PRESENTATION"
    data.BodyPartExamined, data.ViewPosition, data.ImageLaterality = "CHEST", "PA", "U"
    data.PatientOrientation, data.ImageType = ["L", "F"], ["DERIVED", "PRIMARY", ""]
    data.PixelIntensityRelationship, data.PixelIntensityRelationshipSign = "LOG", -1
    data.BurnedInAnnotation, data.LossyImageCompression = "NO", "00"
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType, data.PresentationLUTShape = "0", "1", "US", "IDENTITY"
    data.WindowCenter, data.WindowWidth = "1900", "3600"
    if syntax in ENCAPSULATED:
        data.PixelData = encapsulate([ENCAPSULATED[syntax](stored)])
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    else:
        data.PixelData = stored.astype("<u2").tobytes()
        data["PixelData"].VR = "OW"
    return data


def make_synthetic(folder: Path, *, seed: int = 0, each: int = 6) -> list[dict[str, str | int]]:
    """`each` studies of every kind, written to `folder`; the rows of labels.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str | int]] = []
    for number in range(each * len(KINDS)):
        kind = list(KINDS)[number % len(KINDS)]
        name = f"{number + 1:02d}"
        # Kinds and syntaxes must not go together, or an encoding could pass for a finding
        syntax = SYNTAXES[(number // len(KINDS)) % len(SYNTAXES)]
        data = chest_dataset(draw_chest(kind, np.random.default_rng([seed, number])), name, syntax, seed=seed)
        data.save_as(folder / f"synthetic_{name}.dcm", enforce_file_format=True)
        rows.append({"StudyInstanceUID": str(data.StudyInstanceUID), **KINDS[kind]})
    return rows


def copy_real(folder: Path) -> int:
    """The real files of the package pydicom-data; how many there are. 0, with a word on stderr, where it is not installed."""
    try:
        import data_store
    except ImportError:
        print("pydicom-data is not installed: no real files (pip install 'mmclip[examples]')", file=sys.stderr)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(data_store.__file__).parent / "data"
    for name in REAL:
        shutil.copyfile(source / name, folder / name)
    return len(REAL)


def main() -> None:
    """Make the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Real DICOM from pydicom-data and labelled synthetic chest pictures, to try mmclip on.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    real = copy_real(arguments.folder / "real")
    rows = make_synthetic(arguments.folder / "synthetic", seed=arguments.seed)
    with (arguments.folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["StudyInstanceUID", *FINDINGS])
        writer.writeheader()
        writer.writerows(rows)
    print(f"{real} real files and {len(rows)} synthetic studies with labels (drawn, not patients)")


if __name__ == "__main__":
    main()
