"""SplitSection by patient, findings by name, images to studies."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.splits import drawn, part_account, part_hash, refuse_leakage, with_parts
from engine.errors import ConfigError, LabelsError
from engine.evaluation.study_scores import finding_columns, studies
from engine.recipe.evaluation import EvaluationRecipe, SplitSection

RECIPE = EvaluationRecipe.model_validate({"version": 1, "title": "a", "sources": [{"kind": "table", "file": "a.csv"}]})


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


def test_findings_meet_their_words_by_name():
    columns = finding_columns(frame(), ["pleural_effusion", "Edema"], [], ["Edema", "Pleural Effusion", "Fracture"])
    assert columns == {"Pleural Effusion": "pleural_effusion", "Edema": "Edema"}
    assert finding_columns(frame(), ["a", "b"], ["B"], []) == {"b": "b"}


@pytest.mark.parametrize(
    ("wanted", "words", "why"),
    [
        (["Hernia"], ["Hernia"], "no source labels: Hernia"),
        (["Edema"], ["Fracture"], "nothing is said about: Edema"),
        ([], ["Fracture"], "has words"),
    ],
)
def test_findings_without_labels_or_words_are_refused(wanted, words, why):
    with pytest.raises(ConfigError, match=why):
        finding_columns(frame(), ["Edema"], wanted, words)


def test_a_study_is_the_mean_or_maximum_of_the_images_that_could_be_read():
    scores = np.arange(12.0)[:, None] / 12
    scores[1] = np.nan
    table = studies(frame(), scores, {"Edema": "Edema"}, RECIPE)
    assert table.scores[:, 0] == pytest.approx([0, 2.5 / 12, 4.5 / 12, 6.5 / 12, 8.5 / 12, 10.5 / 12])
    assert table.frame["n_images"].to_list() == [1, 2, 2, 2, 2, 2]
    assert table.frame["view"].to_list() == ["PA", *["several"] * 5]
    highest = studies(frame(), scores, {"Edema": "Edema"}, RECIPE.model_copy(update={"aggregate": "max"}))
    assert highest.scores[1, 0] == pytest.approx(3 / 12)
    assert len(studies(frame(), scores, {"Edema": "Edema"}, RECIPE.model_copy(update={"level": "image"})).scores) == 11


def test_images_of_a_study_that_contradict_each_other_are_unknown_and_counted():
    edema = pl.Series([0, 1, 1, None, *[0] * 8], dtype=pl.Int8)
    table = studies(frame(Edema=edema), np.full((12, 1), 0.5), {"Edema": "Edema"}, RECIPE)
    assert table.disagreeing == 1
    assert np.isnan(table.labels[0, 0])
    assert table.labels[1, 0] == 1


def test_the_hash_of_a_part_is_that_of_its_images_in_any_order():
    table = with_parts(frame(), SplitSection())
    assert part_hash(table) == part_hash(table.reverse()) != part_hash(table.head(3))
    account = part_account(table, "test")
    assert (account["images"], account["studies"], account["patients"], account["splits"]) == (4, 2, 1, ["unnamed"])
