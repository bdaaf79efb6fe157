"""EntMLM: report positions hidden from the text decoder, chosen by entities (MMCLIP, eqs 10-11).

Decisions (the recipe key in brackets):

    eq 10  whole entities are drawn, round(ratio * number of entities) of a report and at least one where it has any   [entmlm.unit]
    eq 11  a hidden position leaves the keys of the decoder's causal self-attention, except for the query at that
           very position (a softmax needs one key), and never SOT, EOT or padding                                       [entmlm.mode]
    Table IV  "random" draws from all words; "full" hides nothing (plain causal); no entity in a report: plain causal

Gradient-free, batched, exact counts. A mask is True where a position is hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.recipe.pretraining import EntMLM


def _draw(units: Tensor, ratio: float, generator: torch.Generator | None, noise: Tensor | None) -> Tensor:
    """round(ratio * n) of the n units of each row, drawn at random, at least one if n and ratio are not 0. (B, U) bool -> same."""
    noise = torch.rand(units.shape, generator=generator, device=units.device) if noise is None else noise[:, : units.shape[1]]
    place = torch.where(units, noise, -1.0).argsort(dim=1, descending=True).argsort(dim=1)
    there = units.sum(dim=1, keepdim=True)
    count = (ratio * there).round().clamp(min=1 if ratio > 0 else 0).minimum(there)
    return (place < count) & units


@torch.no_grad()
def hidden_positions(
    entity_ids: Tensor, word_mask: Tensor, recipe: EntMLM, generator: torch.Generator | None = None, noise: Tensor | None = None
) -> Tensor:
    """The positions hidden in each report (eq 10).

    Args:
        entity_ids: (B, T) int64; 0 = no entity, k = the k-th entity of that report.
        word_mask: (B, T) bool, True for tokens of the text itself: not SOT, EOT or padding.
        noise: (B, T + 1) uniform numbers in [0, 1) to draw with; None takes them from the generator.

    Returns:
        (B, T) bool, True = hidden. All False for `full` and `none`, and for reports without entities.
    """
    if recipe.strategy in ("full", "none"):
        return torch.zeros_like(word_mask)
    if recipe.strategy == "random":
        return _draw(word_mask, recipe.ratio, generator, noise)
    in_entity = (entity_ids > 0) & word_mask
    if recipe.unit == "token":
        return _draw(in_entity, recipe.ratio, generator, noise)
    # which of the entity numbers 0..T occur in each report; a report of T tokens has at most T entities
    numbers = torch.zeros(entity_ids.shape[0], entity_ids.shape[1] + 1, dtype=torch.bool, device=entity_ids.device)
    numbers.scatter_(1, torch.where(in_entity, entity_ids, 0), True)
    numbers[:, 0] = False
    drawn = _draw(numbers, recipe.ratio, generator, noise)
    return drawn.gather(1, entity_ids) & in_entity


def attention_mask(hidden: Tensor, padding_mask: Tensor) -> Tensor:
    """The positions that each position may attend to (eq 11): earlier ones, without hidden positions and padding, and itself.

    Args:
        hidden: (B, T), True = hidden.
        padding_mask: (B, T), True = padding.

    Returns:
        (B, 1, T, T) bool, [b, 0, query, key], True = may be attended.
    """
    length = hidden.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=hidden.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=hidden.device)
    open_keys = ~(hidden | padding_mask)
    return ((causal & open_keys[:, None, :]) | itself)[:, None]
