"""Every recipe that ships loads, says what it is, and is worth its place."""

import re

import pytest

from engine.recipe import load_recipe, read_recipe, recipe_name, recipe_names, shipped_recipes
from engine.recipe.loader import KINDS, kind_of
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.prompts import PromptRecipe
from engine.recipe.sources import CHEXPERT_FINDINGS

RECIPES = shipped_recipes()


def test_the_three_recipes_of_the_first_line_are_there():
    assert {"chest14", "mimic_padchest", "tiny"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_loads_and_names_its_source(name):
    kind = kind_of(read_recipe(name)[1].values)
    assert kind is not None
    assert load_recipe(name, KINDS[kind]).source


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


PAPER = {
    "mimic_padchest": {},
    "paper/table3_none": {"attmim.strategy": "none", "entmlm.strategy": "none", "warmup.iterations": 0},
    "paper/table3_random": {"attmim.strategy": "random", "entmlm.strategy": "none", "warmup.iterations": 0},
    "paper/table3_warmup": {"attmim.strategy": "random", "entmlm.strategy": "none"},
    "paper/table3_report": {"attmim.strategy": "report", "entmlm.strategy": "none"},
    "paper/table3_prompt": {"attmim.strategy": "prompt", "entmlm.strategy": "none"},
    "paper/table3_self": {"attmim.strategy": "self", "entmlm.strategy": "none"},
    "paper/table3_attmim": {"entmlm.strategy": "none"},
    "paper/table4_none": {"entmlm.strategy": "none"},
    "paper/table4_full": {"entmlm.strategy": "full"},
    "paper/table4_random@0.5": {"entmlm.strategy": "random", "entmlm.ratio": 0.5},
    **{f"paper/table4_entity@{ratio}": {"entmlm.ratio": ratio} for ratio in (0.1, 0.2, 0.3, 0.5)},
    **{f"paper/figure6@{ratio}": {"attmim.ratio": ratio} for ratio in (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)},
    **{f"paper/figure7@{top}": {"attmim.top": top} for top in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)},
    **{f"paper/ensemble@{seed}": {"seed": seed} for seed in range(6)},
}
"""Every row of Tables III and IV, point of Figures 6 and 7, and member of the ensemble: all that it changes of the paper's recipe."""


def test_the_paper_s_tables_are_all_there():
    assert {name for name in recipe_names() if name.startswith("paper/")} == PAPER.keys() - {"mimic_padchest"}


@pytest.mark.parametrize("name", PAPER)
def test_a_row_of_the_paper_changes_what_its_name_says_and_nothing_else(name):
    settings = [f"{key}={value}" for key, value in PAPER[name].items()]
    whole = load_recipe("mimic_padchest", PretrainRecipe, settings).model_dump()
    assert load_recipe(name, PretrainRecipe).model_dump(exclude={"source"}) == {key: whole[key] for key in whole if key != "source"}


@pytest.mark.parametrize("path", [path for path in RECIPES if "paper" in path.parts], ids=recipe_name)
def test_a_row_of_the_paper_opens_with_source_command_time_and_result(path):
    opening = path.read_text("utf-8").split("\nversion:")[0]
    for word in ("Source:", "Command:", "Time:", "Expected:"):
        assert f"# {word}" in opening
    (command,) = re.findall(r"mmclip pretrain (\S+)", opening)
    assert load_recipe(command, PretrainRecipe)
    assert command.partition("@")[0] == recipe_name(path)


def test_the_modern_recipe_sees_as_many_images_as_the_paper_s():
    paper, modern = (load_recipe(name, PretrainRecipe) for name in ("mimic_padchest", "mimic_padchest_modern"))
    assert modern.steps * modern.batch.paired == paper.steps * paper.batch.paired
    assert modern.warmup.iterations * modern.batch.paired == paper.warmup.iterations * paper.batch.paired


def test_chest14_scores_the_fourteen_findings_of_chexpert():
    assert set(load_recipe("chest14", PromptRecipe).findings) == set(CHEXPERT_FINDINGS)
