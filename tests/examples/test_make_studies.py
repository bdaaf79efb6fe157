"""The example studies: DICOM that is what it says, the same every time, real files beside drawn ones."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from engine.intake.workers import read_files

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "make_studies.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout == "7 real files and 18 synthetic studies with labels (drawn, not patients)\n"
    return folder


def test_every_file_reads_as_it_should(folder):
    readings = {reading.path.name: reading for reading in read_files(sorted(folder.rglob("*.dcm")), size=64, workers=1)}
    assert len(readings) == 25
    outcomes = {name: reading.reason or reading.outcome for name, reading in readings.items()}
    assert {name for name, outcome in outcomes.items() if outcome != "score"} == {"RG3_UNCR.dcm", "RG3_J2KI.dcm", "693_J2KR.dcm"}
    assert outcomes["RG3_UNCR.dcm"] == "wrong_body_part"
    assert outcomes["693_J2KR.dcm"] == "wrong_modality"


def test_synthetic_files_say_so(folder):
    for path in (folder / "synthetic").iterdir():
        data = pydicom.dcmread(path, stop_before_pixels=True)
        assert data.SyntheticData == "YES"
        assert str(data.PatientName) == "Synthetic^Drawing"
    readings = read_files(sorted((folder / "synthetic").iterdir()), size=64, workers=1)
    assert all("synthetic" in reading.flags for reading in readings)


def test_labels_name_every_synthetic_study_and_both_classes(folder):
    with (folder / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    studies = {str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID) for path in (folder / "synthetic").iterdir()}
    assert {row["StudyInstanceUID"] for row in rows} == studies
    for finding in ("No Finding", "Cardiomegaly", "Lung Opacity"):
        assert {row[finding] for row in rows} == {"0", "1"}


def test_kinds_and_encodings_do_not_go_together(folder):
    with (folder / "labels.csv").open(newline="") as stream:
        opaque = {row["StudyInstanceUID"]: row["Lung Opacity"] for row in csv.DictReader(stream)}
    seen = {}
    for path in (folder / "synthetic").iterdir():
        data = pydicom.dcmread(path, stop_before_pixels=True)
        seen.setdefault(data.file_meta.TransferSyntaxUID, set()).add(opaque[str(data.StudyInstanceUID)])
    assert len(seen) == 6
    assert all(labels == {"0", "1"} for labels in seen.values())


def test_the_same_seed_makes_the_same_files(make_studies, tmp_path):
    first = make_studies.make_synthetic(tmp_path / "a", seed=3, each=1)
    assert make_studies.make_synthetic(tmp_path / "b", seed=3, each=1) == first
    assert make_studies.make_synthetic(tmp_path / "c", seed=4, each=1) != first
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_patch_brightens_a_lung_and_a_wide_heart_the_middle(make_studies):
    drawn = {kind: make_studies.draw_chest(kind, np.random.default_rng(5)).astype(float) for kind in make_studies.KINDS}
    assert drawn["normal"].min() > 0
    assert drawn["normal"].max() < 4095
    assert (drawn["consolidation"] - drawn["normal"]).max() > 500
    heart = np.s_[340:420, 320:400]
    assert drawn["wide heart"][heart].mean() > drawn["normal"][heart].mean() + 100


def test_every_encoding_holds_the_same_values(make_studies, tmp_path):
    stored = make_studies.draw_chest("normal", np.random.default_rng(0))
    paths = []
    for number, syntax in enumerate(make_studies.SYNTAXES):
        paths.append(tmp_path / f"{number}.dcm")
        make_studies.chest_dataset(stored, f"{number}", syntax).save_as(paths[-1], enforce_file_format=True)
    readings = list(read_files(paths, size=640, workers=1))
    assert {reading.outcome for reading in readings} == {"score"}
    assert len({reading.transfer_syntax for reading in readings}) == len(make_studies.SYNTAXES)
    for reading in readings[1:]:
        assert np.abs(reading.image.astype(int) - readings[0].image).max() <= 1
