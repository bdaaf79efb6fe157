"""What the readers of labelled data sets share."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.sources.image_table import COLUMNS, DROPS, FINDING_TYPE, ImageTable
from engine.data.sources.label_tables import (
    LabelRows,
    age_column,
    binary,
    listed,
    reason_of,
    sex_column,
    table_of,
    unknown_labels,
    without_repeats,
)
from engine.data.sources.published_splits import sha256_of
from engine.errors import ConfigError, LabelsError
from engine.recipe.labelled_sources import CovidxSource

PARTS = st.sampled_from(["train", "valid", "test"])
LABELS = st.sampled_from([0, 1, None])


def rows(images: list[tuple[str, str, str, int | None]]) -> pl.DataFrame:
    """One row for each (image, patient, part, label of Edema)."""
    texts = dict.fromkeys(("image", "unit", "study", "patient", "view", "split", "sex", "origin", "reason", "aside"), pl.String)
    whole = [(image, image, image, patient, "PA", part, "F", "", None, None, 50.0, label) for image, patient, part, label in images]
    return pl.DataFrame(whole, schema={**texts, "age": pl.Float64, "Edema": FINDING_TYPE}, orient="row")


def read(frame: pl.DataFrame, part: str, files: dict[str, str], **keys: Any) -> ImageTable:
    source = CovidxSource.model_validate({"kind": "covidx", "root": ".", **keys})
    return table_of(source, LabelRows(frame, ("Edema",), "a split", published={"test": 2}), part, files)


@given(st.dictionaries(st.text("abc", min_size=1), st.tuples(PARTS, LABELS, st.booleans()), min_size=1))
def test_counts_add_up_and_the_hash_knows_no_pictures(images: dict[str, tuple[str, str, bool]]) -> None:
    frame = rows([(image, image, part, label) for image, (part, label, _) in images.items()])  # type: ignore[misc]
    files = {image: __file__ for image, (*_, there) in images.items() if there}
    for part in {part for part, *_ in images.values()} | {"all"}:
        table = read(frame, part, files)
        asked = [image for image, (each, *_) in images.items() if part in (each, "all")]
        split = table.facts["split"]
        assert table.facts["rows"] == len(images) == len(table.frame) + len(table.dropped) + table.facts["left_out"]
        assert split["sha256"] == sha256_of(asked) and split["n"] == len(asked)
        assert split["there"] == len(table.frame) == sum(image in files for image in asked)
        assert split["there_sha256"] == sha256_of([image for image in asked if image in files])
        assert table.frame.columns == [*COLUMNS, "Edema"]
        if part == "all":
            assert sum(piece["there"] for piece in split["parts"].values()) == split["there"]
        assert set(table.dropped["reason"]) <= DROPS.keys()


def test_the_part_says_whether_it_is_as_large_as_published() -> None:
    frame = rows([("a", "1", "test", 1), ("b", "2", "test", 0), ("c", "3", "train", 0)])
    assert read(frame, "test", {}).facts["split"]["as_published"] is True
    assert read(frame.head(1), "test", {}).facts["split"]["as_published"] is False
    assert read(frame, "train", {}).facts["split"]["as_published"] is None


def test_one_class_only_is_kept_for_metrics_to_deal_with() -> None:
    table = read(rows([("a", "1", "test", 1), ("b", "2", "test", 1)]), "test", {"a": __file__, "b": __file__})
    assert table.facts["present"] == {"Edema": 2} and table.facts["absent"] == {"Edema": 0}


def test_an_empty_part_is_an_error() -> None:
    with pytest.raises(ConfigError, match="part valid of mine is empty: rows by part: test: 1"):
        read(rows([("a", "1", "test", 1)]), "valid", {}, name="mine")


def test_repeats_that_agree_are_kept_once_and_those_that_disagree_not_at_all() -> None:
    frame = rows([("a", "1", "test", 1), ("a", "1", "test", 1), ("b", "2", "test", 1), ("b", "2", "test", 0), ("c", "3", "test", None)])
    assert without_repeats(frame, ["Edema"])["reason"].to_list() == [None, "duplicate_image", "labels_disagree", "labels_disagree", None]


@given(st.lists(st.tuples(st.sampled_from("abc"), LABELS), min_size=1, max_size=12))
def test_after_repeats_an_image_stands_at_most_once(pairs: list[tuple[str, int | None]]) -> None:
    frame = without_repeats(rows([(image, image, "test", label) for image, label in pairs]), ["Edema"])
    kept = frame.filter(pl.col("reason").is_null())
    assert not kept["image"].is_duplicated().any()
    sure = {image for image, _ in pairs if len({label for other, label in pairs if other == image}) == 1}
    assert set(kept["image"]) == sure


def test_labels_are_one_zero_minus_one_and_blank_however_written() -> None:
    frame = pl.DataFrame({"A": ["1", "1.0", "0", "0.0", "-1", "-1.0", None]})
    assert binary(frame, ["A"], "t.csv")["A"].to_list() == [1, 1, 0, 0, -1, -1, None]
    with pytest.raises(LabelsError, match=r"t\.csv holds cells that are no labels: A: 2 cells; B: 1 cells") as caught:
        binary(pl.DataFrame({"A": ["1", "secret", "nan"], "B": ["2", "0", None]}), ["A", "B"], "t.csv")
    assert "secret" not in str(caught.value)


def test_a_label_that_is_none_is_not_quoted_and_the_nearest_is_named() -> None:
    unknown_labels(["Edema"], ["Edema", "Mass"], "t.csv")
    with pytest.raises(LabelsError, match=r"holds 2 labels that the data set does not have: near to Edema\.") as caught:
        unknown_labels(["Edemas", "Jane Doe"], ["Edema", "Mass"], "t.csv")
    assert "Jane" not in str(caught.value)


def test_sex_and_age_are_read_from_however_a_table_writes_them() -> None:
    frame = pl.DataFrame({"sex": ["Female", "M", "Unknown", None], "age": ["060Y", "414", "6M", None]})
    assert frame.select(sex_column("sex"))["sex"].to_list() == ["F", "M", "", ""]
    assert frame.select(age_column("age"))["age"].to_list() == [60.0, None, 0.5, None]


def test_files_are_listed_folder_by_folder_the_first_wins(tmp_path: Path) -> None:
    for name in ("one/a.png", "two/a.png", "two/b.png", "two/deeper/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = listed([tmp_path / "absent", tmp_path / "one", tmp_path / "two"])
    assert found == {"a.png": str(tmp_path / "one/a.png"), "b.png": str(tmp_path / "two/b.png")}


def test_a_picture_that_cannot_be_there_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "good.png").write_bytes(b"\x89PNG")
    with zipfile.ZipFile(tmp_path / "0.zip", "w") as archive:
        archive.writestr("in.png", b"\x89PNG")
    names = ["gone.png", "empty.png", "pointer.png", "good.png", "0.zip/in.png", "0.zip/out.png"]
    expected = ["file_missing", "empty_file", "lfs_pointer", None, None, "file_missing"]
    assert [reason_of(str(tmp_path / name)) for name in names] == expected
    assert reason_of("") == "file_missing"
