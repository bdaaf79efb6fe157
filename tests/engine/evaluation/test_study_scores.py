"""Findings by name, images to studies."""

import numpy as np
import polars as pl
import pytest

from engine.errors import ConfigError
from engine.evaluation.study_scores import finding_columns, studies
from engine.recipe.evaluation import EvaluationRecipe

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
