"""Single settings given outside the file."""

import pytest

from engine.errors import UsageError
from engine.recipe.composition import overridden
from engine.recipe.pretraining import PretrainRecipe

VALUES = {
    "version": 1,
    "sources": [{"kind": "table", "file": "a.csv"}, {"kind": "padchest", "root": "x"}],
    "steps": 10,
    "tokenizer": {"vocab": 512},
}


def put(*settings):
    return overridden(VALUES, settings, PretrainRecipe)[0]


def test_the_values_given_stay_as_they_are():
    changed, paths = overridden(VALUES, ["steps=20", "sources.1.root=y"], PretrainRecipe)
    assert (changed["steps"], changed["sources"][1]["root"]) == (20, "y")
    assert paths == (("steps",), ("sources", 1, "root"))
    assert (VALUES["steps"], VALUES["sources"][1]["root"]) == (10, "x")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("no", "no"), ("010", "010"), ("true", True), ("null", None), ("", None), ("a=b", "a=b"), ("'1'", "1")],
)
def test_values_follow_the_rules_of_the_file(text, value):
    assert put(f"source={text}")["source"] == value


def test_a_section_the_file_leaves_out_is_made():
    assert put("model.image.width=96")["model"] == {"image": {"width": 96}}


def test_any_key_fits_a_table_whose_keys_are_the_author_s():
    assert put("sources.0.rename.Normal=No Finding")["sources"][0]["rename"] == {"Normal": "No Finding"}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("optimiser.lr=1", "no such key: optimiser.lr. Try: optimizer.lr."),
        ("optimizer.learning_rate=1", "one of name, lr"),
        ("lr=1", "Try: optimizer.lr"),
        ("sources.1.exclude_eval_patient=false", "Try: sources.1.exclude_eval_patients"),
        ("sources.1.file=a.csv", "no such key: sources.1.file"),
        ("sources.2.root=x", "sources has 2 items, counted from 0"),
        ("sources.root=x", "sources has 2 items"),
        ("steps.0=1", "steps has no keys"),
        ("model.image.width.x=1", "no such key"),
        ("steps", "has no key=value"),
        ("=1", "has no key=value"),
        ("steps=[1", "steps cannot be read"),
        ("steps=1e999", "too large"),
        ("steps.=1", "no such key"),
    ],
)
def test_a_setting_that_fits_nowhere_is_a_usage_error(setting, words):
    with pytest.raises(UsageError) as caught:
        put(setting)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2
