"""AttMIM: patches to hide, chosen by the attention of report, prompts and the image itself (MMCLIP, eqs 4-8).

Decisions, where the paper leaves one open (the recipe key in brackets):

    eqs 4-6  no L2 normalisation before the attention softmax                         [attmim.normalize]
    eqs 4-6  one number per patch from the N x C map A: the L2 norm of its rows       [attmim.score]
    eq 7     an image without a report unites the maps of prompts and image alone
    eq 8     exactly round(ratio * N) patches are hidden; a union that is smaller is
             topped up from outside by mean rank over the maps                        [attmim.ratio_of]
    Table III's single maps ("report", "prompt", "self") are drawn and topped up the same way; "report" falls back to
             the image's own map where there is no report.

Everything here runs without gradient, on whole batches, with no loop over samples and no host synchronisation.
A mask is True where a patch is hidden.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.recipe.pretraining import AttMIM, MaskStrategy


@torch.no_grad()
def patch_scores(image: Tensor, context: Tensor, padding_mask: Tensor | None, recipe: AttMIM) -> Tensor:
    """One score per patch from its cross-attention to `context` (eqs 4-6); higher means more related.

    Args:
        image: E_img, (B, N, C) projected patch tokens.
        context: E_report or E_prompt, (B or 1, T, C) projected tokens; E_img itself for the image's own map.
        padding_mask: (B or 1, T), True where a token is padding; None for no padding.

    Returns:
        (B, N) float32.
    """
    with torch.autocast(image.device.type, enabled=False):  # autocast would take the products in bfloat16, whose steps make ties of ranks
        return _patch_scores(image.float(), context.float(), padding_mask, recipe)


def _patch_scores(image: Tensor, context: Tensor, padding_mask: Tensor | None, recipe: AttMIM) -> Tensor:
    queries, keys = image, context
    if recipe.normalize:
        queries, keys = torch.nn.functional.normalize(image, dim=-1), torch.nn.functional.normalize(context, dim=-1)
    logits = queries @ keys.transpose(-1, -2) / math.sqrt(image.shape[-1])  # (B, N, T)
    if padding_mask is not None:
        logits = logits.masked_fill(padding_mask[:, None, :], float("-inf"))
    if recipe.score == "logsumexp":
        return torch.logsumexp(logits, dim=-1)
    if recipe.score == "column":  # softmax over patches instead: the attention of each token to the patches, averaged over the tokens
        columns = torch.nan_to_num(logits.softmax(dim=1))  # a padding column is all -inf, hence NaN
        kept = columns.shape[-1] if padding_mask is None else (~padding_mask).sum(-1, keepdim=True)
        return columns.sum(-1).div(kept)
    attended = logits.softmax(dim=-1) @ context  # A, (B, N, C)
    if recipe.score == "l2":
        return attended.square().sum(dim=-1).sqrt()
    if recipe.score == "mean":
        return attended.mean(dim=-1)
    return torch.nn.functional.cosine_similarity(attended, image, dim=-1)  # cos_img


def top_patches(scores: Tensor, share: float) -> Tensor:
    """M(A, share): True for the round(share * N) highest of each row of (B, N) scores."""
    count = round(share * scores.shape[1])
    chosen = scores.topk(count, dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, chosen, True)


@torch.no_grad()
def random_subset(
    proposed: Tensor, ranks: Tensor, recipe: AttMIM, generator: torch.Generator | None, noise: Tensor | None = None
) -> Tensor:
    """RandomSubSet(M_b, ratio) (eq 8): hidden patches drawn at random from the proposed ones, topped up from outside by rank.

    Args:
        proposed: (B, N) bool, the union of eq 7.
        ranks: (B, N) in [0, 1], the order in which patches outside the union are added (highest first).
        noise: (B, N) uniform numbers in [0, 1) to draw with; None takes them from the generator.

    Returns:
        (B, N) bool; round(ratio * N) True in every row, or round(ratio * |union|) with `ratio_of: union`.
    """
    draw = torch.rand(proposed.shape, generator=generator, device=proposed.device) if noise is None else noise
    order = torch.where(proposed, 2.0 + draw, ranks)  # every proposed patch comes before every other
    if recipe.ratio_of == "union":
        return highest(order, (recipe.ratio * proposed.sum(dim=1, keepdim=True)).round())
    return highest(order, round(recipe.ratio * proposed.shape[1]))


def highest(order: Tensor, count: Tensor | int) -> Tensor:
    """True for the `count` highest, a number or one per row, of each row of (B, N)."""
    place = order.argsort(dim=1, descending=True).argsort(dim=1)  # 0 = the highest
    return place < count


def _ranks(scores: Tensor) -> Tensor:
    return scores.argsort(dim=1).argsort(dim=1).float() / scores.shape[1]


@torch.no_grad()
def hidden_patches(
    image: Tensor,
    prompts: Tensor,
    recipe: AttMIM,
    *,
    strategy: MaskStrategy | None = None,
    prompt_padding: Tensor | None = None,
    report: Tensor | None = None,
    padding_mask: Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """The mask of one batch: eqs 4-8, or one of Table III's plainer strategies.

    Args:
        image: E_img, (B, N, C).
        prompts: E_prompt, (1, P, C).
        strategy: overrides the recipe's (warm-up may mask at random).
        prompt_padding: (1, P), True = padding of the prompts; None for no padding.
        report: E_report, (B, T, C); None for images without a report.
        padding_mask: (B, T), True = padding of the report.
        generator: of `image`'s device.
        noise: (B, N) uniform numbers in [0, 1) instead: the mask of a row then does not depend on the other rows.

    Returns:
        (B, N) bool, True = hidden.
    """
    strategy = strategy or recipe.strategy
    if strategy == "random":
        ranks = torch.rand(image.shape[:2], generator=generator, device=image.device) if noise is None else noise
        return highest(ranks, round(recipe.ratio * image.shape[1]))
    maps = []
    if report is not None and strategy in ("attmim", "report"):
        maps.append(patch_scores(image, report, padding_mask, recipe))
    if strategy in ("attmim", "prompt"):
        maps.append(patch_scores(image, prompts, prompt_padding, recipe))
    if strategy in ("attmim", "self") or not maps:
        maps.append(patch_scores(image, image, None, recipe))
    union = torch.stack([top_patches(scores, recipe.top) for scores in maps]).any(0)
    ranks = torch.stack([_ranks(scores) for scores in maps]).mean(0)
    return random_subset(union, ranks, recipe, generator, noise)
