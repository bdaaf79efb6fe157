import json

import torch

from engine.model.bundle import load_bundle
from engine.model.cards import first_card, portable_recipe, save_pretrained
from engine.model.init import starting_model


def test_a_run_is_kept_with_the_weights_it_ended_with_and_no_path(make_recipe, tmp_path):
    recipe = make_recipe(model={"text": {"width": 16, "layers": 1, "heads": 2, "context": 40}})
    starting = starting_model(recipe, ["no pleural effusion", "pneumonia"])
    weights = {name: tensor + 1 for name, tensor in starting.module.clip.state_dict().items()}
    facts = {"recipe": recipe.model_dump(mode="json"), "recipe_hash": "r" * 64, "data_hash": "d" * 64}
    facts |= {"sources": [], "versions": {"python": "3"}, "seed": 0}
    save_pretrained(tmp_path / "mine", starting, weights, recipe, facts, steps=5, paired=3, unpaired=2)
    kept = load_bundle(tmp_path / "mine" / "bundle")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in kept.clip.state_dict().items())
    assert kept.provenance["steps"] == 5
    assert {key: kept.provenance[key] for key in facts if key != "recipe"} == {key: facts[key] for key in facts if key != "recipe"}
    assert str(tmp_path) not in json.dumps(kept.provenance)
    assert "pretrained for 5 steps" in (tmp_path / "mine" / "bundle" / "README.md").read_text()


def test_a_first_card_says_what_is_known_and_that_nothing_was_judged(make_recipe):
    card = first_card(make_recipe(seed=7), steps=5, paired=3, unpaired=2, data_hash="d" * 64, recipe_hash="r" * 64)
    assert card.startswith("RESEARCH USE ONLY - not for clinical use.")
    assert "5 steps of 64 images with a report and 64 without, seed 7" in card
    assert "Images: 3 with words" in card
    assert f"data {'d' * 12}, recipe {'r' * 12}." in card
    assert "Not evaluated" in card


def test_a_recipe_leaves_its_machine_without_its_paths():
    recipe = {
        "sources": [{"kind": "table", "file": "/home/me/table.csv", "root": "data"}],
        "model": {"init": "/models/clip"},
        "entities": "/ner/x",
        "head": {"init": "text", "prompts": "/home/me/words.yaml"},
        "steps": 5,
    }
    assert portable_recipe(recipe) == {
        "sources": [{"kind": "table", "file": "table.csv", "root": "data"}],
        "model": {"init": "clip"},
        "entities": "x",
        "head": {"init": "text", "prompts": "words.yaml"},
        "steps": 5,
    }
