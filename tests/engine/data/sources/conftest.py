"""Miniatures of published data sets, in their exact layout, with real small pictures."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.sources.published import PADCHEST_TABLE

LABEL_TABLES = Path(__file__).resolve().parents[5] / "shared" / "data" / "labels"
_HEADER = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,MethodProjection,"
    "Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,PixelRepresentation_DICOM,PixelAspectRatio_DICOM,"
    "SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,"
    "Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,"
    "LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS"
)
PADCHEST_HEADER = _HEADER.split(",")


@pytest.fixture(scope="session")
def real_table() -> Callable[[str], Path]:
    """The path of a real label table, without .gz; the test is skipped where the machine has none."""

    def path(name: str) -> Path:
        if not (LABEL_TABLES / f"{name}.gz").is_file():
            pytest.skip(f"{name}.gz is not on this machine (it may not be copied into the project)")
        return LABEL_TABLES / name

    return path


def sixteen_bit(path: Path, seed: int, side: int = 72) -> Path:
    """A smooth 12-bit picture in a 16-bit PNG, as PadChest stores them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), np.uint16)
    Image.fromarray(grey * 16).save(path)
    return path


@pytest.fixture
def make_padchest(tmp_path: Path) -> Callable[..., Path]:
    """Writes the table and the pictures of PadChest; a row is a dict of the columns that matter, the others as published."""

    def make(rows: Sequence[dict[str, str]], *, zipped: Sequence[str] = (), absent: Sequence[str] = ()) -> Path:
        root = tmp_path / "padchest"
        root.mkdir()
        usual = {
            "ImageDir": "0", "StudyDate_DICOM": "20140915", "PatientBirth": "1930.0", "PatientSex_DICOM": "F", "Projection": "PA",
            "Pediatric": "No", "MethodLabel": "RNN_model", "Labels": "['normal']", "Report": "sin hallazg , normal .",
        }  # fmt: skip
        with (root / PADCHEST_TABLE).open("w", newline="") as out:
            writer = csv.DictWriter(out, PADCHEST_HEADER, restval="None")
            writer.writeheader()
            writer.writerows({"": str(number), **usual, **row} for number, row in enumerate(rows))
        for seed, row in enumerate(rows):
            if row["ImageID"] not in absent:
                sixteen_bit(root / row.get("ImageDir", "0") / row["ImageID"], seed)
        for folder in zipped:
            with zipfile.ZipFile(root / f"{folder}.zip", "w") as archive:
                for file in sorted((root / folder).iterdir()):
                    archive.write(file, file.name)
                    file.unlink()
            (root / folder).rmdir()
        return root

    return make
