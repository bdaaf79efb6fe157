"""The towers are CLIP's, whatever their sizes, and can leave patches out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import CLIPModel

from engine.model.mmclip import MMCLIP
from engine.model.towers import clip_config
from engine.recipe.pretraining import PretrainRecipe

MakeModel = Callable[..., MMCLIP]
Batch = dict[str, Tensor]
EOT = 1


@pytest.fixture(params=["quick_gelu", "gelu"])
def towers(request: pytest.FixtureRequest, make_model: MakeModel) -> MMCLIP:
    model = make_model(model={"activation": request.param})
    assert model.clip.config.vision_config.hidden_act == model.clip.config.text_config.hidden_act == request.param
    return model


def test_pooled_images_agree_with_transformers(towers: MMCLIP, batch: Batch) -> None:
    pooled = towers.clip.visual_projection(towers.encode_images(batch["images"])[:, 0])
    torch.testing.assert_close(pooled, towers.clip.get_image_features(batch["images"]).pooler_output)


def test_image_tokens_agree_with_transformers(towers: MMCLIP, batch: Batch) -> None:
    vision = towers.clip.vision_model
    expected = vision.post_layernorm(vision(batch["images"]).last_hidden_state)
    torch.testing.assert_close(towers.encode_images(batch["images"]), expected)


def test_pooled_texts_agree_with_transformers(towers: MMCLIP, batch: Batch) -> None:
    ids = batch["input_ids"]
    expected = towers.clip.get_text_features(ids).pooler_output
    torch.testing.assert_close(towers.pooled_text(towers.encode_texts(ids), ids), expected)
    masked = towers.clip.get_text_features(ids, attention_mask=(~batch["padding_mask"]).long()).pooler_output
    torch.testing.assert_close(expected, masked, msg="EOT comes before the padding and cannot see it")


def test_text_tokens_agree_with_transformers(towers: MMCLIP, batch: Batch) -> None:
    expected = towers.clip.text_model(batch["input_ids"]).last_hidden_state
    torch.testing.assert_close(towers.encode_texts(batch["input_ids"]), expected)


def test_eager_attention_reads_the_same(make_model: MakeModel, batch: Batch) -> None:
    model = make_model()
    expected = model.encode_texts(batch["input_ids"])
    model.clip.set_attn_implementation("eager")
    torch.testing.assert_close(model.encode_texts(batch["input_ids"]), expected)


def test_converted_openai_weights_pool_at_the_highest_token(make_model: MakeModel, batch: Batch) -> None:
    config = make_model().clip.config
    config.text_config.eos_token_id = 2
    clip = CLIPModel(config)
    model = MMCLIP(clip, make_model().recipe)
    ids = batch["input_ids"].clone()
    ids[ids == 39] = 38
    for row, length in enumerate((6, 9, 12)):
        ids[row, length - 1 :] = 39
    torch.testing.assert_close(model.pooled_text(model.encode_texts(ids), ids), clip.get_text_features(ids).pooler_output)
    torch.testing.assert_close(model.pooled_text(model.encode_texts(ids), ids)[0], clip.text_projection(model.encode_texts(ids)[0, 5]))


def test_keeping_every_patch_is_no_choice_at_all(make_model: MakeModel, batch: Batch) -> None:
    model = make_model()
    everything = torch.arange(16).expand(3, -1)
    torch.testing.assert_close(model.encode_images(batch["images"], everything), model.encode_images(batch["images"]))


def test_a_dropped_patch_is_not_seen(make_model: MakeModel, batch: Batch) -> None:
    model = make_model()
    kept = torch.tensor([[1, 2, 5, 15]]).expand(3, -1)
    other = batch["images"].clone()
    other[:, :, :8, :8] += 1  # patch 0
    assert torch.equal(model.encode_images(other, kept), model.encode_images(batch["images"], kept))
    other[:, :, 8:16, 8:16] += 1  # patch 5
    assert not torch.allclose(model.encode_images(other, kept), model.encode_images(batch["images"], kept))


def test_the_recipe_decides_the_towers(make_recipe: Callable[..., PretrainRecipe]) -> None:
    config = clip_config(make_recipe(), vocab_size=40, sot=0, eot=EOT)
    assert (config.vision_config.hidden_size, config.vision_config.intermediate_size, config.vision_config.patch_size) == (16, 64, 8)
    assert (config.text_config.vocab_size, config.text_config.max_position_embeddings, config.projection_dim) == (40, 12, 8)
    assert (config.text_config.bos_token_id, config.text_config.eos_token_id, config.text_config.pad_token_id) == (0, EOT, EOT)
