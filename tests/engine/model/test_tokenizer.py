"""Words to tokens: nothing unknown, EOT last, and offsets that point into the text as it was given."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from engine.model.tokenizer import EOT, SOT, tokenize, train_tokenizer

SENTENCES = [
    "No focal consolidation, pleural effusion or pneumothorax.",
    "Small left pleural effusion with adjacent atelectasis.",
    "The cardiac silhouette is enlarged. Mild pulmonary edema.",
    "Right lower lobe pneumonia.",
] * 3
CONTEXT = 24


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(SENTENCES, 400, CONTEXT)


def kept(tokenizer: PreTrainedTokenizerFast, text: str, context: int = CONTEXT) -> tuple[list[str], list[tuple[int, int]]]:
    """The tokens of a text that are no padding, and their offsets."""
    tokens = tokenize(tokenizer, [text], context)
    count = int((~tokens.padding_mask[0]).sum())
    return tokenizer.convert_ids_to_tokens(tokens.input_ids[0, :count].tolist()), tokens.offsets[0][:count]


def test_a_text_becomes_sot_words_eot_and_padding(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenize(tokenizer, ["pleural effusion", ""], CONTEXT)
    sot, eot = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert tokens.input_ids.dtype == np.int64
    assert tokens.input_ids.shape == tokens.padding_mask.shape == (2, CONTEXT)
    assert tokens.input_ids[:, 0].tolist() == [sot, sot]
    lengths = (~tokens.padding_mask).sum(1)
    assert lengths[1] == 2, "an empty text is SOT, EOT"
    for ids, padding, length in zip(tokens.input_ids, tokens.padding_mask, lengths, strict=True):
        assert ids[length - 1] == eot
        assert (ids[length:] == eot).all()
        assert padding.tolist() == [place >= length for place in range(CONTEXT)]


@pytest.mark.parametrize("context", [2, 3, 8, 24])
def test_a_text_that_is_too_long_keeps_eot_in_the_last_place(tokenizer: PreTrainedTokenizerFast, context: int) -> None:
    tokens = tokenize(tokenizer, ["pneumonia and effusion " * 40], context)
    assert tokens.input_ids[0, -1] == tokenizer.eos_token_id
    assert (tokens.input_ids[0, :-1] != tokenizer.eos_token_id).all()
    assert not tokens.padding_mask.any()
    assert tokens.offsets[0][-1] == (0, 0)
    assert len(tokens.offsets[0]) == context


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.lists(
    st.sampled_from(["Pleural", "EFFUSION", "naïve", "İ", "ß", "e\u0301", "\u00a0", "\n\n", "  ", "肺炎", "___", "1.5cm", "🫁", "\u200b"]),
    max_size=12,
).map("".join)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(texts)
@example("<|endoftext|> No effusion <|startoftext|>")
@example("")
def test_no_text_is_unknown_and_none_ends_early(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    names, _ = kept(tokenizer, text, 400)
    assert names[0] == SOT
    assert names[-1] == EOT
    assert not {SOT, EOT} & set(names[1:-1]), "a text that spells a special token is text"
    said = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    ids = tokenizer.convert_tokens_to_ids(names[1:-1])
    assert tokenizer.backend_tokenizer.decode(ids) == said, "nothing of the text is lost but case and white space"


@settings(deadline=None, derandomize=True, max_examples=200)
@given(texts)
def test_offsets_are_positions_in_the_text_as_given(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    names, offsets = kept(tokenizer, text, 400)
    assert offsets[0] == offsets[-1] == (0, 0)
    starts = [start for start, _ in offsets[1:-1]]
    assert starts == sorted(starts)
    assert all(0 <= start <= end <= len(text) for start, end in offsets)
    for name, (start, end) in zip(names[1:-1], offsets[1:-1], strict=True):
        word = name.removeprefix("Ġ")
        if word.isascii() and word and text[start:end].isascii():
            assert text[start:end].lower() == word, "without the space before it"


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.sampled_from(["no", "Small", "PLEURAL", "effusion", "é", "肺", ",", "pneumonia."]), min_size=1, max_size=10), st.data())
def test_every_word_is_found_by_its_offsets(tokenizer: PreTrainedTokenizerFast, words: list[str], data: st.DataObject) -> None:
    text, spans = "", []
    for word in words:
        text += data.draw(st.sampled_from([" ", "  ", "\n", "\t ", "\u00a0"]))
        spans.append((len(text), len(text) + len(word)))
        text += word
    _, offsets = kept(tokenizer, text, 200)
    for start, end in spans:
        inside = [(a, b) for a, b in offsets[1:-1] if a < b and a >= start and b <= end]
        assert min(a for a, _ in inside) == start
        assert max(b for _, b in inside) == end
    covered = {place for a, b in offsets for place in range(a, b)}
    assert {place for place, character in enumerate(text) if not character.isspace()} <= covered


def test_case_white_space_and_composition_make_no_difference(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = "small café effusion"
    for same in ("Small  CAFÉ\n effusion", unicodedata.normalize("NFD", plain), "small\u00a0café\teffusion"):
        assert kept(tokenizer, same)[0] == kept(tokenizer, plain)[0]


def test_training_is_deterministic() -> None:
    first, again = (train_tokenizer(SENTENCES, 400, CONTEXT).backend_tokenizer.to_str() for _ in range(2))
    assert first == again


def test_frequent_words_become_one_token_and_the_size_is_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) <= 400
    assert kept(tokenizer, "small pleural effusion")[0][2:-1] == ["Ġpleural", "Ġeffusion"]
    assert len(train_tokenizer([], 300, CONTEXT)) == 258, "256 bytes and two special tokens"


def test_a_saved_tokenizer_reads_the_same(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "Naïve 肺炎, small\u00a0EFFUSION. <|endoftext|>"
    assert kept(again, text, 60) == kept(tokenizer, text, 60)
    assert (again.bos_token_id, again.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_no_texts_give_no_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenize(tokenizer, [], CONTEXT)
    assert tokens.input_ids.shape == (0, CONTEXT)
    assert tokens.offsets == []


def test_a_text_reads_the_same_whatever_stands_beside_it(tokenizer: PreTrainedTokenizerFast) -> None:
    together = tokenize(tokenizer, SENTENCES[:4], CONTEXT)
    for row, text in enumerate(SENTENCES[:4]):
        alone = tokenize(tokenizer, [text], CONTEXT)
        assert together.input_ids[row].tolist() == alone.input_ids[0].tolist()
        assert together.offsets[row] == alone.offsets[0]
