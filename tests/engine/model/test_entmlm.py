"""Hidden entities and the decoder's attention agree with a slow, literal reading of eqs 10 and 11."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.model.entmlm import attention_mask, hidden_positions
from engine.recipe.pretraining import EntMLM

Report = tuple[list[int], int]
"""Entity number of each word (0 = none), and how many padding positions follow EOT."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def reports(draw: st.DrawFn) -> Report:
    """Entities of one to three words with words between them, numbered from 1."""
    words: list[int] = []
    for number in range(1, draw(st.integers(0, 5)) + 1):
        words += [0] * draw(st.integers(0, 2)) + [number] * draw(st.integers(1, 3))
    return words + [0] * draw(st.integers(0, 2)), draw(st.integers(0, 4))


def as_batch(given_: list[Report]) -> tuple[Tensor, Tensor, Tensor]:
    """entity_ids, word_mask, padding_mask: SOT, words, EOT, padding."""
    length = max(len(words) + 2 + padding for words, padding in given_)
    entity_ids = torch.zeros(len(given_), length, dtype=torch.int64)
    word_mask = torch.zeros(len(given_), length, dtype=torch.bool)
    padding_mask = torch.ones(len(given_), length, dtype=torch.bool)
    for row, (words, _) in enumerate(given_):
        entity_ids[row, 1 : len(words) + 1] = torch.tensor(words, dtype=torch.int64)
        word_mask[row, 1 : len(words) + 1] = True
        padding_mask[row, : len(words) + 2] = False
    return entity_ids, word_mask, padding_mask


def literal_hidden(words: list[int], recipe: EntMLM, noise: list[float]) -> set[int]:
    """Eq 10 for one report: positions (SOT = 0), drawn by the highest of one random number per unit."""
    if recipe.strategy in ("full", "none"):
        return set()
    if recipe.strategy == "entity" and recipe.unit == "entity":
        units = {number: {place for place, word in enumerate(words, 1) if word == number} for number in set(words) - {0}}
    else:
        units = {place: {place} for place, word in enumerate(words, 1) if word or recipe.strategy == "random"}
    count = round(recipe.ratio * len(units))
    if recipe.ratio > 0 and units:
        count = max(count, 1)
    drawn = sorted(units, key=lambda unit: -noise[unit])[:count]
    return set().union(*(units[unit] for unit in drawn))


recipes = st.builds(
    EntMLM,
    strategy=st.sampled_from(["entity", "none", "full", "random"]),
    ratio=st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 1.0]),
    unit=st.sampled_from(["entity", "token"]),
)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(reports(), min_size=1, max_size=4), recipes, st.integers(0, 99))
def test_hidden_positions_follow_eq_10_for_every_strategy(given_: list[Report], recipe: EntMLM, seed: int) -> None:
    entity_ids, word_mask, _ = as_batch(given_)
    hidden = hidden_positions(entity_ids, word_mask, recipe, seeded(seed))
    by_entity = recipe.strategy == "entity" and recipe.unit == "entity"
    noise = torch.rand(len(given_), entity_ids.shape[1] + by_entity, generator=seeded(seed))  # by entity: one per number 0..T
    for row, (words, _) in enumerate(given_):
        assert set(hidden[row].nonzero().flatten().tolist()) == literal_hidden(words, recipe, noise[row].tolist())


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(reports(), min_size=1, max_size=4), recipes, st.integers(0, 99))
def test_neither_sot_nor_eot_nor_padding_is_ever_hidden(given_: list[Report], recipe: EntMLM, seed: int) -> None:
    _, word_mask, _ = as_batch(given_)
    for misplaced in (
        torch.ones_like(word_mask).long(),
        torch.arange(word_mask.shape[1]).expand_as(word_mask),
    ):  # entities where none belong
        assert not (hidden_positions(misplaced, word_mask, recipe, seeded(seed)) & ~word_mask).any()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(reports(), min_size=1, max_size=4), st.sampled_from([0.1, 0.2, 0.5, 1.0]), st.integers(0, 99))
def test_entities_are_hidden_whole_or_not_at_all(given_: list[Report], ratio: float, seed: int) -> None:
    entity_ids, word_mask, _ = as_batch(given_)
    hidden = hidden_positions(entity_ids, word_mask, EntMLM(ratio=ratio), seeded(seed))
    for row, (words, _) in enumerate(given_):
        numbers = set(words) - {0}
        whole = [hidden[row][entity_ids[row] == number] for number in numbers]
        assert all(positions.all() or not positions.any() for positions in whole)
        assert sum(bool(positions.all()) for positions in whole) == (max(1, round(ratio * len(numbers))) if numbers else 0)


def test_a_report_without_entities_is_left_as_it_is() -> None:
    entity_ids, word_mask, padding_mask = as_batch([([0, 0, 0], 2)])
    hidden = hidden_positions(entity_ids, word_mask, EntMLM(ratio=1.0), seeded())
    assert not hidden.any()
    causal = torch.ones(7, 7).tril().bool() & ~padding_mask | torch.eye(7).bool()
    assert torch.equal(attention_mask(hidden, padding_mask)[0, 0], causal)


def test_every_entity_is_drawn_equally_often() -> None:
    entity_ids, word_mask, _ = as_batch([([1, 1, 1, 0, 2, 3, 3, 4, 5], 0)])
    hidden = hidden_positions(entity_ids.expand(20_000, -1), word_mask.expand(20_000, -1), EntMLM(ratio=0.4), seeded(1))
    often = hidden[:, [1, 5, 6, 8, 9]].float().mean(0)
    assert often.tolist() == pytest.approx([0.4] * 5, abs=5 * math.sqrt(0.4 * 0.6 / 20_000))


def test_the_generator_alone_decides_what_is_drawn() -> None:
    entity_ids, word_mask, _ = as_batch([([1, 0, 2, 2, 0, 3, 4, 5, 6], 1)] * 8)
    before = torch.get_rng_state()
    first, again, other = (hidden_positions(entity_ids, word_mask, EntMLM(ratio=0.5), seeded(seed)) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(reports(), min_size=1, max_size=3), st.integers(0, 99))
def test_attention_follows_eq_11(given_: list[Report], seed: int) -> None:
    entity_ids, word_mask, padding_mask = as_batch(given_)
    hidden = hidden_positions(entity_ids, word_mask, EntMLM(ratio=0.5), seeded(seed))
    mask = attention_mask(hidden, padding_mask)
    batch, length = hidden.shape
    assert mask.shape == (batch, 1, length, length)
    for row in range(batch):
        for query in range(length):
            for key in range(length):
                causal = key <= query
                attended = not hidden[row, key] and not padding_mask[row, key]
                assert bool(mask[row, 0, query, key]) == (key == query or (causal and attended))


def test_every_query_has_a_key() -> None:
    mask = attention_mask(torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool))
    assert mask.any(-1).all()
