"""Every recipe that ships loads, says what it is, and is worth its place."""

import re

import pytest

from engine.recipe import load_recipe, read_recipe, recipe_name, shipped_recipes
from engine.recipe.kinds import KINDS, kind_of
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.prompts import PromptRecipe
from engine.recipe.sources import CHEXPERT_FINDINGS

RECIPES = shipped_recipes()


def test_the_three_recipes_of_the_first_line_are_there():
    assert {"chest14", "mimic_padchest", "tiny"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=recipe_name)
def test_a_shipped_recipe_loads_and_names_its_source(path):
    kind = kind_of(read_recipe(path)[1].values)
    assert kind is not None
    assert load_recipe(path, KINDS[kind]).source


@pytest.mark.parametrize("path", RECIPES, ids=recipe_name)
def test_a_shipped_recipe_names_no_machine_s_path(path):
    assert not re.search(r"(^|[\s'\"=:])(/home|/work|/mnt|/tmp|/root|[A-Z]:\\)", path.read_text("utf-8"), re.M)


def test_mimic_padchest_holds_the_paper_s_numbers():
    recipe = load_recipe("mimic_padchest", PretrainRecipe)
    assert [source.kind for source in recipe.sources] == ["mimic_cxr", "padchest"]
    assert recipe.model.init == "openai/clip-vit-base-patch16"
    assert (recipe.optimizer.name, recipe.optimizer.momentum, recipe.optimizer.lr) == ("sgd", 0.9, 5e-5)
    assert (recipe.batch.paired, recipe.batch.unpaired, recipe.warmup.iterations, recipe.model.image.size) == (64, 64, 15_000, 224)
    assert recipe.prompt.findings == CHEXPERT_FINDINGS


def test_chest14_scores_the_fourteen_findings_of_chexpert():
    assert set(load_recipe("chest14", PromptRecipe).findings) == set(CHEXPERT_FINDINGS)
