"""The prompt recipe: what is said about each finding."""

import pydantic
import pytest

from engine.recipe.prompts import PromptRecipe

EDEMA = {"Edema": {"positive": ["edema"], "negative": ["no edema"]}}


def test_the_order_of_findings_is_kept():
    recipe = PromptRecipe(version=1, findings={"Zebra": EDEMA["Edema"], **EDEMA})
    assert list(recipe.findings) == ["Zebra", "Edema"]


def test_a_pair_needs_its_negative_half():
    only_positive = {"Edema": {"positive": ["edema"]}}
    with pytest.raises(pydantic.ValidationError, match="needs negative phrases for: Edema"):
        PromptRecipe(version=1, findings=only_positive)
    assert PromptRecipe(version=1, findings=only_positive, score="cosine").score == "cosine"


def test_a_negated_negation_is_refused():
    with pytest.raises(pydantic.ValidationError, match="inverts the finding"):
        PromptRecipe(version=1, findings={"No Finding": {"positive": ["no finding"], "negative": ["No no finding"]}})


@pytest.mark.parametrize("phrase", ["", "x" * 401])
def test_a_phrase_has_words_and_an_end(phrase):
    with pytest.raises(pydantic.ValidationError, match="String should have"):
        PromptRecipe(version=1, findings={"Edema": {"positive": [phrase], "negative": ["no edema"]}})


@pytest.mark.parametrize("scale", ["learned", "none", 14.3])
def test_the_scale_is_learned_or_none_or_a_number(scale):
    assert PromptRecipe(version=1, findings=EDEMA, logit_scale=scale).logit_scale == scale


@pytest.mark.parametrize("scale", [0, -1, "often"])
def test_no_other_scale(scale):
    with pytest.raises(pydantic.ValidationError, match="logit_scale"):
        PromptRecipe(version=1, findings=EDEMA, logit_scale=scale)


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        ({"Edema": ("edema", "no edema"), "EDEMA": ("oedema", "no oedema")}, "is the same name as Edema"),
        ({"Pleural Effusion": ("fluid", "no fluid"), "pleural-effusion": ("effusion", "no effusion")}, "same name"),
        ({"study": ("a", "b")}, "name of a table column"),
        ({"Flags": ("a", "b")}, "name of a table column"),
        ({"Edema": ("Edema.", "edema")}, "every score would be 0.5"),
    ],
)
def test_findings_that_cannot_be_told_apart_are_faults(findings, message):
    sections = {name: {"positive": [positive], "negative": [negative]} for name, (positive, negative) in findings.items()}
    with pytest.raises(pydantic.ValidationError, match=message):
        PromptRecipe.model_validate({"version": 1, "findings": sections})
