"""Parts of a data set, named, hashed and without a patient in common."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.sources.published_splits import drawn_parts, parts_by_lists, read_list, sha256_of, stem_of, without_overlap, without_valid
from engine.errors import ConfigError, InputMissing

SHARES = (("train", 0.7), ("valid", 0.15), ("test", 0.15))
NAMES = st.text("abc019_-.", min_size=1, max_size=12)


def rows(*pairs: tuple[str, str]) -> pl.DataFrame:
    """One row for each (patient, part)."""
    columns = {"patient": [patient for patient, _ in pairs], "split": [part for _, part in pairs]}
    return pl.DataFrame(columns).with_columns(reason=pl.lit(None, pl.String))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("00000001_000.png", "00000001_000"),
        ("images_001/images/00000001_000.PNG", "00000001_000"),
        ("0004cfab-14fd", "0004cfab-14fd"),
        ("CR.1.2.840.113564.1722", "CR.1.2.840.113564.1722"),
        ("C:\\data\\a.dcm", "a"),
    ],
)
def test_an_image_is_known_without_folder_and_suffix(name: str, stem: str) -> None:
    assert stem_of(name) == stem


@given(st.lists(NAMES))
def test_the_hash_of_a_split_knows_no_order_and_no_repeats(names: list[str]) -> None:
    assert sha256_of(names) == sha256_of(names[::-1]) == sha256_of([*names, *names])


def test_the_hash_is_that_of_the_sorted_names_one_a_line() -> None:
    # printf 'a\nb' | sha256sum
    assert sha256_of(["b", "a"]) == "7e18f737311b2dc3b2f269dd78396b0351f14fb66efa879f768cb23181883c78"


@given(st.sets(NAMES, min_size=1), st.sets(NAMES), st.integers(0, 5))
def test_a_patient_keeps_its_part_whoever_else_is_there(patients: set[str], others: set[str], seed: int) -> None:
    alone, among = drawn_parts(patients, SHARES, seed), drawn_parts(patients | others, SHARES, seed)
    assert {patient: among[patient] for patient in patients} == alone


def test_drawn_parts_have_about_their_share_and_depend_on_the_seed() -> None:
    patients = [str(number) for number in range(4_000)]
    parts = drawn_parts(patients, SHARES, 0)
    counts = {part: sum(each == part for each in parts.values()) / 4_000 for part, _ in SHARES}
    assert counts == pytest.approx({"train": 0.7, "valid": 0.15, "test": 0.15}, abs=0.025)
    assert parts != drawn_parts(patients, SHARES, 1)


@pytest.mark.parametrize(
    "text",
    [
        "a.png\nc.png\n",
        "a\r\nc\r\n",
        "Image,Label\nx/a.png,1\nx/c.png,0\n",
        "1,a.png,b.png\n0,c.png,z.png\n",
        "a.png\nc.png\nunheard_of.png\n",
    ],
)
def test_a_list_is_lines_or_the_column_of_a_csv_that_names_most_images(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    assert read_list(tmp_path / "list.txt", ["a.png", "b.png", "c.png"]) == {"a", "c"}


def test_a_list_of_another_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("secret_one\nsecret_two\n")
    with pytest.raises(ConfigError, match=r"the list list\.txt names no image") as caught:
        read_list(tmp_path / "list.txt", ["a.png"])
    assert "secret" not in str(caught.value)
    with pytest.raises(InputMissing):
        read_list(tmp_path / "absent.txt", ["a.png"])


def test_images_that_no_list_names_are_the_rest() -> None:
    found = parts_by_lists(pl.DataFrame({"image": ["a.png", "b.png"]}), {"test": frozenset({"b"})}, "train")
    assert found["split"].to_list() == ["train", "test"]


def test_an_image_in_two_lists_is_a_leak() -> None:
    lists = {"test": frozenset({"a", "b"}), "train": frozenset({"b"})}
    with pytest.raises(ConfigError, match="the split leaks: 1 images are named by two of its lists"):
        parts_by_lists(pl.DataFrame({"image": ["a.png", "b.png"]}), lists, "unlisted")


def test_validation_is_drawn_by_patient_out_of_training_alone() -> None:
    table = rows(*[(str(number % 500), "train") for number in range(1_000)], *[(f"t{number}", "test") for number in range(100)])
    found = without_valid(table, 0.2, 0)
    assert found.group_by("patient").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 600
    assert found.filter(pl.col("split") == "test").height == 100
    assert 120 < found.filter(pl.col("split") == "valid").height < 280
    assert without_valid(table, 0, 0).equals(table)
    assert set(without_valid(table, 1, 0)["split"]) == {"valid", "test"}


def test_a_split_that_shares_patients_is_refused_with_counts_and_no_name() -> None:
    table = rows(("secret", "train"), ("secret", "train"), ("secret", "test"), ("other", "train"))
    with pytest.raises(
        ConfigError, match="the split leaks: 1 patient has images in several parts: their images: 1 in test, 2 in train"
    ) as caught:
        without_overlap(table, "refuse")
    assert "secret" not in str(caught.value) and "overlap: leave_out" in str(caught.value)


def test_a_split_that_shares_patients_can_be_read_without_their_training_images() -> None:
    table = rows(("a", "train"), ("a", "valid"), ("a", "test"), ("b", "train"), ("b", "valid"), ("c", "train"))
    left = without_overlap(table, "leave_out")
    assert left["reason"].to_list() == ["split_overlap", "split_overlap", None, "split_overlap", None, None]


def test_rows_that_are_dropped_anyway_share_nothing() -> None:
    table = rows(("a", "train"), ("a", "test")).with_columns(reason=pl.Series([None, "labels_disagree"], dtype=pl.String))
    assert without_overlap(table, "refuse").equals(table)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["train", "valid", "test"])), min_size=1, max_size=20))
def test_after_leaving_out_no_patient_stands_in_two_parts_and_the_test_is_whole(pairs: list[tuple[str, str]]) -> None:
    table = rows(*pairs)
    kept = without_overlap(table, "leave_out").filter(pl.col("reason").is_null())
    assert kept.group_by("patient").agg(pl.col("split").n_unique())["split"].max() == 1
    assert kept.filter(pl.col("split") == "test").height == table.filter(pl.col("split") == "test").height
