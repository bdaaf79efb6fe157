"""COVIDx as it is published, and a miniature of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.data.sources import read_sources
from engine.data.sources.covidx import read_covidx
from engine.data.sources.image_table import ImageTable
from engine.errors import ConfigError, InputMissing, LabelsError
from engine.recipe.labelled_sources import CovidxSource

TRAIN = "5 ARDSSevere.png negative cohen\nCOVID 1 COVID(1).png positive sirm\nc57a c57a.png negative rnsa\n"
TEST = "419639-003251 MIDRC-RICORD-1C-46647-0.png positive ricord\nabff abff.png negative rsna\n"


def source(root: Path, **keys: Any) -> CovidxSource:
    return CovidxSource.model_validate({"kind": "covidx", "root": str(root), "drawn": {"valid_share": 0.0}, **keys})


@pytest.fixture
def make(tmp_path: Path, picture: Callable[[Path], Path]) -> Callable[..., Path]:
    """The published folder: two lists without a header, and their pictures."""

    def lay(train: str = TRAIN, test: str = TEST, release: str = "8B", absent: tuple[str, ...] = ()) -> Path:
        root = tmp_path / "covidx"
        root.mkdir()
        for part, text in (("train", train), ("test", test)):
            (root / f"{part}_COVIDx{release}.txt").write_text(text)
            for line in text.splitlines():
                name = line.rsplit(" ", 3)[1] if line.count(" ") >= 3 else ""
                if name and name not in absent:
                    picture(root / part / name)
        return root

    return lay


def split_of(table: ImageTable) -> dict[str, Any]:
    found: dict[str, Any] = table.facts["split"]
    return found


def test_the_source_of_each_image_is_told_because_it_predicts_the_class(make: Callable[..., Path]) -> None:
    table = read_sources([source(make())])
    assert table.frame.select("source", "COVID-19").rows() == [("covidx:ricord", 1), ("covidx:rsna", 0)]
    assert table.facts["by_source"]["test ricord positive"] == 1
    assert table.frame["patient"].to_list() == ["covidx:ricord:419639-003251", "covidx:rsna:abff"]


def test_lines_are_read_from_their_end_and_misspelt_sources_are_mended(make: Callable[..., Path]) -> None:
    table = read_covidx(source(make(), part="train"))
    assert table.frame["image"].to_list() == ["train/ARDSSevere.png", "train/COVID(1).png", "train/c57a.png"]
    assert table.frame["patient"].to_list() == ["covidx:cohen:5", "covidx:sirm:COVID 1", "covidx:rsna:c57a"]
    assert table.frame["source"].to_list() == ["covidx:cohen", "covidx:sirm", "covidx:rsna"]
    assert not table.frame["held_out"].any()


def test_ragged_lines_missing_pictures_and_repeats_have_their_reasons(make: Callable[..., Path]) -> None:
    root = make(TRAIN + "lonely.png positive\n5 ARDSSevere.png negative cohen\n", absent=("c57a.png",))
    table = read_covidx(source(root, part="train"))
    assert table.facts["dropped"] == {"duplicate_image": 1, "file_missing": 1, "row_ragged": 1}
    assert (table.facts["rows"], table.facts["images"], table.facts["left_out"]) == (7, 2, 2)


def test_a_class_that_is_neither_is_an_error_with_the_nearest(make: Callable[..., Path]) -> None:
    with pytest.raises(LabelsError, match=r"train_COVIDx8B\.txt holds 1 label that .* near to positive"):
        read_covidx(source(make(TRAIN.replace("positive", "positve"))))


def test_a_patient_in_both_lists_is_a_leak(make: Callable[..., Path]) -> None:
    root = make(TRAIN + "abff other.png negative rsna\n")
    with pytest.raises(ConfigError, match="the split leaks: 1 patient has images in several parts: their images: 1 in test, 1 in train"):
        read_covidx(source(root))
    table = read_covidx(source(root, part="all", overlap="leave_out"))
    assert table.facts["dropped"] == {"split_overlap": 1} and table.frame.filter(pl.col("split") == "test").height == 2


def test_the_same_id_in_two_sources_is_two_patients(make: Callable[..., Path]) -> None:
    assert read_covidx(source(make(TRAIN + "abff other.png negative cohen\n"), part="all")).facts["images"] == 6


def test_the_test_can_be_read_where_the_training_list_is_not_there(make: Callable[..., Path]) -> None:
    root = make()
    (root / "train_COVIDx8B.txt").unlink()
    assert read_sources([source(root)]).facts["images"] == 2
    with pytest.raises(InputMissing, match=r"train_COVIDx8B\.txt is not there"):
        read_covidx(source(root, part="all"))
    with pytest.raises(ConfigError, match=r"no train_COVIDx8B\.txt there"):
        read_sources([source(root, part="train")])
    with pytest.raises(ConfigError, match=r"no test_COVIDx9B\.txt there"):
        read_sources([source(root, release="9B")])


@pytest.mark.parametrize(("release", "train", "positive"), [("6", 14_311, 517), ("8B", 15_952, 2_158), ("9B", 30_482, 16_490)])
def test_the_real_lists_have_these_rows(real_labels: Path, release: str, train: int, positive: int) -> None:
    root = real_labels / "covidx"
    if not root.is_dir():
        pytest.skip("the COVIDx lists are not on this machine")
    table = read_covidx(source(root, release=release, part="all", overlap="leave_out"))
    split = split_of(table)
    leaks = {"6": 1}.get(release, 0)
    tested = {"6": 200}.get(release, 400)
    assert split["parts"]["test"]["n"] == tested and split["parts"]["train"]["n"] == train - leaks
    assert table.facts["dropped"] == {"file_missing": train + tested - leaks, **({"split_overlap": 1} if leaks else {})}
    assert abs(split["present"]["COVID-19"] - positive - tested // 2) <= leaks
    assert "rnsa" not in " ".join(table.facts["by_source"])


def test_one_patient_of_the_real_release_6_is_in_both_lists(real_labels: Path) -> None:
    if not (real_labels / "covidx").is_dir():
        pytest.skip("the COVIDx lists are not on this machine")
    with pytest.raises(ConfigError, match="the split leaks: 1 patient has images in several parts: their images: 2 in test, 1 in train"):
        read_covidx(source(real_labels / "covidx", release="6"))


def test_in_the_real_8b_test_the_source_tells_the_class(real_labels: Path) -> None:
    if not (real_labels / "covidx").is_dir():
        pytest.skip("the COVIDx lists are not on this machine")
    by_source = read_covidx(source(real_labels / "covidx")).facts["by_source"]
    assert {key: count for key, count in by_source.items() if key.startswith("test")} == {
        "test ricord positive": 200,
        "test rsna negative": 200,
    }
