"""Evaluation recipes: what they refuse, and that the shipped ones fit each other."""

import pytest

from engine.errors import RecipeError
from engine.recipe import find_recipe, load_recipe
from engine.recipe.evaluation import EvaluationRecipe, EvaluationSet, PublishedFigures

LEAST = "version: 1\nsource: a test\ntitle: a row\nsources: [{kind: table, file: a.csv}]\n"


def load(tmp_path, text):
    path = tmp_path / "row.yaml"
    path.write_text(LEAST + text)
    return load_recipe(path, EvaluationRecipe)


def test_the_least_recipe_judges_what_its_sources_hold_out(tmp_path):
    recipe = load(tmp_path, "")
    assert (recipe.parts.test, recipe.models, recipe.threshold.source, recipe.threshold.value) == ("held_out", ("tiny",), "fixed", 0.5)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("threshold: {source: val_f1}\n", "needs a validation split"),
        ("threshold: {source: test_max_f1}\n", "threshold.source"),
        ("template: {positive: [pneumonia]}\n", "must contain"),
        ("ages: [40, 18]\n", "ages must increase"),
        ("treshold: {value: 0.5}\n", "threshold"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, text, why):
    with pytest.raises(RecipeError, match=why):
        load(tmp_path, text)


def test_the_paper_s_table_has_its_rows_and_each_its_published_figures():
    published = load_recipe("eval/published", PublishedFigures).tables
    rows = [load_recipe(find_recipe(name), EvaluationRecipe) for name in load_recipe("eval/paper", EvaluationSet).rows]
    assert len(rows) == 14
    assert all(row.published in published for row in rows)
    fractions = {figure.row for row in rows if row.classifiers for figure in published[row.published].figures}
    assert fractions == {"1 %", "10 %", "100 %"} == {label for row in rows for label in row.classifiers}


def test_the_paper_s_figures_are_those_of_the_paper():
    tables = load_recipe("eval/published", PublishedFigures).tables
    names = ("chexpert", "padchest_seen_8", "rsna")
    found = {name: next(each for each in tables[name].figures if each.model == "MMCLIP") for name in names}
    assert {name: (each.auc, each.f1, each.accuracy) for name, each in found.items()} == {
        "chexpert": (90.53, 67.05, 86.04),
        "padchest_seen_8": (85.79, 33.50, 91.19),
        "rsna": (86.16, 62.57, 80.46),
    }
