"""What is scored: a recipe's findings by words, or a classifier's own."""

import dataclasses

import numpy as np
import pytest

from engine.errors import ConfigError, RecipeError, UsageError
from engine.model.bundle import load_bundle, save_bundle
from engine.model.head import Head
from engine.recipe.finetuning import FinetuneRecipe
from engine.recipe.pretraining import PretrainRecipe
from engine.scoring.targets import prompt_warnings, scoring_targets

FINDINGS = ("Edema", "Fracture")


@pytest.fixture(scope="module")
def toy(random_bundle, tmp_path_factory):
    return random_bundle(tmp_path_factory.mktemp("asked") / "toy")


@pytest.fixture(scope="module")
def classifier(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked") / "classifier"
    width = toy.clip.config.projection_dim
    head = Head(FINDINGS, np.eye(2, width, dtype=np.float32), np.float32([0, 1]))
    save_bundle(folder, toy.clip, toy.tokenizer, toy.preprocessing, name="classifier", head=head)
    return load_bundle(folder), folder


def test_words_answer_for_the_findings_of_a_recipe(toy):
    asked = scoring_targets("chest14", "tiny")
    scores = asked.scorer(toy).scores(np.eye(3, toy.clip.config.projection_dim, dtype=np.float32))
    assert scores.shape == (3, len(asked.findings)) == (3, 14)
    assert asked.account(toy)["name"] == "chest14"


def test_a_classifier_answers_for_its_own_findings(classifier):
    bundle, folder = classifier
    asked = scoring_targets(None, folder)
    assert asked.findings == FINDINGS
    features = np.zeros((1, bundle.clip.config.projection_dim), np.float32)
    assert asked.scorer(bundle).scores(features)[0] == pytest.approx([0.5, 1 / (1 + np.exp(-1))])
    assert asked.account(bundle)["source"] == "classifier"


def test_a_classifier_takes_no_words(classifier):
    with pytest.raises(UsageError, match="its own findings"):
        scoring_targets("chest14", classifier[1])


def test_margins_are_above_0_where_scores_are_above_a_half(toy, classifier):
    rng = np.random.default_rng(0)
    for bundle, asked in ((toy, scoring_targets("chest14", "tiny")), (classifier[0], scoring_targets(None, classifier[1]))):
        scorer = asked.scorer(bundle)
        features = rng.normal(size=(20, bundle.clip.config.projection_dim)).astype(np.float32)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        assert ((asked.margins(bundle, scorer)(features) > 0) == (scorer.scores(features) > 0.5)).all()


def test_a_model_without_findings_needs_words():
    with pytest.raises(UsageError, match="--prompts is missing"):
        scoring_targets(None, "tiny")


def test_another_kind_of_recipe_is_no_prompt_recipe():
    with pytest.raises(RecipeError):
        scoring_targets("weak_sentences", "tiny")


def test_what_is_asked_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        scoring_targets("chest14", "tiny").findings = ()


def test_phrases_that_the_model_cuts_are_notices(toy, classifier, tmp_path):
    long = "there is " + "x" * 60
    (tmp_path / "long.yaml").write_text(f"version: 1\nfindings:\n  Edema: {{positive: [{long} edema], negative: ['clear']}}\n")
    (notice,) = scoring_targets(tmp_path / "long.yaml", "tiny").notices(toy)
    assert "Edema (positive, " in notice
    assert scoring_targets(None, classifier[1]).notices(classifier[0]) == []


@pytest.mark.parametrize(
    ("recipe", "error"),
    [
        ({"steps": 1, "tokenizer": {"vocab": 300}}, "disease prompts need"),
        ({"steps": 1, "tokenizer": {"vocab": 300}, "prompt": {"mode": "separate", "findings": ["Edema"]}}, None),
        ({"epochs": 1}, None),
    ],
)
def test_recipes_of_every_kind_are_checked_against_a_model(toy, tmp_path, recipe, error):
    folder = save_bundle(tmp_path / "toy", toy.clip, toy.tokenizer, toy.preprocessing, name="toy")
    whole = {"version": 1, "sources": [{"kind": "table", "file": "t.csv"}], **recipe}
    checked = (PretrainRecipe if "steps" in recipe else FinetuneRecipe).model_validate(whole)
    if error is None:
        assert all("longer than" in each for each in prompt_warnings(checked, str(folder)))
    else:
        with pytest.raises(ConfigError, match=error):
            prompt_warnings(checked, str(folder))
