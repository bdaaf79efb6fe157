"""Splits of an evaluation by patient."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.splits import drawn, part_account, part_hash, refuse_leakage, with_parts
from engine.errors import ConfigError, LabelsError
from engine.recipe.evaluation import SplitSection


def frame(rows=12, **columns):
    """Two images a study, two studies a patient."""
    table = {
        "image": [f"i{k}" for k in range(rows)],
        "study": [f"s{k // 2}" for k in range(rows)],
        "patient": [f"p{k // 4}" for k in range(rows)],
        "view": ["PA", "LATERAL"] * (rows // 2),
        "split": [""] * rows,
        "sex": ["F"] * rows,
        "age": [40.0] * rows,
        "source": ["t"] * rows,
        "held_out": [k // 4 == 2 for k in range(rows)],
        "Edema": pl.Series([k % 4 // 2 for k in range(rows)], dtype=pl.Int8),
    }
    return pl.DataFrame(table | columns)


def test_held_out_patients_judge_and_the_others_train():
    parts = with_parts(frame(), SplitSection())
    assert parts["part"].to_list() == ["train"] * 8 + ["test"] * 4


def test_a_validation_split_is_chosen_on_and_not_judged_by():
    splits = ["train"] * 4 + ["valid"] * 4 + ["test"] * 4
    table = frame(split=splits, held_out=[False] * 4 + [True] * 8)
    assert with_parts(table, SplitSection(validation="valid"))["part"].to_list() == ["train"] * 4 + ["validation"] * 4 + ["test"] * 4
    assert with_parts(table, SplitSection(test="test", validation="valid"))["part"].to_list()[-4:] == ["test"] * 4


@given(st.floats(0.1, 0.9), st.integers(0, 5))
def test_a_share_set_aside_goes_by_patient(share, seed):
    table = frame(rows=200, held_out=[True] * 200)
    parts = with_parts(table, SplitSection(validation_share=share, seed=seed))
    assert parts.group_by("patient").agg(pl.col("part").n_unique())["part"].max() == 1
    aside = {patient for patient in table["patient"].unique() if drawn(patient, share, seed)}
    assert set(parts.filter(pl.col("part") == "validation")["patient"]) == aside


def test_leakage_is_refused_and_counted():
    with pytest.raises(LabelsError, match="2 patients in test and validation"):
        refuse_leakage(pl.Series(["a", "a", "b", "b", "c"]), pl.Series(["test", "validation", "validation", "test", ""]))


def test_an_empty_test_part_names_the_splits_there_are():
    with pytest.raises(ConfigError, match="splits that the sources name: train"):
        with_parts(frame(split=["train"] * 12), SplitSection(test="autumn"))


def test_the_hash_of_a_part_is_that_of_its_images_in_any_order():
    table = with_parts(frame(), SplitSection())
    assert part_hash(table) == part_hash(table.reverse()) != part_hash(table.head(3))
    account = part_account(table, "test")
    assert (account["images"], account["studies"], account["patients"], account["splits"]) == (4, 2, 1, ["unnamed"])
