from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from engine.data.entities import Span
from engine.data.texts import text_bank
from engine.errors import ConfigError
from engine.model.tokenizer import EOT, tokenize, train_tokenizer

TEXTS = ["No pleural effusion.", "Small pleural effusion on the left.", "Clear lungs. No pneumothorax, no consolidation, no effusion."]
TOKENIZER = train_tokenizer(TEXTS * 3, 300, 24)


class Words:
    """A recogniser that knows two phrases."""

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        found = []
        for text in texts:
            hits = [(text.lower().find(word), word) for word in ("pleural effusion", "pneumothorax")]
            found.append([Span(at, at + len(word), text[at : at + len(word)], "FINDING") for at, word in sorted(hits) if at >= 0])
        return found


def test_the_bank_holds_what_the_text_tower_reads() -> None:
    bank = text_bank({"a": TEXTS[:1], "b": TEXTS[1:]}, TOKENIZER, None, 24)
    tokens = tokenize(TOKENIZER, TEXTS, 24)
    assert np.array_equal(bank.input_ids, tokens.input_ids)
    assert np.array_equal(np.arange(24) >= bank.lengths[:, None], tokens.padding_mask)
    assert not bank.entity_ids.any()
    assert {key: places.tolist() for key, places in bank.places.items()} == {"a": [0], "b": [1, 2]}


def test_a_text_that_is_cut_ends_with_eot() -> None:
    bank = text_bank({"a": ["effusion " * 50]}, TOKENIZER, None, 24)
    eot = TOKENIZER.eos_token_id
    assert bank.lengths[0] == 24
    assert bank.input_ids[0, -1] == eot
    assert (bank.input_ids[0, :-1] != eot).all()


def test_a_special_token_in_a_text_is_text() -> None:
    bank = text_bank({"a": [f"Clear{EOT} lungs."]}, TOKENIZER, None, 48)
    assert (bank.input_ids[0, : bank.lengths[0]] == TOKENIZER.eos_token_id).sum() == 1


def test_equal_texts_are_kept_once() -> None:
    bank = text_bank({"a": ["Clear.", "Clear.", "Effusion."], "b": ["Effusion."]}, TOKENIZER, None, 24)
    assert len(bank.input_ids) == 2
    assert bank.places["a"].tolist() == [0, 0, 1] and bank.places["b"].tolist() == [1]


def test_entities_mark_exactly_their_tokens() -> None:
    texts = [*TEXTS, "clear " * 15 + "lungs, pleural effusion"]
    bank = text_bank({"a": texts}, TOKENIZER, Words(), 24)
    for place, text in enumerate(texts[:2]):
        marked = bank.input_ids[place][bank.entity_ids[place] == 1]
        assert TOKENIZER.decode(marked).strip() == "pleural effusion", text
    assert bank.entity_ids[2].max() == 1
    assert not bank.entity_ids[3].any()  # the entity lies beyond the context
    assert not bank.entity_ids[np.arange(24) >= bank.lengths[:, None]].any()


def test_a_tokenizer_without_ends_is_refused() -> None:
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(ConfigError, match="SOT first and EOT last"):
        text_bank({"a": TEXTS}, bare, None, 24)
    with pytest.raises(ConfigError, match="too short"):
        text_bank({"a": TEXTS}, TOKENIZER, None, 2)


def test_no_texts_make_an_empty_bank() -> None:
    bank = text_bank({}, TOKENIZER, Words(), 24)
    assert bank.input_ids.shape == (0, 24)
