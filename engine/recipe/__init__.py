"""Typed recipes: all hyperparameters and switches of a run, read strictly from YAML, validated, frozen. Does not import torch.

document.py         YAML text -> values with line numbers; stricter than YAML
schema.py           which keys a section may have; pydantic's errors as faults with line, path and nearest name
composition.py      `base`, `sweep` and `--set key=value`
loader.py           find, merge and check a recipe by path or shipped name; the recipe types
section.py          base classes of all recipes
sources.py          image sources: tables, MIMIC-CXR, PadChest, Open-i; labelled_sources.py: published data sets with labels
pretraining.py      the pretraining recipe
finetuning.py       the fine-tuning recipe
prompts.py          the prompt recipe, and sentences for weak pairs
evaluation.py       evaluation recipes and published figures; evaluation_rows.py: the rows of an evaluation run
"""

from engine.recipe.loader import check_recipe, find_recipe, load_recipe, read_recipe, recipe_name, recipe_names, run_name, shipped_recipes
from engine.recipe.section import Recipe, Section

__all__ = [
    "Recipe",
    "Section",
    "check_recipe",
    "find_recipe",
    "load_recipe",
    "read_recipe",
    "recipe_name",
    "recipe_names",
    "run_name",
    "shipped_recipes",
]
