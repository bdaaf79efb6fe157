"""Scores by words, phrase by phrase, and random weights."""

import dataclasses

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.model.bundle import load_bundle
from engine.model.head import Head
from engine.model.zero_shot import logit_scale, words_by_finding, zero_shot
from engine.recipe.prompts import Phrases, PromptRecipe
from engine.scoring.scorers import WordScorer, scorer_of, spoken

RECIPE = PromptRecipe.model_validate(
    {
        "version": 1,
        "findings": {
            "Edema": {"positive": ("edema", "fluid"), "negative": ("no edema",)},
            "Mass": {"positive": ("mass",), "negative": ("no mass",)},
        },
    }
)
TEMPLATE = Phrases(positive=("{finding}",), negative=("no {finding}",))


@pytest.fixture(scope="module")
def bundle(toy):
    return load_bundle(toy)


@pytest.fixture(scope="module")
def features(bundle):
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8))
    return bundle.image_features(bundle.pixels(pictures)).numpy()


def test_words_of_a_template_hold_the_finding_s_name():
    words = spoken(RECIPE, ["Mass", "Aortic Elongation"], TEMPLATE).findings
    assert list(words) == ["Mass", "Aortic Elongation"]
    assert words["Aortic Elongation"].negative == ("no aortic elongation",)
    assert words["Mass"] == RECIPE.findings["Mass"]


def test_scores_are_those_of_zero_shot_and_an_unread_picture_has_none(bundle, features):
    scorer = scorer_of(bundle, RECIPE, ["Edema", "Mass"])
    with_gap = features.copy()
    with_gap[2] = np.nan
    words = words_by_finding(RECIPE, lambda texts: bundle.text_features(texts).numpy())
    expected = zero_shot(features, words, score=RECIPE.score, pool=RECIPE.pool, scale=logit_scale(RECIPE, bundle.logit_scale))
    found = scorer.scores(with_gap)
    assert np.isnan(found[2]).all()
    assert np.array_equal(found[[0, 1, 3, 4]], expected[[0, 1, 3, 4]])


def test_a_phrase_alone_scores_as_a_recipe_of_that_phrase(bundle, features):
    found = {(each.finding, each.side, each.text): each.scores for each in WordScorer.of(bundle, RECIPE).phrases(features)}
    assert found.keys() == {("Edema", "positive", "edema"), ("Edema", "positive", "fluid")}
    alone = RECIPE.model_copy(update={"findings": {"Edema": Phrases(positive=("fluid",), negative=("no edema",))}})
    assert found["Edema", "positive", "fluid"] == pytest.approx(WordScorer.of(bundle, alone).scores(features)[:, 0])


def test_a_classifier_scores_by_its_own_head_joined_by_name(bundle, features):
    width = features.shape[1]
    head = Head(("pleural_effusion", "Mass"), np.stack([np.ones(width), -np.ones(width)]).astype(np.float32), np.zeros(2, np.float32))
    classifier = dataclasses.replace(bundle, head=head)
    found = scorer_of(classifier, RECIPE, ["Mass", "Pleural Effusion"]).scores(features)
    assert np.array_equal(found, head.scores(features)[:, ::-1])
    with pytest.raises(ConfigError, match="does not know Edema"):
        scorer_of(classifier, RECIPE, ["Edema"])
