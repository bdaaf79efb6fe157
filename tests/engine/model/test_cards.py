"""Cards and provenance of classifiers and pretrained models."""

import dataclasses
import json

import torch

from engine.model.bundle import load_bundle
from engine.model.cards import classifier_card, classifier_facts, portable_recipe, pretrained_card, save_finetuned, save_pretrained
from engine.model.classifier import zero_head
from engine.model.init import initial_model
from engine.recipe.finetuning import FinetuneRecipe

FACTS = {
    "base": "tiny",
    "base_hash": "0123456789abcdef",
    "mode": "full",
    "init": "weights",
    "fraction": 0.1,
    "seed": 3,
    "parts": {part: {"patients": 5, "images": 7, "sha256": f"{part}-hash-of-many-digits"} for part in ("train", "validation", "test")},
    "steps": "40 steps of 32 images",
    "pos_weight": "balanced",
    "recipe_hash": "fedcba9876543210",
    "sources": ["toy"],
    "split_by": "patient",
}
SETTINGS = {"version": 1, "sources": [{"kind": "table", "file": "/home/me/t.csv"}], "model": "/home/me/tiny", "seed": 3, "batch": 32}
ROW = {"finding": "Edema", "n": 7, "n_positive": 3, "auroc": 0.91, "auroc_low": 0.8, "auroc_high": 0.97, "auprc": 0.85, "reason": None}


def test_a_card_says_what_it_is_made_of_and_what_was_measured():
    card = classifier_card("run", FACTS, [{**ROW, "method": "zero_shot"}, {**ROW, "method": "full", "auroc_low": None}])
    assert card.startswith("# run\n\n**RESEARCH USE ONLY")
    for said in (
        "`tiny` (0123456789ab)",
        "10 % of the training patients",
        "5 patients, 7 images, sha256 test-hash-of-man",
        "seed 3",
        "| Edema | 7 | 3 | zero-shot | 0.910 (0.800-0.970) | 0.850 |",
        "| Edema | 7 | 3 | this classifier | 0.910 | 0.850 |",
    ):
        assert said in card


def test_a_control_is_called_one_and_a_finding_without_figures_says_why():
    row = {**ROW, "auroc": None, "method": "linear", "reason": "one class only in the training part"}
    card = classifier_card("run", {**FACTS, "init": "random"}, [row])
    assert "random weights (a control)" in card
    assert "| this classifier | - (one class only in the training part) | - |" in card


def test_facts_hold_what_the_card_shows_and_no_path():
    recipe = FinetuneRecipe.model_validate(SETTINGS)
    rest = {key: FACTS[key] for key in ("base_hash", "parts", "sources", "split_by")}
    facts = classifier_facts(recipe, FACTS["recipe_hash"], {"fraction": 0.1, "steps": 40}, **rest)
    assert facts == FACTS
    probe = classifier_facts(recipe, FACTS["recipe_hash"], {"fraction": 0.1, "strength": 0.01}, **rest)
    assert probe["steps"] == "C = 0.01"


def test_a_classifier_is_kept_with_its_head_its_card_and_no_path(random_bundle, tmp_path):
    random_bundle(tmp_path / "base", size=32)
    base = load_bundle(tmp_path / "base")
    model = dataclasses.replace(base, head=zero_head(["Edema"], int(base.clip.config.projection_dim)))
    recipe = FinetuneRecipe.model_validate(SETTINGS)
    save_finetuned(tmp_path / "made", model, "run", recipe, FACTS, [{**ROW, "method": "full"}], versions={"torch": "2"})
    kept = load_bundle(tmp_path / "made")
    assert kept.head is not None and kept.head.findings == ("Edema",)
    assert (tmp_path / "made" / "README.md").read_text("utf-8") == classifier_card("run", FACTS, [{**ROW, "method": "full"}])
    said = json.loads((tmp_path / "made" / "mmclip.json").read_text("utf-8"))
    assert said["provenance"]["versions"] == {"torch": "2"} and said["provenance"]["base"] == "tiny"
    assert "/home/me" not in json.dumps(said)


def test_a_pretrained_bundle_has_the_final_weights_and_no_path(make_recipe, tmp_path):
    recipe = make_recipe(model={"text": {"width": 16, "layers": 1, "heads": 2, "context": 40}})
    initial = initial_model(recipe, ["no pleural effusion", "pneumonia"])
    weights = {name: tensor + 1 for name, tensor in initial.module.clip.state_dict().items()}
    facts = {"recipe": recipe.model_dump(mode="json"), "recipe_hash": "r" * 64, "data_hash": "d" * 64, "population": {}}
    facts |= {"sources": [], "versions": {"python": "3"}, "seed": 0}
    save_pretrained(tmp_path / "mine", initial, weights, recipe, facts, steps=5, paired=3, unpaired=2)
    kept = load_bundle(tmp_path / "mine" / "bundle")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in kept.clip.state_dict().items())
    assert kept.provenance["steps"] == 5
    assert {key: kept.provenance[key] for key in facts if key != "recipe"} == {key: facts[key] for key in facts if key != "recipe"}
    assert str(tmp_path) not in json.dumps(kept.provenance)
    assert "pretrained for 5 steps" in (tmp_path / "mine" / "bundle" / "README.md").read_text()


def test_a_pretrained_card_says_what_is_known_and_that_nothing_was_judged(make_recipe):
    card = pretrained_card(make_recipe(seed=7), steps=5, paired=3, unpaired=2, data_hash="d" * 64, recipe_hash="r" * 64)
    assert card.startswith("RESEARCH USE ONLY - not for clinical use.")
    assert "5 steps of 64 images with a report and 64 without, seed 7" in card
    assert "Images: 3 with text" in card
    assert f"data {'d' * 12}, recipe {'r' * 12}." in card
    assert "Not evaluated" in card


def test_a_portable_recipe_has_no_folders_of_this_machine():
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
