"""Phrases that a text tower cuts are named, and phrases that it cannot tell apart are refused."""

import pytest

from engine.errors import ConfigError
from engine.model.bundle import load_bundle, load_tokenizer
from engine.model.phrases import check_phrases, cut_texts, token_counts
from engine.model.tokenizer import train_tokenizer
from engine.recipe.prompts import Phrases

CONTEXT = 12


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes alone: a token is a letter, and SOT and EOT make two more."""
    return train_tokenizer([], 300, CONTEXT)


def warnings_of(tokenizer, **findings):
    phrases = {name: Phrases(positive=tuple(positive), negative=tuple(negative)) for name, (positive, negative) in findings.items()}
    return check_phrases(phrases, tokenizer, CONTEXT, "toy")


def test_tokens_are_counted_with_start_and_end_and_without_a_cut(tokenizer):
    assert token_counts(tokenizer, ["", "abc", "a" * 50]) == [2, 5, 52]
    assert token_counts(tokenizer, []) == []


def test_texts_up_to_the_length_are_whole(tokenizer):
    assert cut_texts(tokenizer, ["a" * 10, "b" * 11, "b" * 11], CONTEXT) == {"b" * 11: 13}


def test_cut_phrases_are_named_with_finding_side_and_length(tokenizer):
    (warning,) = warnings_of(tokenizer, Edema=(["edema", "edema of the lungs"], ["no edema"]), Mass=(["mass"], ["no mass at all"]))
    assert warning.startswith("2 phrases are longer than the 12 tokens of toy")
    assert "Edema (positive, 20 tokens): 'edema of the lungs'" in warning
    assert "Mass (negative, 16 tokens): 'no mass at all'" in warning


def test_of_many_cut_phrases_some_are_named_and_the_rest_counted(tokenizer):
    (warning,) = warnings_of(tokenizer, Edema=([f"edema grade {number}" + "x" * number for number in range(8)], ["none"]))
    assert warning.startswith("8 phrases are") and warning.endswith("; and 3 more") and warning.count("tokens)") == 5


def test_phrases_that_fit_give_no_warning(tokenizer):
    assert warnings_of(tokenizer, Edema=(["edema"], ["no edema"])) == []


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        (["the lungs show edema"], ["the lungs show no edema"]),
        (["edema", "the lungs show edema"], ["no edema", "the lungs show none"]),
        (["EDEMA"], ["edema"]),
    ],
)
def test_a_positive_and_a_negative_that_are_the_same_to_the_model_are_an_error(tokenizer, positive, negative):
    with pytest.raises(ConfigError, match=r"same to the model toy.*reads 12 tokens; Edema: '.*' and '.*shorter phrases") as caught:
        edema = Phrases.model_construct(positive=positive, negative=negative)
        check_phrases({"Mass": Phrases(positive=("mass",), negative=("no mass",)), "Edema": edema}, tokenizer, CONTEXT, "toy")
    assert "Mass" not in str(caught.value)


def test_findings_that_differ_behind_the_cut_alone_are_named(tokenizer):
    cut, alike = warnings_of(tokenizer, A=(["evidence of mass"], ["none"]), B=(["evidence of edema"], ["none"]), C=(["mass"], ["none"]))
    assert "2 phrases are longer" in cut
    assert alike == "findings with the same phrases to toy, and so with equal scores: A and B"


def test_a_tokenizer_is_read_without_the_weights(toy):
    tokenizer, context = load_tokenizer(toy)
    bundle = load_bundle(toy)
    assert (tokenizer.get_vocab(), context) == (bundle.tokenizer.get_vocab(), bundle.context)
