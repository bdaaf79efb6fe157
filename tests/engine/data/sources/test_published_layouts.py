"""Where the pieces of labelled data sets lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest

from engine.data.sources.published import PADCHEST_TABLE, chexpert_folder, find_label_file, missing_pieces
from engine.recipe.sources import Source

LAYOUTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "chexpert": ({"kind": "chexpert"}, ["CheXpert-v1.0/groundtruth.csv", "CheXpert-v1.0/test/patient64741/study1/view1_frontal.jpg"]),
    "chexpert, training": ({"kind": "chexpert", "part": "train"}, ["train.csv.gz", "train/patient00001/study1/view1_frontal.jpg"]),
    "nih14": ({"kind": "nih14"}, ["Data_Entry_2017_v2020.csv", "test_list.txt", "images_001/images/00000001_000.png"]),
    "nih14, drawn": ({"kind": "nih14", "split": "70_10_20"}, ["Data_Entry_2017.csv.zip", "images/00000001_000.png"]),
    "nih14, adjudicated": (
        {"kind": "nih14", "labels": "google2019"},
        ["Data_Entry_2017.csv", "google2019_nih-chest-xray-labels.csv.gz", "images/00000001_000.png"],
    ),
    "rsna": ({"kind": "rsna", "split": "70_15_15"}, ["stage_2_train_labels.csv", "stage_2_train_images/a.dcm"]),
    "covidx": ({"kind": "covidx"}, ["test_COVIDx8B.txt", "test/a.png"]),
    "covidx, all": ({"kind": "covidx", "part": "all", "release": "9B"}, ["test_COVIDx9B.txt", "train_COVIDx9B.txt", "train/a.png"]),
    "padchest_evaluation": ({"kind": "padchest_evaluation"}, [PADCHEST_TABLE, "0.zip"]),
}


def missing(root: Path, keys: dict[str, Any]) -> list[str]:
    adapter: pydantic.TypeAdapter[Source] = pydantic.TypeAdapter(Source)
    return missing_pieces(adapter.validate_python({"root": str(root), **keys}))


@pytest.mark.parametrize(("keys", "files"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_whole_layout_misses_nothing_and_each_lost_piece_is_named_with_its_key(
    tmp_path: Path, keys: dict[str, Any], files: list[str]
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert missing(tmp_path, keys) == []
    for name in files:
        (tmp_path / name).unlink()
        (piece,) = missing(tmp_path, keys)
        assert piece.startswith("root: no ")
        (tmp_path / name).touch()


@pytest.mark.parametrize(("keys", "files"), LAYOUTS.values(), ids=LAYOUTS)
def test_in_an_empty_folder_every_piece_is_missing_at_once(tmp_path: Path, keys: dict[str, Any], files: list[str]) -> None:
    pieces = missing(tmp_path, keys)
    assert len(pieces) == len(files)
    assert not any(str(tmp_path) in piece for piece in pieces)


def test_lists_and_the_mapping_are_looked_for_where_the_recipe_says(tmp_path: Path) -> None:
    keys = {"kind": "rsna", "split": "medklip", "nih_mapping": "absent.json", "lists": {"valid": "absent.txt"}}
    names = [piece.partition(":")[0] for piece in missing(tmp_path, keys)]
    assert names == ["root", "lists.test", "root", "nih_mapping", "lists.valid"]


def test_a_table_may_be_packed_and_the_first_name_wins(tmp_path: Path) -> None:
    assert find_label_file(tmp_path, ["new.csv", "old.csv"]) is None
    (tmp_path / "old.csv.gz").touch()
    assert find_label_file(tmp_path, ["new.csv", "old.csv"]) == tmp_path / "old.csv.gz"
    (tmp_path / "new.csv.zip").touch()
    assert find_label_file(tmp_path, ["new.csv", "old.csv"]) == tmp_path / "new.csv.zip"


def test_chexpert_is_found_in_the_folder_or_one_below(tmp_path: Path) -> None:
    assert chexpert_folder(tmp_path) == tmp_path
    (tmp_path / "CheXpert-v1.0-small").mkdir()
    (tmp_path / "CheXpert-v1.0-small/valid.csv").touch()
    assert chexpert_folder(tmp_path) == chexpert_folder(tmp_path / "CheXpert-v1.0-small") == tmp_path / "CheXpert-v1.0-small"
