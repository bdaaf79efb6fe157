"""CheXpert as it is published, and a miniature of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.data.sources import read_sources
from engine.data.sources.chexpert import PATHOLOGIES, meant, read_chexpert
from engine.data.sources.image_table import FINDING_TYPE, ImageTable
from engine.errors import ConfigError, InputMissing, LabelsError
from engine.recipe.labelled_sources import CHEXPERT_FINDINGS, ChexpertSource, Uncertain

HEAD = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_FINDINGS]
TEST_ORDER = sorted(CHEXPERT_FINDINGS, reverse=True)
Row = dict[str, str]


def source(root: Path, **keys: Any) -> ChexpertSource:
    return ChexpertSource.model_validate({"kind": "chexpert", "root": str(root), **keys})


def view(place: str, number: int = 1, facing: str = "frontal", **cells: str) -> Row:
    """One row of train.csv or valid.csv; `place` is train/patient00001/study1."""
    usual = {"Sex": "Female", "Age": "68", "Frontal/Lateral": facing.capitalize(), "AP/PA": "AP" if facing == "frontal" else ""}
    return {"Path": f"CheXpert-v1.0-small/{place}/view{number}_{facing}.jpg", **usual, **cells}


def write(path: Path, columns: list[str], rows: Sequence[Row]) -> None:
    lines = [",".join(row.get(column, "") for column in columns) for row in rows]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")


@pytest.fixture
def make(tmp_path: Path, picture: Callable[[Path], Path]) -> Callable[..., Path]:
    """The published folder with train.csv or valid.csv and its pictures, and groundtruth.csv in an order of its own."""

    def lay(rows: Sequence[Row] = (), truth: dict[str, Row] | None = None, views: tuple[str, ...] = (), table: str = "train.csv") -> Path:
        folder = tmp_path / "CheXpert-v1.0-small"
        folder.mkdir()
        if rows:
            write(folder / table, HEAD, rows)
        if truth is not None:
            studies = [{"Study": f"CheXpert-v1.0/{study}", **dict.fromkeys(TEST_ORDER, "0"), **cells} for study, cells in truth.items()]
            write(folder / "groundtruth.csv", ["Study", *TEST_ORDER], studies)
        for name in [*(row["Path"].partition("/")[2] for row in rows), *views]:
            picture(folder / name)
        return tmp_path

    return lay


def split_of(table: ImageTable) -> dict[str, Any]:
    found: dict[str, Any] = table.facts["split"]
    return found


TRUTH = {"test/patient64741/study1": {"Edema": "1"}, "test/patient64742/study1": {"Fracture": "1"}}
VIEWS = (
    "test/patient64741/study1/view1_frontal.jpg",
    "test/patient64741/study1/view2_lateral.jpg",
    "test/patient64742/study1/view1_frontal.jpg",
    "test/patient64742/study1/view2_frontal.jpg",
)


def test_the_test_goes_by_study_and_its_labels_by_name(make: Callable[..., Path]) -> None:
    table = read_sources([source(make(truth=TRUTH, views=VIEWS))])
    assert table.frame["image"].to_list() == [VIEWS[0], VIEWS[2], VIEWS[3]]
    assert table.frame["study"].to_list() == ["chexpert:test/patient64741/study1", *["chexpert:test/patient64742/study1"] * 2]
    assert table.frame["patient"].to_list()[0] == "chexpert:patient64741"
    assert table.frame["Edema"].to_list() == [1, 0, 0] and table.frame["Fracture"].to_list() == [0, 1, 1]
    assert table.facts["dropped"] == {"lateral_view": 1}
    assert (split_of(table)["unit"], split_of(table)["n"], split_of(table)["there"]) == ("study", 2, 2)
    assert split_of(table)["as_published"] is False


def test_lateral_views_are_read_and_first_views_are_picked_as_the_recipe_says(make: Callable[..., Path]) -> None:
    root = make(truth=TRUTH, views=VIEWS)
    assert read_chexpert(source(root, frontal_only=False)).frame["view"].to_list() == ["", "L", "", ""]
    first = read_chexpert(source(root, first_view=True))
    assert first.frame["image"].to_list() == [VIEWS[0], VIEWS[2]]
    assert first.facts["dropped"] == {"lateral_view": 1, "later_view": 1}


def test_a_table_of_pictures_in_place_of_studies_reads_the_same(make: Callable[..., Path]) -> None:
    root = make(truth=TRUTH, views=VIEWS)
    by_study = read_chexpert(source(root, frontal_only=False))
    rows = [{"Path": name, **dict.fromkeys(TEST_ORDER, "0.0"), **TRUTH[name.rpartition("/")[0]]} for name in VIEWS]
    (root / "CheXpert-v1.0-small/groundtruth.csv").unlink()
    write(root / "CheXpert-v1.0-small/test_labels.csv", [*TEST_ORDER, "Path"], rows)
    by_picture = read_chexpert(source(root, frontal_only=False))
    assert by_picture.frame.sort("image").equals(by_study.frame.sort("image"))
    assert split_of(by_picture)["sha256"] == split_of(by_study)["sha256"]


def test_studies_without_labels_and_labels_without_pictures_are_counted(make: Callable[..., Path]) -> None:
    views = (VIEWS[0], "test/patient70000/study1/view1_frontal.jpg")
    table = read_chexpert(source(make(truth=TRUTH, views=views)))
    assert table.frame["image"].to_list() == [VIEWS[0]]
    assert table.facts["dropped"] == {"file_missing": 1, "no_label": 1}
    assert (split_of(table)["n"], split_of(table)["there"]) == (2, 1)


def test_training_labels_are_present_absent_or_unknown_as_the_recipe_reads_them(make: Callable[..., Path]) -> None:
    cells = {"Edema": "-1.0", "Cardiomegaly": "-1.0", "Fracture": "-1.0", "Pneumonia": "1.0", "Pneumothorax": "0.0", "Support Devices": ""}
    root = make([view("train/patient00001/study1", **cells)])
    (row,) = read_chexpert(source(root, part="train")).frame.to_dicts()
    assert (row["Edema"], row["Cardiomegaly"], row["Fracture"]) == (1, 0, None)
    assert (row["Pneumonia"], row["Pneumothorax"], row["Support Devices"], row["Atelectasis"]) == (1, 0, None, None)
    assert row["No Finding"] == 0
    assert (row["sex"], row["age"], row["view"], row["split"], row["held_out"]) == ("F", 68.0, "AP", "train", False)
    (row,) = read_chexpert(source(root, part="train", blank="absent", uncertain={"ones": [], "zeros": ["Fracture"]})).frame.to_dicts()
    assert (row["Edema"], row["Cardiomegaly"], row["Fracture"], row["Support Devices"], row["Atelectasis"]) == (None, None, 0, 0, 0)


def test_no_finding_denies_the_twelve_pathologies_and_no_device() -> None:
    blank = pl.DataFrame(
        {name: [1 if name == "No Finding" else None] for name in CHEXPERT_FINDINGS}, schema=dict.fromkeys(CHEXPERT_FINDINGS, FINDING_TYPE)
    )
    (row,) = meant(blank, Uncertain(), "unknown").to_dicts()
    assert row == {**dict.fromkeys(PATHOLOGIES, 0), "No Finding": 1, "Support Devices": None}
    assert len(PATHOLOGIES) == 12


def test_validation_labels_are_taken_as_they_are(make: Callable[..., Path]) -> None:
    cells = {**dict.fromkeys(CHEXPERT_FINDINGS, "0.0"), "Edema": "1.0", "Fracture": "-1.0"}
    root = make([view("valid/patient64541/study1", **cells)], table="valid.csv")
    (row,) = read_chexpert(source(root, part="valid")).frame.to_dicts()
    assert (row["Edema"], row["Fracture"], row["split"], row["held_out"]) == (1, None, "valid", True)


def test_studies_whose_rows_disagree_and_rows_that_repeat_are_dropped(make: Callable[..., Path]) -> None:
    one, two = "train/patient00001/study1", "train/patient00002/study1"
    rows = [view(one, 1, Edema="1.0"), view(one, 2, Edema="0.0"), view(two, Edema="1.0"), view(two, Edema="1.0")]
    table = read_chexpert(source(make(rows), part="train"))
    assert table.facts["dropped"] == {"duplicate_image": 1, "labels_disagree": 2}
    assert split_of(table)["n"] == 1


def test_test_studies_named_twice_count_once_where_they_agree_and_not_at_all_where_they_differ(make: Callable[..., Path]) -> None:
    root = make(truth=TRUTH, views=VIEWS)
    truth = root / "CheXpert-v1.0-small/groundtruth.csv"
    head, first, second = truth.read_text().splitlines()
    truth.write_text("\n".join([head, first, first, second, second.replace(",1", ",0")]) + "\n")
    table = read_chexpert(source(root))
    assert table.frame["image"].to_list() == [VIEWS[0]]
    assert split_of(table)["n"] == 1 and table.facts["dropped"]["labels_disagree"] == 4


def test_a_cell_that_is_no_label_is_an_error_that_names_the_column_alone(make: Callable[..., Path]) -> None:
    with pytest.raises(LabelsError, match=r"train\.csv holds cells that are no labels: Edema: 1 cells; Fracture: 1 cells") as caught:
        read_chexpert(source(make([view("train/patient00001/study1", Edema="yes", Fracture="2")]), part="train"))
    assert "yes" not in str(caught.value)


def test_a_table_with_other_columns_names_them_all_at_once(make: Callable[..., Path]) -> None:
    root = make([view("train/patient00001/study1")])
    table = root / "CheXpert-v1.0-small/train.csv"
    table.write_text(table.read_text().replace("Pleural Effusion", "Effusion").replace("Edema", "Oedema"))
    with pytest.raises(ConfigError, match=r"no column 'Edema' \(did you mean 'Oedema'\?\); no column 'Pleural Effusion'"):
        read_chexpert(source(root, part="train"))


def test_tables_of_another_part_or_with_other_paths_are_refused(make: Callable[..., Path]) -> None:
    root = make([view("valid/patient00001/study1")])
    with pytest.raises(ConfigError, match=r"train\.csv names images of another part"):
        read_chexpert(source(root, part="train"))
    table = root / "CheXpert-v1.0-small/train.csv"
    table.write_text(table.read_text().replace("valid/patient", "elsewhere/patient"))
    with pytest.raises(ConfigError, match="none of its 1 paths has the form of CheXpert's"):
        read_chexpert(source(root, part="train"))


def test_a_patient_in_two_parts_is_a_leak(make: Callable[..., Path]) -> None:
    root = make([view("train/patient64741/study9"), view("train/patient00001/study1")], TRUTH, VIEWS)
    with pytest.raises(ConfigError, match="the split leaks: 1 patient has images in several parts: their images: 2 in test, 1 in train"):
        read_chexpert(source(root, part="all"))
    table = read_chexpert(source(root, part="all", overlap="leave_out"))
    assert table.facts["dropped"] == {"lateral_view": 1, "split_overlap": 1}
    assert {part: piece["n"] for part, piece in split_of(table)["parts"].items()} == {"test": 2, "train": 1}


def test_what_is_missing_is_named_before_anything_is_read(make: Callable[..., Path]) -> None:
    root = make([view("train/patient00001/study1")])
    with pytest.raises(ConfigError, match=r"root: no groundtruth\.csv there.*root: no images there; it needs test/patient"):
        read_sources([source(root)])
    with pytest.raises(InputMissing, match=r"groundtruth\.csv is not there"):
        read_chexpert(source(root))
    assert read_sources([source(root, part="train")]).facts["images"] == 1


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, real_table: Callable[[str], Path]) -> Path:
    root = tmp_path_factory.mktemp("chexpert")
    (root / "train.csv.gz").symlink_to(f"{real_table('chexpert_train.csv')}.gz")
    (root / "groundtruth.csv").symlink_to(real_table("chexpert_train.csv").parent / "chexpert-test/groundtruth.csv")
    return root


def test_the_real_test_has_500_studies_with_these_labels(real: Path) -> None:
    table = read_chexpert(source(real))
    split = split_of(table)
    assert (split["n"], split["as_published"], split["there"], table.facts["dropped"]) == (500, True, 0, {"file_missing": 500})
    assert split["present"] == {
        "No Finding": 62, "Enlarged Cardiomediastinum": 253, "Cardiomegaly": 151, "Lung Opacity": 264, "Lung Lesion": 8, "Edema": 78,
        "Consolidation": 29, "Pneumonia": 11, "Atelectasis": 153, "Pneumothorax": 9, "Pleural Effusion": 104, "Pleural Other": 4,
        "Fracture": 5, "Support Devices": 261,
    }  # fmt: skip
    assert all(split["present"][name] + split["absent"][name] == 500 for name in CHEXPERT_FINDINGS)


def test_the_real_training_table_has_its_published_counts(real: Path) -> None:
    table = read_chexpert(source(real, part="train"))
    split = split_of(table)
    assert table.facts["rows"] == 223_414 and table.facts["dropped"] == {"file_missing": 191_027, "lateral_view": 32_387}
    assert (split["n"], split["as_published"]) == (187_641, True)
    # studies, with -1 of edema read as present and of cardiomegaly as absent
    assert (split["present"]["Edema"], split["present"]["Cardiomegaly"], split["absent"]["Cardiomegaly"]) == (60_476, 23_002, 28_776)
    assert (split["present"]["No Finding"], split["absent"]["No Finding"]) == (16_627, 158_227)
