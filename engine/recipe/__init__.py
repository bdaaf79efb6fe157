"""Typed recipes: every number and every switch of a run, read strictly from YAML, checked, frozen. No torch.

document.py      YAML text -> values, each with its line; what YAML lets through and a recipe does not
shape.py         which keys a section may hold, and the nearest name of one it may not
overrides.py     `key.sub=value` given outside the file
lineage.py       a recipe that builds on another, and sweeps
faults.py        pydantic's findings in the recipe author's words
loader.py        find a recipe by path or shipped name, load it
base.py          what every recipe shares
sources.py       the data sets that recipes name
labelled.py      those of them that are published with labels
findings.py      the findings by name
pretraining.py   the pretraining recipe
finetuning.py    the fine-tuning recipe
prompts.py       the prompt recipe
evaluation.py    the evaluation recipes, and the published figures
sentences.py     the recipe of sentences for weak pairs
kinds.py         all of these by name, and which one a document looks like
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
