"""A pretrained model as it is kept: its bundle, its first card, and its recipe without the paths of the machine that made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.model.bundle import save_bundle

if TYPE_CHECKING:
    from engine.model.starting import Starting
    from engine.recipe.pretraining import PretrainRecipe


def save_pretrained(
    folder: Path, starting: Starting, weights: dict[str, Tensor], recipe: PretrainRecipe, facts: Mapping[str, Any], **counts: int
) -> None:
    """The bundle of a run.

    Args:
        starting: what it started from: the towers' configuration, tokenizer and preprocessing.
        weights: of the trained towers, on the host.
        facts: of `run.json`.
        counts: `steps`, `paired` and `unpaired`, as `first_card` takes them.
    """
    from transformers import CLIPModel

    with torch.device("meta"):
        clip = CLIPModel(starting.module.clip.config)
    clip.load_state_dict(weights, assign=True)  # the trained towers may be sharded
    save_bundle(
        folder / "bundle",
        clip,
        starting.tokenizer,
        starting.preprocessing,
        name=folder.name or "run",
        card=first_card(recipe, **counts, data_hash=facts["data_hash"], recipe_hash=facts["recipe_hash"]),
        provenance={
            "steps": counts["steps"],
            "recipe": portable_recipe(facts["recipe"]),
            **{key: facts[key] for key in ("recipe_hash", "data_hash", "sources", "versions", "seed")},
        },
    )


def first_card(recipe: PretrainRecipe, *, steps: int, paired: int, unpaired: int, data_hash: str, recipe_hash: str) -> str:
    """A model card of what is known without having judged the model.

    Args:
        steps: that were taken.
        paired, unpaired: images trained on, with and without words.
        data_hash, recipe_hash: of which the card shows the first twelve digits.
    """
    kinds = sorted(
        {"weak pairs (sentences made from labels)" if getattr(s, "reports", "") == "weak" else "reports" for s in recipe.sources}
    )
    return "\n".join(
        [
            "RESEARCH USE ONLY - not for clinical use.",
            "",
            f"MMCLIP pretrained for {steps} steps of {recipe.batch.paired} images with a report and {recipe.batch.unpaired} without, "
            f"seed {recipe.seed}.",
            f"Images: {paired} with words ({', '.join(kinds)}), {unpaired} without; data {data_hash[:12]}, recipe {recipe_hash[:12]}.",
            f"Source of the recipe: {recipe.source or 'not given'}",
            "Not evaluated: nothing is known yet of how well it tells findings apart.",
            "",
        ]
    )


def portable_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A dumped recipe as a model may carry it to others: of an absolute path, however deep it stands, only its last part."""
    return {key: _portable(value) for key, value in recipe.items()}


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return portable_recipe(value)
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
