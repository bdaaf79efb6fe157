"""ChestX-ray14 as it is published, and a miniature of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.data.sources import read_sources
from engine.data.sources.image_table import DROPS, ImageTable
from engine.data.sources.nih14 import read_nih14
from engine.errors import ConfigError, InputMissing, LabelsError
from engine.recipe.labelled_sources import NIH_FINDINGS, Nih14Source

V2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)
ROWS = {
    "00000001_000.png": "Cardiomegaly|Emphysema,0,1,058Y,M,PA",
    "00000001_001.png": "Effusion|Pleural_Thickening,1,1,59,M,PA",
    "00000002_000.png": "No Finding,0,2,414,F,AP",
    "00000003_000.png": "Hernia,0,3,080Y,F,AP",
    "00000004_000.png": "Infiltration,0,4,011M,F,AP",
}
Make = Callable[..., Path]


def source(root: Path, **keys: Any) -> Nih14Source:
    return Nih14Source.model_validate({"kind": "nih14", "root": str(root), **keys})


@pytest.fixture
def make(tmp_path: Path, picture: Callable[[Path], Path]) -> Make:
    """The published folder: the first edition's header (with its last comma), two lists, pictures in two of the numbered folders."""

    def write(
        rows: dict[str, str] = ROWS, extra: str = "", test: tuple[str, ...] = ("00000002_000.png",), absent: tuple[str, ...] = ()
    ) -> Path:
        root = tmp_path / "nih"
        root.mkdir()
        table = "".join(f"{image},{cells},2682,2749,0.143,0.143,\n" for image, cells in rows.items())
        (root / "Data_Entry_2017.csv").write_text(V2017 + table + extra)
        (root / "test_list.txt").write_text("\n".join(test))
        (root / "train_val_list.txt").write_text("\n".join(image for image in rows if image not in test) + "\n")
        for image in rows:
            if image not in absent:
                picture(root / f"images_00{1 + (image > '00000002')}/images/{image}")
        return root

    return write


def split_of(table: ImageTable) -> dict[str, Any]:
    found: dict[str, Any] = table.facts["split"]
    return found


def test_the_published_test_is_what_the_list_names(make: Make) -> None:
    table = read_sources([source(make())])
    (row,) = table.frame.to_dicts()
    assert (row["image"], row["study"], row["patient"]) == ("00000002_000.png", "nih14:00000002_000", "nih14:2")
    assert (row["split"], row["view"], row["sex"], row["age"], row["held_out"]) == ("test", "AP", "F", None, True)
    assert row["No Finding"] == 1 and all(row[finding] == 0 for finding in NIH_FINDINGS)
    assert split_of(table)["name"].startswith("nih14 official lists") and split_of(table)["as_published"] is False


def test_findings_go_by_the_names_of_prompts_and_ages_by_years(make: Make) -> None:
    table = read_nih14(source(make(), part="all"))
    first, second, third, _, last = table.frame.sort("image").to_dicts()
    assert [finding for finding in NIH_FINDINGS if first[finding]] == ["Cardiomegaly", "Emphysema"]
    assert [finding for finding in NIH_FINDINGS if second[finding]] == ["Pleural Effusion", "Pleural Thickening"]
    assert (first["age"], second["age"], third["age"], last["age"]) == (58.0, 59.0, None, pytest.approx(11 / 12))
    assert table.findings == ("No Finding", *NIH_FINDINGS)


def test_validation_comes_out_of_training_by_patient_and_the_test_stays(make: Make) -> None:
    root = make()
    table = read_nih14(source(root, part="all", drawn={"valid_share": 0.5, "seed": 3}))
    assert table.frame.group_by("patient").agg(pl.col("split").n_unique())["split"].max() == 1
    assert table.frame.filter(pl.col("split") == "test")["image"].to_list() == ["00000002_000.png"]
    assert (table.frame["held_out"] == (table.frame["split"] != "train")).all()
    assert split_of(table)["parts"]["test"]["sha256"] == split_of(read_nih14(source(root)))["sha256"]
    assert "0.5 of the training patients for validation, seed 3" in split_of(table)["name"]


def test_pictures_are_found_flat_numbered_or_as_jpeg_copies(make: Make) -> None:
    root = make()
    (root / "images").mkdir()
    for path in sorted(root.glob("images_00*/images/*.png")):
        shutil.move(path, root / "images" / path.with_suffix(".jpg").name)
    table = read_nih14(source(root, part="all"))
    assert table.facts["images"] == 5
    assert {Path(file).parent for file in table.frame["file"]} == {root / "images"}


def test_pictures_that_are_not_there_are_counted_and_the_part_keeps_its_hash(make: Make) -> None:
    whole = read_nih14(source(make(), part="all"))
    shutil.rmtree(whole.frame["file"][0].rpartition("/images_001")[0])
    some = read_nih14(source(make(absent=("00000003_000.png", "00000004_000.png")), part="all"))
    assert some.facts["dropped"] == {"file_missing": 2}
    assert (split_of(some)["n"], split_of(some)["there"]) == (5, 3)
    assert split_of(some)["sha256"] == split_of(whole)["sha256"] == split_of(whole)["there_sha256"] != split_of(some)["there_sha256"]
    assert split_of(some)["present"]["Hernia"] == 1 and some.facts["present"]["Hernia"] == 0


def test_rows_that_say_nothing_or_two_things_are_dropped_with_their_reason(make: Make) -> None:
    more = {"00000005_000.png": ",0,5,40,F,PA", "00000006_000.png": "No Finding|Mass,0,6,40,F,PA", "00000007_000.png": "Mass,0,7,40,F,PA"}
    again = "00000007_000.png,Nodule,0,7,40,F,PA,1,1,1,1,\n00000001_000.png,Emphysema|Cardiomegaly,0,1,058Y,M,PA,1,1,1,1,\n"
    table = read_nih14(source(make({**ROWS, **more}, extra=again), part="all"))
    assert table.facts["dropped"] == {"duplicate_image": 1, "labels_contradict": 1, "labels_disagree": 2, "no_label": 1}
    assert table.facts["rows"] == 10 == table.facts["images"] + 5
    assert table.facts["dropped"].keys() <= DROPS.keys()


def test_a_label_that_the_data_set_does_not_have_is_an_error_with_the_nearest(make: Make) -> None:
    with pytest.raises(LabelsError, match=r"Data_Entry_2017\.csv holds 1 label that .* near to Pleural_Thickening"):
        read_nih14(source(make({"00000001_000.png": "Pleural_Thikening,0,1,58,M,PA"}), part="all"))


def test_lists_that_share_a_patient_are_refused_unless_its_training_images_are_left_out(make: Make) -> None:
    root = make(test=("00000001_001.png", "00000002_000.png"))
    with pytest.raises(ConfigError, match="the split leaks: 1 patient has images in several parts"):
        read_nih14(source(root))
    assert read_nih14(source(root, overlap="leave_out", part="all")).facts["dropped"] == {"split_overlap": 1}


def test_without_lists_the_official_split_cannot_be_told_and_another_can(make: Make) -> None:
    root = make()
    (root / "test_list.txt").unlink()
    with pytest.raises(ConfigError, match=r"no test_list\.txt there"):
        read_sources([source(root)])
    with pytest.raises(InputMissing, match="split: 70_10_20"):
        read_nih14(source(root))
    table = read_nih14(source(root, split="70_10_20", part="all"))
    assert split_of(table)["name"] == "nih14 70/10/20 by a hash of the patient, seed 0"
    assert table.facts["images"] == 5


def test_lists_of_the_recipe_go_before_the_published_ones(make: Make, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("name,fold\n00000003_000.png,0\n00000004_000.png,0\n")
    table = read_nih14(source(make(), lists={"test": str(tmp_path / "mine.csv")}))
    assert table.frame["image"].to_list() == ["00000003_000.png", "00000004_000.png"]
    assert split_of(table)["name"].startswith("nih14, lists of the recipe")


def test_findings_are_renamed_or_dropped_as_the_recipe_says(make: Make) -> None:
    root = make()
    table = read_nih14(source(root, rename={"Infiltration": "Lung Opacity", "Hernia": None}))
    assert "Lung Opacity" in table.findings and "Hernia" not in table.findings and "Hernia" not in table.frame.columns
    with pytest.raises(ConfigError, match=r"'Pleural_Thickening' \(did you mean 'Pleural Thickening'\?\)"):
        read_nih14(source(root, rename={"Pleural_Thickening": None}))
    with pytest.raises(ConfigError, match="gives two findings one name"):
        read_nih14(source(root, rename={"Mass": "Nodule"}))


def test_a_part_without_images_is_an_error_that_counts_the_others(make: Make) -> None:
    with pytest.raises(ConfigError, match="part valid of nih14 is empty: rows by part: train: 4, test: 1"):
        read_nih14(source(make(), part="valid", drawn={"valid_share": 0.0}))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, real_table: Callable[[str], Path]) -> Path:
    root = tmp_path_factory.mktemp("nih")
    for name in ("Data_Entry_2017_v2020.csv", "google2019_nih-chest-xray-labels.csv"):
        (root / f"{name}.gz").symlink_to(f"{real_table(name)}.gz")
    return root


def test_the_real_table_has_its_published_counts(real: Path) -> None:
    table = read_nih14(source(real, part="all", split="70_10_20"))
    split = split_of(table)
    assert (table.facts["rows"], split["n"], split["there"], table.facts["dropped"]) == (112_120, 112_120, 0, {"file_missing": 112_120})
    assert split["present"] == {
        "No Finding": 60_361, "Atelectasis": 11_559, "Cardiomegaly": 2_776, "Consolidation": 4_667, "Edema": 2_303,
        "Pleural Effusion": 13_317, "Emphysema": 2_516, "Fibrosis": 1_686, "Hernia": 227, "Infiltration": 19_894, "Mass": 5_782,
        "Nodule": 6_331, "Pleural Thickening": 3_385, "Pneumonia": 1_431, "Pneumothorax": 5_302,
    }  # fmt: skip
    assert {part: piece["n"] for part, piece in split["parts"].items()} == {"test": 22_658, "train": 78_270, "valid": 11_192}


def test_the_real_adjudicated_labels_have_two_parts_without_a_patient_in_common(real: Path) -> None:
    split = split_of(read_nih14(source(real, labels="google2019", part="all")))
    assert split["present"] == {"Fracture": 186, "Pneumothorax": 238, "Lung Opacity": 2_166, "Lung Lesion": 605}
    assert {part: piece["n"] for part, piece in split["parts"].items()} == {"test": 1_962, "valid": 2_414}
    assert split["as_published"] is True
