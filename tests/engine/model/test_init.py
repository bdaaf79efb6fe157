from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from engine.errors import ConfigError, ModelError
from engine.model.init import initial_model, prompt_tokens
from engine.recipe.pretraining import PretrainRecipe

TOWER = {"width": 16, "layers": 1, "heads": 2}
TEXTS = ("no pleural effusion", "pneumonia", "lungs are clear")


def recipe(**changes: Any) -> PretrainRecipe:
    model = {
        "image": {**TOWER, "size": 32, "patch": 16},
        "text": {**TOWER, "context": 16},
        "projection": 16,
        "image_decoder": TOWER,
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
    first, again = (initial_model(recipe(), TEXTS).module.state_dict() for _ in range(2))
    other = initial_model(recipe(seed=1), TEXTS).module.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["clip.visual_projection.weight"], other["clip.visual_projection.weight"])


def test_the_order_and_number_of_texts_do_not_change_the_vocabulary():
    once = initial_model(recipe(), TEXTS).tokenizer.get_vocab()
    again = initial_model(recipe(), [*reversed(TEXTS), *TEXTS]).tokenizer.get_vocab()
    assert once == again


def test_towers_have_the_sizes_of_the_recipe_and_the_vocabulary():
    initial = initial_model(recipe(), TEXTS)
    config = initial.module.clip.config
    assert (config.vision_config.hidden_size, config.vision_config.image_size, config.projection_dim) == (16, 32, 16)
    assert config.text_config.vocab_size == len(initial.tokenizer)
    assert initial.context == config.text_config.max_position_embeddings == 16


def test_existing_weights_come_with_their_tokenizer_and_constants(random_bundle, tmp_path):
    bundle = random_bundle(tmp_path / "old")
    initial = initial_model(recipe(model={"init": str(tmp_path / "old"), "text": TOWER | {"context": 32}}, tokenizer={}), TEXTS)
    assert initial.tokenizer.get_vocab() == bundle.tokenizer.get_vocab()
    assert (initial.preprocessing.mean, initial.context) == (bundle.preprocessing.mean, bundle.context)
    ours, theirs = initial.module.clip.state_dict(), bundle.clip.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_existing_weights_take_no_new_vocabulary(random_bundle, tmp_path):
    random_bundle(tmp_path / "old")
    with pytest.raises(ConfigError, match=r"both `model\.init` and `tokenizer.vocab`"):
        initial_model(recipe(model={"init": str(tmp_path / "old")}), TEXTS)


def test_positions_of_existing_weights_are_fitted_to_the_recipe(random_bundle, tmp_path):
    bundle = random_bundle(tmp_path / "old")
    image, text = TOWER | {"size": 48, "patch": 16}, TOWER | {"context": 20}
    initial = initial_model(recipe(model={"init": str(tmp_path / "old"), "image": image, "text": text}, tokenizer={}), TEXTS)
    assert (initial.preprocessing.size, initial.context, initial.tokenizer.model_max_length) == (48, 20, 20)
    pixels = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        ours = initial.module.encode_images(pixels)
        theirs = bundle.clip.vision_model(pixels, interpolate_pos_encoding=True).last_hidden_state
        torch.testing.assert_close(ours, initial.module.clip.vision_model.post_layernorm(theirs), atol=1e-5, rtol=0)
    image["size"] = 40
    with pytest.raises(ConfigError, match="images of 40 pixels do not divide into the weights' patches of 16"):
        initial_model(recipe(model={"init": str(tmp_path / "old"), "image": image | {"patch": 8}}, tokenizer={}), TEXTS)


def test_a_checkpoint_of_another_library_is_a_beginning_too(tmp_path):
    """OpenAI's names, as open_clip writes them; and one that does not say enough names the command that asks."""
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {**tower, "vocab_size": 49408, "max_position_embeddings": 16}
    clip = CLIPModel(CLIPConfig(projection_dim=24, vision_config={**tower, "image_size": 32, "patch_size": 16}, text_config=text))
    theirs = {
        "logit_scale": clip.logit_scale,
        "visual.proj": clip.visual_projection.weight.T,
        "text_projection": clip.text_projection.weight.T,
    }
    for ours, name in ((clip.vision_model, "visual."), (clip.text_model, "")):
        state = ours.state_dict()
        for part in ("weight", "bias"):
            layer = "encoder.layers.0"
            block = f"{name}transformer.resblocks.0"
            theirs[f"{block}.attn.in_proj_{part}"] = torch.cat([state[f"{layer}.self_attn.{letter}_proj.{part}"] for letter in "qkv"])
            pairs = {
                "attn.out_proj": "self_attn.out_proj",
                "ln_1": "layer_norm1",
                "ln_2": "layer_norm2",
                "mlp.c_fc": "mlp.fc1",
                "mlp.c_proj": "mlp.fc2",
            }
            theirs |= {f"{block}.{their}.{part}": state[f"{layer}.{our}.{part}"] for their, our in pairs.items()}
        theirs[f"{name}positional_embedding"] = state["embeddings.position_embedding.weight"]
    for part in ("weight", "bias"):
        theirs[f"visual.ln_pre.{part}"] = clip.vision_model.state_dict()[f"pre_layrnorm.{part}"]
        theirs[f"visual.ln_post.{part}"] = clip.vision_model.state_dict()[f"post_layernorm.{part}"]
        theirs[f"ln_final.{part}"] = clip.text_model.state_dict()[f"final_layer_norm.{part}"]
    theirs["visual.conv1.weight"] = clip.vision_model.embeddings.patch_embedding.weight
    theirs["visual.class_embedding"] = clip.vision_model.embeddings.class_embedding
    theirs["token_embedding.weight"] = clip.text_model.embeddings.token_embedding.weight
    file = tmp_path / "clip.pt"
    torch.save({name: value.detach() for name, value in theirs.items()}, file)
    with pytest.raises(ModelError, match=r"clip\.pt does not name the activation and the preprocessing.*mmclip models import"):
        initial_model(recipe(model={"init": str(file)}, tokenizer={}), TEXTS)
    facts = {name: torch.tensor(value) for name, value in (("input_resolution", 32), ("context_length", 16), ("vocab_size", 49408))}
    torch.save({name: value.detach() for name, value in theirs.items()} | facts, file)
    initial = initial_model(recipe(model={"init": str(file)}, tokenizer={}), TEXTS)
    state = initial.module.clip.state_dict()
    assert all(torch.equal(state[name], value) for name, value in clip.state_dict().items())
    assert initial.tokenizer("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]


@pytest.mark.parametrize(("mode", "rows"), [("joined", 1), ("separate", 2)])
def test_prompts_are_one_row_or_one_each(mode, rows):
    changed = recipe(prompt={"findings": ["Pneumonia", "Effusion"], "mode": mode})
    initial = initial_model(changed, TEXTS)
    ids, padding = prompt_tokens(changed, initial)
    assert ids.shape == padding.shape == (rows, 16)
    said = [initial.tokenizer.decode(row[~hidden], skip_special_tokens=True) for row, hidden in zip(ids, padding, strict=True)]
    assert said == (["pneumonia, effusion"] if mode == "joined" else ["pneumonia", "effusion"])


def test_prompts_that_would_be_cut_are_refused():
    long = recipe(prompt={"findings": ["Pneumonia and a great deal of other words that never end"] * 2})
    with pytest.raises(ConfigError, match=r"joined disease prompts need \d+ tokens, the text tower has 16"):
        prompt_tokens(long, initial_model(long, TEXTS))
