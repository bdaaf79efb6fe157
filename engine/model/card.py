"""What a trained model tells of itself: its first card, and its recipe without the paths of the machine that made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.recipe.pretraining import PretrainRecipe


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
    """A dumped recipe as a model may carry it to others: of an absolute path only its last part."""

    def last(value: Any) -> Any:
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    sources = [{key: last(value) for key, value in source.items()} for source in recipe["sources"]]
    model = {key: last(value) for key, value in recipe["model"].items()}
    return {**recipe, "sources": sources, "model": model, "entities": last(recipe["entities"])}
