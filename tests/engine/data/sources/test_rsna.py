"""RSNA Pneumonia Detection as it is published, and a miniature of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pydicom
import pytest

from engine.data.build_store import build_store
from engine.data.sources import read_sources
from engine.data.sources.image_table import ImageTable
from engine.data.sources.rsna import nih_images, read_rsna
from engine.errors import ConfigError, InputMissing, LabelsError, ReadError
from engine.recipe.labelled_sources import RsnaSource

HEAD = "patientId,x,y,width,height,Target\n"
ROWS = """\
aaaa,,,,,0
bbbb,264.0,152.0,213.0,379.0,1
bbbb,562.0,152.0,256.0,453.0,1
cccc,,,,,0
dddd,1,2,3,4,1
"""
CLASSES = "patientId,class\naaaa,Normal\nbbbb,Lung Opacity\nbbbb,Lung Opacity\ncccc,No Lung Opacity / Not Normal\ndddd,Lung Opacity\n"


def source(root: Path, **keys: Any) -> RsnaSource:
    return RsnaSource.model_validate({"kind": "rsna", "root": str(root), "split": "70_15_15", "part": "all", **keys})


@pytest.fixture
def make(tmp_path: Path, make_studies: Any) -> Callable[..., Path]:
    """The published folder: the label table and small DICOM files."""

    def lay(rows: str = ROWS, classes: str = "", pictures: tuple[str, ...] = ("aaaa", "bbbb", "cccc", "dddd")) -> Path:
        root = tmp_path / "rsna"
        (root / "stage_2_train_images").mkdir(parents=True)
        (root / "stage_2_train_labels.csv").write_text(HEAD + rows)
        if classes:
            (root / "stage_2_detailed_class_info.csv").write_text(classes)
        grey = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint16) * 30
        for image in pictures:
            data = make_studies.chest_dataset(grey, image, make_studies.SYNTAXES[0])
            data.save_as(root / f"stage_2_train_images/{image}.dcm", enforce_file_format=True)
        return root

    return lay


def split_of(table: ImageTable) -> dict[str, Any]:
    found: dict[str, Any] = table.facts["split"]
    return found


def test_rows_of_one_image_become_one_and_its_dicom_file_can_be_read(make: Callable[..., Path], tmp_path: Path) -> None:
    table = read_sources([source(make())])
    assert table.frame.select("image", "Pneumonia").rows() == [("aaaa", 0), ("bbbb", 1), ("cccc", 0), ("dddd", 1)]
    assert table.facts["boxes"] == 3 and "ChestX-ray14" in table.facts["leakage"]
    store = build_store(table.frame, tmp_path / "store", 32, workers=1)
    assert len(store.pixels) == 4 and not store.dropped()


def test_the_detailed_classes_tell_no_finding_from_other_findings(make: Callable[..., Path]) -> None:
    table = read_rsna(source(make(classes=CLASSES)))
    assert table.findings == ("Pneumonia", "No Finding")
    assert table.frame["No Finding"].to_list() == [1, 0, 0, 0]
    assert read_rsna(source(Path(table.frame["file"][0]).parents[1], rename={"No Finding": None})).findings == ("Pneumonia",)


def test_classes_that_contradict_the_target_or_are_none_of_the_three_are_not_read(make: Callable[..., Path]) -> None:
    root = make(classes=CLASSES.replace("dddd,Lung Opacity", "dddd,Normal"))
    assert read_rsna(source(root)).facts["dropped"] == {"labels_contradict": 1}
    (root / "stage_2_detailed_class_info.csv").write_text(CLASSES.replace("aaaa,Normal", "aaaa,Norml"))
    with pytest.raises(LabelsError, match="1 label that the data set does not have: near to Normal"):
        read_rsna(source(root))


def test_targets_that_disagree_or_are_blank_are_dropped(make: Callable[..., Path]) -> None:
    table = read_rsna(source(make(ROWS + "aaaa,1,2,3,4,1\neeee,,,,,\n")))
    assert table.frame["image"].to_list() == ["bbbb", "cccc", "dddd"]
    assert table.facts["dropped"] == {"labels_disagree": 1, "no_label": 1}
    assert table.facts["rows"] == 5


def test_medklips_test_is_what_its_list_names_and_the_rest_is_trained_on(make: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("id,path,class\n0,/data/rsna/bbbb.dcm,1\n1,/data/rsna/cccc.dcm,0\n")
    keys = {"split": "medklip", "lists": {"test": str(tmp_path / "test.csv")}}
    root = make()
    table = read_rsna(source(root, **keys, part="test"))
    assert table.frame.select("image", "split").rows() == [("bbbb", "test"), ("cccc", "test")]
    assert split_of(table)["name"].startswith("rsna, MedKLIP's test") and split_of(table)["as_published"] is False
    table = read_rsna(source(root, **keys, drawn={"valid_share": 0.0}))
    assert dict(table.frame["split"].value_counts().iter_rows()) == {"test": 2, "train": 2}


def test_without_its_list_the_medklip_split_cannot_be_told(make: Callable[..., Path], tmp_path: Path) -> None:
    root = make()
    with pytest.raises(ConfigError, match=r"sources\.0\.lists\.test: not set; set it to MedKLIP's test\.csv \(5,337 images\)"):
        read_sources([source(root, split="medklip")])
    with pytest.raises(InputMissing, match="MedKLIP's list of test images is not named"):
        read_rsna(source(root, split="medklip"))
    with pytest.raises(ConfigError, match=r"lists\.test: no such file"):
        read_sources([source(root, split="medklip", lists={"test": str(tmp_path / "absent.csv")})])


def test_images_of_one_nih_patient_may_not_be_parted(make: Callable[..., Path], tmp_path: Path) -> None:
    names = {"aaaa": "00000007_000.png", "bbbb": "00000007_003.png", "cccc": "00000008_000.png"}
    (tmp_path / "map.json").write_text(
        json.dumps([{"subset_img_id": rsna, "img_id": nih, "orig_labels": []} for rsna, nih in names.items()])
    )
    (tmp_path / "test.txt").write_text("bbbb\n")
    keys = {"split": "medklip", "lists": {"test": str(tmp_path / "test.txt")}, "drawn": {"valid_share": 0.0}}
    root = make()
    assert read_rsna(source(root, **keys)).facts["images"] == 4
    with pytest.raises(ConfigError, match="the split leaks: 1 patient"):
        read_rsna(source(root, **keys, nih_mapping=str(tmp_path / "map.json")))
    table = read_rsna(source(root, **keys, nih_mapping=str(tmp_path / "map.json"), overlap="leave_out"))
    assert table.frame.select("image", "patient").rows() == [("bbbb", "rsna:00000007"), ("cccc", "rsna:00000008"), ("dddd", "rsna:dddd")]
    drawn = read_rsna(source(root, nih_mapping=str(tmp_path / "map.json")))
    assert drawn.frame.group_by("patient").agg(pl.col("split").n_unique())["split"].max() == 1
    assert "NIH patient" in split_of(drawn)["name"]


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"subset_img_id": "a"}]', '[{"subset_img_id": "a", "img_id": 3}]', "no json"])
def test_what_is_no_mapping_is_refused(make: Callable[..., Path], tmp_path: Path, text: str) -> None:
    (tmp_path / "map.json").write_text(text)
    with pytest.raises((ReadError, ConfigError), match=r"map\.json (is no mapping|maps none)"):
        read_rsna(source(make(), nih_mapping=str(tmp_path / "map.json")))


def test_a_mapping_names_the_nih_image_of_each_rsna_image(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('[{"subset_img_id": "a", "img_id": "1_0.png"}, {"subset_img_id": "", "img_id": "2_0.png"}]')
    assert nih_images(tmp_path / "map.json") == {"a": "1_0.png"}


def test_headers_tell_sex_age_and_view_where_the_recipe_asks(make: Callable[..., Path]) -> None:
    root = make()
    path = root / "stage_2_train_images/aaaa.dcm"
    data = pydicom.dcmread(path)
    data.PatientSex, data.PatientAge, data.ViewPosition = "F", "051Y", "AP"
    data.save_as(path)
    blank = read_rsna(source(root)).frame.select("sex", "age", "view").row(0)
    assert blank == ("", None, "")
    table = read_rsna(source(root, headers=True))
    assert table.frame.select("sex", "age", "view").rows()[:2] == [("F", 51.0, "AP"), ("", None, "PA")]
    assert table.facts["split"] == read_rsna(source(root)).facts["split"]


def test_the_real_table_has_26_684_images(tmp_path: Path, real_labels: Path) -> None:
    table = real_labels / "kaggle_stage_2_train_labels.csv.zip"
    if not table.is_file():
        pytest.skip("the RSNA label table is not on this machine")
    (tmp_path / table.name).symlink_to(table)
    read = read_rsna(source(tmp_path))
    split = split_of(read)
    assert (read.facts["rows"], read.facts["boxes"], split["present"], split["absent"]) == (
        26_684,
        9_555,
        {"Pneumonia": 6_012},
        {"Pneumonia": 20_672},
    )
    assert {part: piece["n"] for part, piece in split["parts"].items()} == {"test": 3_968, "train": 18_745, "valid": 3_971}
