import json

import pytest
import torch

from engine.errors import ModelError
from engine.recipe.finetuning import FinetuneRecipe
from engine.training.checkpoint import Checkpoints
from engine.training.finetuning import check_checkpoints, finetuning_facts, finetuning_plan
from engine.training.optimizer import make_optimizer
from engine.training.provenance import recipe_hash

CPU = torch.device("cpu")


def recipe(**keys):
    return FinetuneRecipe.model_validate({"version": 1, "sources": [{"kind": "table", "file": "t.csv"}], **keys})


def test_the_plan_warms_up_decays_and_saves_at_looks_alone():
    plan = finetuning_plan(recipe(optimizer={"lr": 1e-3, "lr_warmup": 10}), 100, CPU)
    rates = [plan.lr_at(step) for step in range(100)]
    assert max(rates) == pytest.approx(1e-3) and rates[0] < rates[9] and rates[99] < rates[50] < rates[10]
    assert plan.save_every > plan.stop == 100
    assert finetuning_plan(recipe(), 100, torch.device("cuda")).read_every > plan.read_every == 1


def test_every_key_counts_in_the_hash():
    assert recipe_hash(recipe()) == recipe_hash(recipe(seed=0))
    assert len({recipe_hash(each) for each in (recipe(), recipe(seed=1), recipe(mode="linear"), recipe(batch=4))}) == 4


def test_the_facts_are_json_and_hold_the_whole_recipe():
    facts = json.loads(json.dumps(finetuning_facts(recipe(seed=3), (0.1, 1.0), CPU)))
    assert (facts["seed"], facts["fractions"], facts["recipe"]["epochs"]) == (3, [0.1, 1.0], recipe().epochs)
    assert facts["recipe_hash"] == recipe_hash(recipe(seed=3))


def test_checkpoints_of_another_run_are_refused_wherever_they_lie(tmp_path):
    module = torch.nn.Linear(2, 1)
    mine = {"recipe": "a", "data": "b"}
    Checkpoints(tmp_path / "second", mine).save(5, module, make_optimizer(module, recipe().optimizer))
    check_checkpoints([tmp_path / "first", tmp_path / "second"], mine)
    with pytest.raises(ModelError, match="another data"):
        check_checkpoints([tmp_path / "first", tmp_path / "second"], {**mine, "data": "c"})
