from typing import Any

import pytest
import torch

from engine.errors import ConfigError
from engine.model.bundle import random_bundle
from engine.model.starting import prompt_tokens, starting_model
from engine.recipe.pretraining import PretrainRecipe

TEXTS = ("no pleural effusion", "pneumonia", "lungs are clear")


def recipe(**changes: Any) -> PretrainRecipe:
    tower = {"width": 16, "layers": 1, "heads": 2}
    model = {
        "image": {**tower, "size": 32, "patch": 16},
        "text": {**tower, "context": 16},
        "projection": 16,
        "image_decoder": tower,
        "text_decoder": {"layers": 1, "heads": 2},
    }
    settings: dict[str, Any] = {
        "version": 1,
        "sources": [{"kind": "table", "file": "none.csv"}],
        "model": model | changes.pop("model", {}),
        "tokenizer": {"vocab": 400},
        "prompt": {"findings": ["Pneumonia", "Pleural Effusion"]},
        "steps": 1,
    }
    return PretrainRecipe.model_validate(settings | changes)


def test_the_seed_decides_new_weights():
    first, again = (starting_model(recipe(), TEXTS).module.state_dict() for _ in range(2))
    other = starting_model(recipe(seed=1), TEXTS).module.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["clip.visual_projection.weight"], other["clip.visual_projection.weight"])


def test_the_order_and_number_of_texts_do_not_change_the_vocabulary():
    once = starting_model(recipe(), TEXTS).tokenizer.get_vocab()
    again = starting_model(recipe(), [*reversed(TEXTS), *TEXTS]).tokenizer.get_vocab()
    assert once == again


def test_towers_have_the_sizes_of_the_recipe_and_the_vocabulary():
    starting = starting_model(recipe(), TEXTS)
    config = starting.module.clip.config
    assert (config.vision_config.hidden_size, config.vision_config.image_size, config.projection_dim) == (16, 32, 16)
    assert config.text_config.vocab_size == len(starting.tokenizer)
    assert starting.context == config.text_config.max_position_embeddings == 16


def test_existing_weights_come_with_their_tokenizer_and_constants(tmp_path):
    bundle = random_bundle(tmp_path / "old")
    starting = starting_model(recipe(model={"init": str(tmp_path / "old")}, tokenizer={}), TEXTS)
    assert starting.tokenizer.get_vocab() == bundle.tokenizer.get_vocab()
    assert (starting.preprocessing.mean, starting.context) == (bundle.preprocessing.mean, bundle.context)
    ours, theirs = starting.module.clip.state_dict(), bundle.clip.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_and_what_does_not_fit_them_are_refused(tmp_path):
    random_bundle(tmp_path / "old")
    with pytest.raises(ConfigError, match=r"both `model\.init` and `tokenizer.vocab`"):
        starting_model(recipe(model={"init": str(tmp_path / "old")}), TEXTS)
    image = {"width": 16, "layers": 1, "heads": 2, "size": 48, "patch": 16}
    with pytest.raises(ConfigError, match="see 32 pixels, the recipe 48"):
        starting_model(recipe(model={"init": str(tmp_path / "old"), "image": image}, tokenizer={}), TEXTS)


@pytest.mark.parametrize(("mode", "rows"), [("joined", 1), ("separate", 2)])
def test_prompts_are_one_row_or_one_each(mode, rows):
    changed = recipe(prompt={"findings": ["Pneumonia", "Effusion"], "mode": mode})
    starting = starting_model(changed, TEXTS)
    ids, padding = prompt_tokens(changed, starting)
    assert ids.shape == padding.shape == (rows, 16)
    said = [starting.tokenizer.decode(row[~hidden], skip_special_tokens=True) for row, hidden in zip(ids, padding, strict=True)]
    assert said == (["pneumonia, effusion"] if mode == "joined" else ["pneumonia", "effusion"])


def test_prompts_that_would_be_cut_are_refused():
    long = recipe(prompt={"findings": ["Pneumonia and a great deal of other words that never end"] * 2})
    with pytest.raises(ConfigError, match=r"joined prompts need \d+ tokens, the text tower has 16"):
        prompt_tokens(long, starting_model(long, TEXTS))
