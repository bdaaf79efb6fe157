"""Zero-shot scores: each formula by hand, and the properties that none may lose."""

import itertools

import numpy as np
import pytest

from engine.errors import NotFinite
from engine.model.zero_shot import Words, logit_scale, phrases, words_by_finding, zero_shot
from engine.recipe.prompts import PromptRecipe


def unit(rows):
    rows = np.asarray(rows, float)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def pictures():
    return unit(np.random.default_rng(0).normal(size=(7, 16))).astype(np.float32)


@pytest.fixture
def words():
    rng = np.random.default_rng(1)
    return {name: Words(unit(rng.normal(size=(3, 16))), unit(rng.normal(size=(2, 16)))) for name in ("a", "b", "c")}


EVERY = list(itertools.product(("softmax_pair", "cosine", "difference"), ("mean_embed", "mean_prob", "max")))


def by_hand(x, words, score, pool, scale):
    """The docstring of the module, one number at a time."""

    def one(a, b):
        if score == "softmax_pair":
            return 1 / (1 + np.exp(-scale * (a - b)))
        return (2 + a - b) / 4 if score == "difference" else (1 + a) / 2

    if pool == "mean_embed":
        return one(x @ unit(words.positive.mean(0)), x @ unit(words.negative.mean(0)))
    if pool == "max":
        return one(max(x @ p for p in words.positive), max(x @ n for n in words.negative))
    return np.mean([one(x @ p, x @ n) for p in words.positive for n in words.negative])


@pytest.mark.parametrize(("score", "pool"), EVERY)
def test_every_formula_is_the_documented_one(pictures, words, score, pool):
    scores = zero_shot(pictures, words, score=score, pool=pool, scale=9.0)
    expected = [[by_hand(x.astype(float), each, score, pool, 9.0) for each in words.values()] for x in pictures]
    assert scores == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize(("score", "pool"), EVERY)
def test_scores_lie_in_the_unit_interval_whatever_the_scale(pictures, words, score, pool):
    scores = zero_shot(pictures, words, score=score, pool=pool, scale=1e6)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize(("score", "pool"), EVERY)
def test_reordering_findings_reorders_columns_and_batches_change_nothing(pictures, words, score, pool):
    whole = zero_shot(pictures, words, score=score, pool=pool, scale=20.0)
    turned = zero_shot(pictures, {name: words[name] for name in ("c", "a", "b")}, score=score, pool=pool, scale=20.0)
    assert (turned == whole[:, [2, 0, 1]]).all()
    singly = np.concatenate([zero_shot(pictures[[k]], words, score=score, pool=pool, scale=20.0) for k in range(len(pictures))])
    assert (singly == whole).all()


def test_cosine_needs_no_negative_words(pictures, words):
    bare = {"a": Words(words["a"].positive, np.empty((0, 16)))}
    for pool in ("mean_embed", "mean_prob", "max"):
        with_them = zero_shot(pictures, {"a": words["a"]}, score="cosine", pool=pool, scale=1)
        assert zero_shot(pictures, bare, score="cosine", pool=pool, scale=1) == pytest.approx(with_them)


def test_swapping_the_words_turns_the_score_round(pictures, words):
    turned = {"a": Words(words["a"].negative, words["a"].positive)}
    there = zero_shot(pictures, {"a": words["a"]}, score="softmax_pair", pool="mean_embed", scale=10)
    assert zero_shot(pictures, turned, score="softmax_pair", pool="mean_embed", scale=10) == pytest.approx(1 - there)


def recipe(**changes):
    findings = {"a": {"positive": ["x", "y"], "negative": ["z"]}, "b": {"positive": ["z"], "negative": ["x"]}}
    return PromptRecipe.model_validate({"version": 1, "findings": findings} | changes)


def test_a_phrase_is_embedded_once_and_reaches_its_findings():
    asked = []

    def embed(texts):
        asked.extend(texts)
        return np.eye(3)[: len(texts)]

    words = words_by_finding(recipe(), embed)
    assert asked == phrases(recipe()) == ["x", "y", "z"]
    assert (words["a"].positive == np.eye(3)[:2]).all()
    assert (words["b"].positive == words["a"].negative).all()


def test_words_without_a_finite_embedding_are_refused():
    with pytest.raises(NotFinite, match="phrases of the recipe"):
        words_by_finding(recipe(), lambda texts: np.full((len(texts), 2), np.nan))


def test_the_scale_is_the_recipe_s():
    assert logit_scale(recipe(), 14.3) == 14.3
    assert logit_scale(recipe(logit_scale="none"), 14.3) == 1
    assert logit_scale(recipe(logit_scale=50.0), 14.3) == 50
