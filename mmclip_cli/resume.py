"""The recipe that `--resume` continues with."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from engine.recipe.finetuning import FinetuneRecipe
from engine.recipe.pretraining import PretrainRecipe
from mmclip_cli import console

RecipeT = TypeVar("RecipeT", PretrainRecipe, FinetuneRecipe)


def own_recipe(out: Path, recipe: RecipeT, *, quiet: bool) -> RecipeT:
    """The recipe of the run in `out`, which a resumed run continues with where no setting is given; `recipe` where there is no run."""
    from engine.training.provenance import changed_keys, stored_recipe

    stored = stored_recipe(out)
    changed = changed_keys(out, recipe)
    if stored is None or not changed:
        return recipe
    if not quiet:
        console.log("continuing with the run's own recipe", level="warning", differs=", ".join(changed[:8]))
    return type(recipe).model_validate(stored)
