from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.sources import read_sources
from engine.data.sources.image_table import DROPS
from engine.data.sources.padchest import PADCHEST_TABLE, label_items, padchest_table, read_padchest, with_reasons
from engine.errors import ConfigError, ReadError
from engine.recipe.sources import PadchestSource


def source(root: Path, **keys: bool | int | str) -> PadchestSource:
    return PadchestSource.model_validate({"kind": "padchest", "root": str(root), **keys})


def row(image: str, patient: str, **cells: str) -> dict[str, str]:
    return {"ImageID": f"{image}.png", "PatientID": patient, "StudyID": f"s{patient}", **cells}


@pytest.fixture(scope="module")
def real(real_table: Callable[[str], Path]) -> pl.DataFrame:
    return padchest_table(real_table(PADCHEST_TABLE))


def dropped(table: pl.DataFrame, **keys: bool) -> dict[str | None, int]:
    counts = dict(with_reasons(table, source(Path(), **keys))["reason"].value_counts().iter_rows())
    assert sum(counts.values()) == len(table)
    assert counts.keys() - {None} <= DROPS.keys()
    return counts


def test_the_real_table_has_these_rows_kept_and_dropped(real: pl.DataFrame) -> None:
    by_view = {"lateral_view": 49_579, "other_view": 630, "excluded_by_source": 11, "view_unknown": 8}
    assert len(real) == 160_861
    assert dropped(real, exclude_eval_patients=False) == {None: 110_633, **by_view}
    assert dropped(real, exclude_eval_patients=False, pediatric=False) == {None: 110_383, **by_view, "pediatric": 250}
    assert dropped(real) == {None: 68_124, **by_view, "eval_patient": 42_509}


def test_no_patient_of_the_real_physician_labelled_images_is_left(real: pl.DataFrame) -> None:
    kept = with_reasons(real, source(Path())).filter(pl.col("reason").is_null())
    assert int(real["physician"].sum()) == 39_053
    assert not set(kept["patient"]) & set(real.filter("physician")["patient"])


def test_the_real_labels_are_exact_items(real: pl.DataFrame) -> None:
    items = real["labels"].explode().drop_nulls()
    assert items.n_unique() == 193
    assert not items.str.contains(r"^\s|\s$|^$|\s\s").any()
    assert real["labels"].null_count() == 103
    assert int(real["labels"].list.contains("pneumonia").sum()) < int(
        real["labels"].cast(pl.List(pl.String)).list.join("|").str.contains("pneumonia").sum()
    )


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("['normal']", ("normal",)),
        ("[' pneumonia', 'pneumonia ', '', 'NSG  tube']", ("pneumonia", "NSG tube")),
        ("[]", ()),
        ("['']", ()),
        ("nan", None),
        (None, None),
        ("['unfinished", None),
        ("[__import__('os')]", None),
    ],
)
def test_label_cells_as_they_are_published(cell: str | None, items: tuple[str, ...] | None) -> None:
    assert label_items(cell) == items


@given(st.lists(st.text("abc '\"", max_size=6)))
def test_any_list_of_labels_comes_back_clean(names: list[str]) -> None:
    items = label_items(repr(names))
    assert items is not None
    assert items == tuple(dict.fromkeys(" ".join(name.split()) for name in names if name.strip()))


def test_folders_and_zips_are_read_in_place(make_padchest: Callable[..., Path]) -> None:
    rows = [row("a", "1"), row("b", "2", ImageDir="1"), row("c", "3", ImageDir="1")]
    root = make_padchest(rows, zipped=["1"], absent=["c.png"])
    table = read_padchest(source(root))
    assert table.frame["image"].to_list() == ["0/a.png", "1/b.png"]
    assert table.frame["file"].to_list() == [f"{root}/0/a.png", f"{root}/1.zip/b.png"]
    assert table.dropped.rows() == [(f"{root}/1/c.png", "file_missing")]


def test_what_is_dropped_has_its_reason_and_the_counts_add_up(make_padchest: Callable[..., Path]) -> None:
    rows = [
        row("kept", "1", Projection="AP_horizontal"),
        row("lateral", "1", Projection="L"),
        row("ribs", "1", Projection="COSTAL"),
        row("left_out", "1", Projection="EXCLUDE"),
        row("unknown", "1", Projection="UNK"),
        row("child", "2", Pediatric="PED"),
        row("judged", "3", MethodLabel="Physician"),
        row("same_patient", "3"),
        row("twin", "4", StudyID=""),
    ]
    root = make_padchest(rows)
    table = read_padchest(source(root, pediatric=False))
    assert table.frame["view"].to_list() == ["AP_horizontal"]
    expected = ["lateral_view", "other_view", "excluded_by_source", "view_unknown", "pediatric", "eval_patient", "eval_patient", "no_study"]
    assert table.dropped["reason"].to_list() == expected
    assert table.facts["rows"] == len(rows) == table.facts["images"] + sum(table.facts["dropped"].values())
    assert len(read_padchest(source(root, exclude_eval_patients=False)).frame) == 4


def test_a_row_says_what_the_table_says(make_padchest: Callable[..., Path]) -> None:
    table = read_padchest(source(make_padchest([row("a", "7", PatientSex_DICOM="O")]), repeat=2))
    (only,) = table.frame.to_dicts()
    assert (only["study"], only["patient"], only["sex"], only["age"]) == ("padchest:s7", "padchest:7", "", 84.0)
    assert not only["paired"] and only["report"] == "" and only["repeat"] == 2 and not only["held_out"]


def test_a_damaged_zip_is_a_reason_of_each_of_its_rows(make_padchest: Callable[..., Path]) -> None:
    root = make_padchest([row("a", "1"), row("b", "2", ImageDir="1")], zipped=["1"])
    (root / "1.zip").write_bytes((root / "1.zip").read_bytes()[:-30])
    table = read_padchest(source(root))
    assert table.frame["image"].to_list() == ["0/a.png"]
    assert table.dropped["reason"].to_list() == ["zip_damaged"]


def test_a_table_that_was_never_fetched_is_an_error(make_padchest: Callable[..., Path]) -> None:
    root = make_padchest([row("a", "1")])
    (root / PADCHEST_TABLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ReadError, match="Git-LFS pointer"):
        read_padchest(source(root))


def test_another_table_is_an_error_that_names_every_column(make_padchest: Callable[..., Path]) -> None:
    root = make_padchest([row("a", "1")])
    (root / PADCHEST_TABLE).write_text("ImageID,Labels\na.png,[]\n")
    with pytest.raises(ConfigError, match=r"no column 'ImageDir'.*StudyID.*PatientID.*Projection.*MethodLabel"):
        read_padchest(source(root))


def test_recipes_read_it(make_padchest: Callable[..., Path]) -> None:
    assert len(read_sources([source(make_padchest([row("a", "1")]))]).frame) == 1
