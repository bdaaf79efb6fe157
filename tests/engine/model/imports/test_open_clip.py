"""open_clip_config.json: what it tells beyond the shapes, and every reason why a model is no plain ViT CLIP."""

import copy
import json

import pytest

from engine.errors import ModelError
from engine.model.imports.open_clip import CONFIG, read_open_clip
from engine.model.imports.published import PUBLISHED_PREPROCESSING

PLAIN = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
    },
    "preprocess_cfg": {"mean": list(PUBLISHED_PREPROCESSING["clip"].mean), "std": list(PUBLISHED_PREPROCESSING["clip"].std)},
}


@pytest.fixture
def described(tmp_path):
    """Read PLAIN with changes; dotted keys under model_cfg, None takes a key away."""

    def read(changes=None, preprocess=None):
        stored = copy.deepcopy(PLAIN)
        for dotted, value in (changes or {}).items():
            *sections, key = dotted.split(".")
            target = stored["model_cfg"]
            for section in sections:
                target = target[section]
            target[key] = value
        stored["preprocess_cfg"] |= preprocess or {}
        (tmp_path / CONFIG).write_text(json.dumps(stored))
        return read_open_clip(tmp_path)

    return read


def test_a_folder_without_configuration_has_none(tmp_path):
    assert read_open_clip(tmp_path) is None


def test_the_activation_is_gelu_unless_quick_gelu_is_said(described):
    assert described().activation == "gelu"
    assert described({"quick_gelu": False}).activation == "gelu"
    assert described({"quick_gelu": True}).activation == "quick_gelu"


def test_heads_and_epsilon_are_told_where_they_are_unusual(described):
    assert (described().image_heads, described().text_heads, described().epsilon) == (None, 8, 1e-5)
    wide = described({"vision_cfg.width": 1280, "vision_cfg.head_width": 80})
    assert wide.image_heads == 16
    both = described({"vision_cfg.norm_kwargs": {"eps": 1e-6}, "text_cfg.norm_kwargs": {"eps": 1e-6}})
    assert both.epsilon == 1e-6
    with pytest.raises(ModelError, match="different layer norms"):
        described({"vision_cfg.norm_kwargs": {"eps": 1e-6}})


@pytest.mark.parametrize(("mode", "resize"), [("shortest", "crop"), ("longest", "pad"), ("squash", "squash"), (None, "crop")])
def test_preprocessing_is_the_configuration_s(described, mode, resize):
    images = described(preprocess={"mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": mode, "interpolation": "bicubic"}).preprocessing
    assert (images.resize, images.mean, images.std) == (resize, (0.5,) * 3, (0.25,) * 3)


def test_a_configuration_without_preprocessing_means_clip_s(described):
    assert described(preprocess={"mean": None, "std": None}).preprocessing == PUBLISHED_PREPROCESSING["clip"]


def test_padding_with_a_colour_is_refused(described):
    with pytest.raises(ModelError, match="pads images with another colour than black"):
        described(preprocess={"resize_mode": "longest", "fill_color": 127})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vision_cfg.layers": [3, 4, 6, 3]}, "a ResNet image tower"),
        ({"vision_cfg.timm_model_name": "vit_base_patch16_siglip_224"}, r"an image tower of timm \(vit_base_patch16_siglip_224\)"),
        ({"text_cfg.hf_model_name": "roberta-base"}, r"a text tower of transformers \(roberta-base\)"),
        ({"text_cfg.hf_tokenizer_name": "bert-base-uncased"}, r"another tokenizer than CLIP's \(bert-base-uncased\)"),
        ({"text_cfg.tokenizer_kwargs": {"clean": "canonicalize"}}, "another tokenizer than CLIP's"),
        ({"init_logit_bias": -10}, "SigLIP's bias"),
        ({"multimodal_cfg": {"layers": 12}}, "CoCa's decoder"),
        ({"text_cfg.embed_cls": True}, "CoCa's text tower"),
        ({"text_cfg.no_causal_mask": True}, "a text tower that is not causal"),
        ({"text_cfg.pool_type": "last"}, "pooling by last"),
        ({"vision_cfg.pool_type": "avg"}, "pooling by avg"),
        ({"vision_cfg.no_ln_pre": True}, "an image tower without its first layer norm"),
        ({"vision_cfg.attentional_pool": True}, "attentional pooling"),
        ({"vision_cfg.ls_init_value": 1e-4}, "layer scale"),
        ({"vision_cfg.qk_norm": True}, "altered attention blocks"),
        ({"text_cfg.act_kwargs": {"approximate": "tanh"}}, "an altered activation"),
        ({"text_cfg.proj_bias": True}, "a bias in the text projection"),
        ({"vision_cfg.invented_tomorrow": 1}, "the unknown key invented_tomorrow"),
    ],
)
def test_what_is_no_plain_clip_is_refused_with_the_reason(described, changes, reason):
    with pytest.raises(ModelError, match=rf"cannot be imported: it has {reason}"):
        described(changes)


def test_every_reason_is_told_at_once(described):
    with pytest.raises(ModelError, match=r"timm \(siglip\), another tokenizer.*, a text tower that is not causal"):
        described({"vision_cfg.timm_model_name": "siglip", "text_cfg.hf_tokenizer_name": "siglip", "text_cfg.no_causal_mask": True})


def test_what_acts_in_training_alone_does_no_harm(described):
    assert described({"vision_cfg.patch_dropout": 0.5, "text_cfg.pool_type": "argmax", "text_cfg.embed_cls": False}) is not None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model_cfg": {"vision_cfg": 3, "text_cfg": {}}}', '{"model_cfg": null}', "\udcff"])
def test_a_broken_configuration_is_refused(tmp_path, text):
    (tmp_path / CONFIG).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=r"is no configuration of open_clip"):
        read_open_clip(tmp_path)
