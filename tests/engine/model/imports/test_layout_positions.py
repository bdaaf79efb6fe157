"""A CLIP for another size: positions are interpolated as each library does it, and what still fits keeps its features."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from engine.errors import ConfigError
from engine.model.imports.layout import IMAGE_POSITIONS, image_positions, resized_clip, text_positions

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def clip():
    with torch.random.fork_rng():
        torch.manual_seed(2)
        text = {**TOWER, "vocab_size": 50, "max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        config = CLIPConfig(projection_dim=8, vision_config={**TOWER, "image_size": 32, "patch_size": 8}, text_config=text)
        model = CLIPModel(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.requires_grad_(False)


def test_nothing_changes_where_nothing_is_asked(clip):
    assert resized_clip(clip, antialias=True) is clip
    assert resized_clip(clip, image_size=32, context=12, antialias=False) is clip


@pytest.mark.parametrize("size", [8, 24, 40, 64])
def test_another_size_has_the_features_of_transformers_own_interpolation(clip, size):
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    ours = resized_clip(clip, image_size=size, antialias=False).get_image_features(pixels).pooler_output
    theirs = clip.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [2, 3, 5, 9])
def test_the_antialiased_rule_is_pillow_s_bicubic(size):
    """Another implementation of the same resampling: Pillow on each channel as a picture of floats."""
    positions = torch.randn(17, 3, generator=torch.Generator().manual_seed(4))
    found = image_positions(positions, size, antialias=True)
    assert torch.equal(found[0], positions[0])
    for channel in range(3):
        plane = Image.fromarray(positions[1:, channel].reshape(4, 4).numpy())
        wanted = torch.from_numpy(np.array(plane.resize((size, size), Image.Resampling.BICUBIC))).flatten()
        torch.testing.assert_close(found[1:, channel], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("antialias", [False, True])
def test_equal_positions_stay_equal(antialias):
    positions = torch.full((10, 4), 0.3)
    torch.testing.assert_close(image_positions(positions, 7, antialias=antialias), torch.full((50, 4), 0.3))
    assert image_positions(positions, 3, antialias=antialias) is positions


@given(st.integers(1, 30), st.integers(1, 30))
def test_text_positions_keep_the_first_and_repeat_the_last(old, new):
    positions = torch.randn(old, 2)
    found = text_positions(positions, new)
    assert found.shape == (new, 2)
    assert torch.equal(found[:old], positions[:new])
    assert all(torch.equal(row, positions[-1]) for row in found[old:])


@pytest.mark.parametrize("context", [5, 12, 20])
def test_texts_that_still_fit_keep_their_features(clip, context):
    ids = torch.tensor([[0, 7, 9, 1, 1]])
    ours = resized_clip(clip, context=context, antialias=True).get_text_features(ids).pooler_output
    torch.testing.assert_close(ours, clip.get_text_features(ids).pooler_output)


def test_the_configuration_follows_and_the_source_stays(clip):
    before = clip.state_dict()[IMAGE_POSITIONS].clone()
    changed = resized_clip(clip, image_size=64, context=20, antialias=True)
    assert (changed.config.vision_config.image_size, changed.config.text_config.max_position_embeddings) == (64, 20)
    assert (clip.config.vision_config.image_size, clip.config.text_config.max_position_embeddings) == (32, 12)
    assert torch.equal(clip.state_dict()[IMAGE_POSITIONS], before)
    assert changed.state_dict()[IMAGE_POSITIONS].shape == (65, 16)


def test_fitting_leaves_the_global_generator_alone(clip):
    before = torch.get_rng_state()
    resized_clip(clip, image_size=64, antialias=True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("size", "near"), [(30, 32), (33, 32), (4, 8), (9000, 9000)])
def test_a_size_without_whole_patches_names_a_near_one(clip, size, near):
    with pytest.raises(ConfigError, match=rf"do not divide into the weights' patches of 8\. Try: a size of {near}"):
        resized_clip(clip, image_size=size, antialias=True)


@pytest.mark.parametrize("context", [1, 2, 5000])
def test_a_context_that_holds_no_text_is_refused(clip, context):
    with pytest.raises(ConfigError, match=f"a context of {context} tokens holds no text"):
        resized_clip(clip, context=context, antialias=True)
