from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data.sources import READERS
from engine.data.sources.published import KINDS, recognised, sources_in
from engine.errors import UsageError


def test_every_reader_has_a_kind_and_every_miniature_is_recognised(
    make_mimic: Callable[..., Any], make_padchest: Callable[..., Path], make_openi: Callable[..., Any], tmp_path: Path
) -> None:
    assert set(READERS) - {"table"} <= set(KINDS)
    mimic = make_mimic([{"image": "a", "patient": "10000032", "study": "5"}])
    padchest = make_padchest([{"ImageID": "a.png", "PatientID": "1", "StudyID": "s"}])
    openi = make_openi({"CXR1": ("Normal.", "", ["CXR1_1"])})
    assert recognised(Path(mimic["jpg_root"])) == "mimic_cxr"
    assert recognised(padchest) == "padchest"
    assert recognised(Path(openi["root"])) == "openi"
    for name, kind in (("Data_Entry_2017_v2020.csv", "nih14"), ("stage_2_train_labels.csv", "rsna"), ("train_COVIDx8B.txt", "covidx")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / name).touch()
        assert recognised(tmp_path / kind) == kind
    (tmp_path / "chexpert/CheXpert-v1.0-small/train/patient00001").mkdir(parents=True)
    (tmp_path / "chexpert/CheXpert-v1.0-small/train.csv").touch()
    assert recognised(tmp_path / "chexpert") == "chexpert"
    assert recognised(tmp_path) is None


def test_the_two_folders_of_mimic_are_one_source(make_mimic: Callable[..., Any]) -> None:
    keys = make_mimic([{"image": "a", "patient": "10000032", "study": "5"}])
    both = [Path(keys["jpg_root"]), Path(keys["root"])]
    assert sources_in(both, None) == sources_in(both[::-1], "mimic_cxr") == [keys]


def test_the_dicom_layout_of_mimic_has_no_folder_of_jpegs(make_mimic: Callable[..., Any]) -> None:
    keys = make_mimic([{"image": "a", "patient": "10000032", "study": "5"}], layout="dicom")
    assert sources_in([Path(keys["root"])], None) == [keys]


def test_tables_and_data_sets_go_together_and_dicom_goes_alone(make_padchest: Callable[..., Path], tmp_path: Path) -> None:
    padchest = make_padchest([{"ImageID": "a.png", "PatientID": "1", "StudyID": "s"}])
    table = tmp_path / "images.csv"
    table.write_text("file\n")
    assert [each["kind"] for each in sources_in([padchest, table], None)] == ["table", "padchest"]
    assert sources_in([tmp_path / "scans"], None) == []
    assert sources_in([padchest], "dicom") == []
    with pytest.raises(UsageError, match="cannot be ingested in one"):
        sources_in([padchest, tmp_path], None)
    with pytest.raises(UsageError, match="no data set is called mimik"):
        sources_in([padchest], "mimik")
