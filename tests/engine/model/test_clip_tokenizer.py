"""OpenAI's tokens: the published ids, transformers' own tokenizer on the same merges, and offsets into the text as given."""

import hashlib
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, CLIPTokenizer

from engine.model.clip_tokenizer import MERGE_COUNT, MERGES, VOCABULARY, clip_tokenizer, clip_vocabulary
from engine.model.tokenizer import tokenize

PUBLISHED = {
    "a photo of a cat": [49406, 320, 1125, 539, 320, 2368, 49407],
    "a photo of a dog": [49406, 320, 1125, 539, 320, 1929, 49407],
    "hello world!": [49406, 3306, 1002, 256, 49407],
    "a diagram": [49406, 320, 22697, 49407],
    "": [49406, 49407],
}
"""As OpenAI's README and the tests of transformers and open_clip print them."""


@cache
def both():
    """Our tokenizer, and transformers' on the same merges."""
    vocabulary, merges = clip_vocabulary()
    return clip_tokenizer(77), CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=77)


@pytest.fixture
def ours():
    return both()[0]


@pytest.fixture
def theirs():
    return both()[1]


@pytest.mark.parametrize("text", PUBLISHED)
def test_published_texts_have_their_published_ids(ours, text):
    assert ours(text)["input_ids"] == PUBLISHED[text]
    assert ours(f"  {text.upper()}\n")["input_ids"] == PUBLISHED[text], "case and white space do not matter"


def test_the_vocabulary_is_openai_s():
    vocabulary, merges = clip_vocabulary()
    assert (len(vocabulary), len(merges)) == (VOCABULARY, MERGE_COUNT)
    assert sorted(vocabulary.values()) == list(range(VOCABULARY))
    assert (vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]) == (49406, 49407)
    assert [vocabulary[token] for token in ("!", "!</w>", "in", "the</w>")] == [0, 256, 512, 518]


def test_the_file_is_the_one_its_readme_names():
    digest = hashlib.sha256(MERGES.read_bytes()).hexdigest()
    assert digest in MERGES.with_name("README.md").read_text("utf-8")
    assert "MIT License" in MERGES.with_name("LICENSE").read_text("utf-8")


REPORTS = (
    "Heart size is normal. No focal consolidation, pleural effusion, or pneumothorax.",
    "Interval placement of a right-sided PICC line; tip at T4/T5, 3.5 cm above the carina.",
    "it's don't we'll they're I'd I've I'm",
    "___ year old man with COPD (FEV1 45%), ?infiltrate",
    "Überprüfung: kein Pleuraerguß — 漢字 \U0001f44d a\u00a0b\u2003c é e\u0301",
    "<|endoftext|> is text here, <|startoftext|> too",
)


@pytest.mark.parametrize("text", REPORTS)
def test_reports_have_the_ids_of_transformers(ours, theirs, text):
    assert ours(text, split_special_tokens=True)["input_ids"] == theirs(text, split_special_tokens=True)["input_ids"]


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_has_the_ids_of_transformers(text):
    mine, its = (each(text, split_special_tokens=True, truncation=True, max_length=77)["input_ids"] for each in both())
    assert mine == its


def test_offsets_are_positions_in_the_text_as_given(ours):
    text = "No  PLEURAL effusion\tor pneumothorax."
    tokens = tokenize(ours, [text], 77)
    said = [text[start:end] for start, end in tokens.offsets[0] if end]
    assert "".join(said) == "".join(text.split())
    assert said[0] == "No"
    assert {"or", "."} < set(said)


def test_what_was_said_comes_back_in_lower_case(ours):
    words = ours("No Pleural Effusion")["input_ids"]
    assert ours.decode(words, skip_special_tokens=True) == "no pleural effusion"
    assert ours.decode([], skip_special_tokens=True) == ""


def test_a_saved_tokenizer_is_the_same_tokenizer(ours, tmp_path):
    ours.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*PUBLISHED, *REPORTS):
        assert again(text, split_special_tokens=True)["input_ids"] == ours(text, split_special_tokens=True)["input_ids"]
    assert (again.model_max_length, again.bos_token_id, again.eos_token_id, again.pad_token_id) == (77, 49406, 49407, 49407)
