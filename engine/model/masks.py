"""What the masks do with a batch: the attention maps, what they propose, what is hidden, what is made of it, and figures of all that.

Everything runs without gradient and on whole batches. A mask is True where something is hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.model import attmim, entmlm

if TYPE_CHECKING:
    from engine.model.mmclip import MMCLIP
    from engine.recipe.pretraining import EntMLM, MaskStrategy

MAPS = ("report", "prompt", "self")
_READS = {"attmim": MAPS, "report": ("report",), "prompt": ("prompt",), "self": ("self",)}
"""The maps that each strategy unites (eq 7); the others read none."""


@dataclass(frozen=True)
class Seen:
    """B images through the eyes of AttMIM.

    Attributes:
        images: (B, 3, S, S), normalised.
        maps: `report`, `prompt`, `self` -> (B, N) float32 scores (eqs 4-6); images without a report lack the first.
        proposed: the same -> (B, N) bool, the patches that the map proposes, M(A, top).
        union: (B, N) bool, what the maps that the strategy reads propose together (eq 7); None where it reads none.
        hidden: (B, N) bool (eq 8).
        predicted: (B, N, patch * patch), the decoder's answer (eq 12); None where it was not asked.
    """

    images: Tensor
    maps: dict[str, Tensor]
    proposed: dict[str, Tensor]
    union: Tensor | None
    hidden: Tensor
    predicted: Tensor | None


@torch.no_grad()
def see(
    model: MMCLIP,
    batch: Mapping[str, Tensor],
    *,
    prompts: tuple[Tensor, Tensor],
    mask: MaskStrategy | None = None,
    generator: torch.Generator | None = None,
    predict: bool = False,
) -> dict[str, Seen]:
    """`paired` and `unpaired` -> what AttMIM sees in that half of the batch, where it has one.

    All three maps are computed, also those that the strategy does not read, so that strategies can be compared.

    Args:
        batch, prompts, mask, generator: as `MMCLIP.losses` takes them.
        predict: ask the image decoder, too.
    """
    prompt, padding = model.prompt_tokens(prompts[0]), prompts[1].flatten()[None]
    seen = {}
    for half, name in (("paired", "images"), ("unpaired", "unpaired_images")):
        if name not in batch:
            continue
        images = batch[name]
        tokens = model.encode_images(images)
        image = model.clip.visual_projection(tokens[:, 1:])
        report = report_padding = None
        if half == "paired":
            report, report_padding = model.clip.text_projection(model.encode_texts(batch["input_ids"])), batch["padding_mask"]
        seen[half] = _seen(model, images, tokens, (image, prompt, report), (padding, report_padding), mask, generator, predict)
    return seen


def _seen(
    model: MMCLIP,
    images: Tensor,
    tokens: Tensor,
    features: tuple[Tensor, Tensor, Tensor | None],
    paddings: tuple[Tensor, Tensor | None],
    mask: MaskStrategy | None,
    generator: torch.Generator | None,
    predict: bool,
) -> Seen:
    recipe, (image, prompt, report), (padding, report_padding) = model.recipe.attmim, features, paddings
    strategy = mask or recipe.strategy
    maps = {} if report is None else {"report": attmim.patch_scores(image, report, report_padding, recipe)}
    maps |= {"prompt": attmim.patch_scores(image, prompt, padding, recipe), "self": attmim.patch_scores(image, image, None, recipe)}
    proposed = {name: attmim.top_patches(scores, recipe.top) for name, scores in maps.items()}
    if strategy == "none":
        return Seen(images, maps, proposed, None, torch.zeros_like(proposed["self"]), None)
    read = [name for name in _READS.get(strategy, ()) if name in maps] or (["self"] if strategy == "report" else [])
    union = torch.stack([proposed[name] for name in read]).any(0) if read else None
    hidden = attmim.hidden_patches(
        image,
        prompt,
        recipe,
        strategy=strategy,
        prompt_padding=padding,
        report=report,
        padding_mask=report_padding,
        generator=generator,
    )
    predicted = model._reconstruct(images, tokens, hidden) if predict else None
    return Seen(images, maps, proposed, union, hidden, predicted)


def mask_facts(seen: Seen) -> dict[str, Tensor]:
    """Numbers about the masks of B images, each the mean over them, 0-d and on their device.

    Returns:
        hidden: share of patches hidden.
        overlap: how alike the maps' proposals are: patches that two of them share over patches that either has, mean over the pairs. Two
            random proposals of 0.7 give 0.54.
        union: share of patches that the maps propose together. Three random proposals of 0.7 give 0.97.
        topped_up: share of the hidden patches that no map proposed, hidden because the union was too small.
        The last two only where the strategy reads maps.
    """
    pairs = [(one & other).sum(1) / (one | other).sum(1).clamp(min=1) for one, other in combinations(seen.proposed.values(), 2)]
    facts = {"hidden": seen.hidden.float().mean(), "overlap": torch.stack(pairs).mean()}
    if seen.union is not None:
        outside = (seen.hidden & ~seen.union).sum(1) / seen.hidden.sum(1).clamp(min=1)
        facts |= {"union": seen.union.float().mean(), "topped_up": outside.mean()}
    return facts


def word_facts(batch: Mapping[str, Tensor], recipe: EntMLM, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Numbers about the words of B reports, each the mean over them, 0-d and on their device.

    Returns:
        words: words (tokens) of a report, SOT, EOT and padding not counted.
        hidden: share of them that the decoder may not look at.
        entities: entities of a report.
        entities_hidden: how many of them have a hidden word.
        without_entity: share of reports in which the recogniser found none.
    """
    padding_mask, entity_ids = batch["padding_mask"], batch["entity_ids"]
    place = torch.arange(padding_mask.shape[1], device=padding_mask.device)
    words = (place > 0) & (place < (~padding_mask).sum(1, keepdim=True) - 1)
    hidden = entmlm.hidden_positions(entity_ids, words, recipe, generator)
    there = _distinct(entity_ids, words)
    return {
        "words": words.sum(1).float().mean(),
        "hidden": (hidden.sum(1) / words.sum(1).clamp(min=1)).mean(),
        "entities": there.float().mean(),
        "entities_hidden": _distinct(entity_ids, hidden).float().mean(),
        "without_entity": (there == 0).float().mean(),
    }


def _distinct(entity_ids: Tensor, where: Tensor) -> Tensor:
    """How many different entities stand at those places of each row: (B, T), (B, T) bool -> (B,)."""
    numbers = torch.zeros(entity_ids.shape[0], entity_ids.shape[1] + 1, dtype=torch.bool, device=entity_ids.device)
    numbers.scatter_(1, torch.where(where, entity_ids, 0), True)
    return numbers[:, 1:].sum(1)
