"""open_clip_config.json: activation, heads and preprocessing of an open_clip folder, or why it is no plain ViT CLIP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.model.imports.published import PUBLISHED_PREPROCESSING, Activation, PublishedPreprocessing
from engine.model.preprocessing import Resize

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""In order of preference."""

_RESIZES: Mapping[str, Resize] = {"shortest": "crop", "longest": "pad", "squash": "squash"}
_HARMLESS = {
    *("image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "patch_dropout", "output_tokens", "attn_pooler_heads"),
    *("attn_pooler_queries", "timm_model_pretrained", "timm_drop", "timm_drop_path", "timm_pool", "timm_proj", "timm_proj_bias"),
    *("context_length", "vocab_size", "heads", "pad_id", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "pretrained_image"),
}
"""Keys that the shapes imply, that apply in training only, or that have no effect without one of the keys below."""
_PLAIN: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "timm_model_name": ((None, ""), "an image tower of timm"),
    "hf_model_name": ((None, ""), "a text tower of transformers"),
    "hf_tokenizer_name": ((None, ""), "another tokenizer than CLIP's"),
    "tokenizer_kwargs": ((None, {}), "another tokenizer than CLIP's"),
    "tokenizer_mode": ((None, "", "clip", "simple"), "another tokenizer than CLIP's"),
    "attentional_pool": ((None, False), "attentional pooling"),
    "no_ln_pre": ((None, False), "an image tower without its first layer norm"),
    "pos_embed_type": ((None, "learnable"), "fixed position embeddings"),
    "embed_cls": ((None, False), "CoCa's text tower"),
    "no_causal_mask": ((None, False), "a text tower that is not causal"),
    "proj_bias": ((None, False), "a bias in the text projection"),
    "proj_type": ((None, "linear"), "no plain text projection"),
    "ls_init_value": ((None,), "layer scale"),
    "act_kwargs": ((None, {}), "an altered activation"),
    "final_ln_after_pool": ((None, False), "a layer norm after pooling"),
    "eos_id": ((None, 2, 49407), "another tokenizer than CLIP's"),
    "block_type": ((None, "default"), "altered attention blocks"),
    **dict.fromkeys(
        ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"),
        ((None, False), "altered attention blocks"),
    ),
}
"""Key -> the values of a plain tower, and the meaning of any other value."""


@dataclass(frozen=True)
class OpenClipConfig:
    """Settings of the configuration beyond the shapes. Heads are None where the rule of 64 channels per head applies."""

    activation: Activation
    image_heads: int | None
    text_heads: int | None
    preprocessing: PublishedPreprocessing
    image_size: int | None
    epsilon: float


def read_open_clip(folder: Path) -> OpenClipConfig | None:
    """The open_clip_config.json of a folder; None where there is none.

    Raises:
        ModelError: it cannot be read, or describes what is no ViT CLIP with CLIP's tokenizer; every reason at once.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text("utf-8"))
        model = stored["model_cfg"]
        image, text = model["vision_cfg"], model["text_cfg"]
        if reasons := _reasons(model, image, text):
            raise ModelError(f"the model that {CONFIG} describes cannot be imported: it has {', '.join(reasons)}", hint="a plain ViT CLIP")
        epsilons = {float((each.get("norm_kwargs") or {}).get("eps", 1e-5)) for each in (image, text)}
        if len(epsilons) > 1:
            raise ModelError(f"the towers that {CONFIG} describes have different layer norms", hint="a plain ViT CLIP")
        heads = text.get("heads")
        size = image.get("image_size")
        return OpenClipConfig(
            activation="quick_gelu" if model.get("quick_gelu") else "gelu",
            image_heads=int(image["width"]) // int(image["head_width"]) if "head_width" in image else None,
            text_heads=None if heads is None else int(heads),
            preprocessing=_preprocessing(stored.get("preprocess_cfg") or {}),
            image_size=size if isinstance(size, int) else None,
            epsilon=epsilons.pop(),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ModelError(f"{CONFIG} is no configuration of open_clip", why=type(error).__name__, hint="copy the folder again") from None


def _reasons(model: Mapping[str, Any], image: Mapping[str, Any], text: Mapping[str, Any]) -> list[str]:
    """All differences from a plain CLIP model, each once."""
    found = []
    if isinstance(image.get("layers"), list):
        found.append("a ResNet image tower")
    if model.get("multimodal_cfg"):
        found.append("CoCa's decoder")
    if model.get("init_logit_bias") is not None:
        found.append("SigLIP's bias, with another loss and tokenizer")
    for section, pools in ((image, ("tok",)), (text, ("argmax",))):
        if section.get("pool_type") not in (None, *pools):
            found.append(f"pooling by {str(section['pool_type'])[:20]}")
        for key, value in section.items():
            if key in _PLAIN:
                plain, meaning = _PLAIN[key]
                if value not in plain:
                    detail = f" ({value[:60]})" if isinstance(value, str) else ""
                    found.append(meaning + detail)
            elif key not in _HARMLESS and key not in ("pool_type", "norm_kwargs"):
                found.append(f"the unknown key {key[:40]}")
    return list(dict.fromkeys(found))


def _preprocessing(stored: Mapping[str, Any]) -> PublishedPreprocessing:
    """open_clip's preprocessing, with CLIP's values as defaults."""
    usual = PUBLISHED_PREPROCESSING["clip"]
    resize = _RESIZES[stored.get("resize_mode") or "shortest"]
    if resize == "pad" and stored.get("fill_color", 0) not in (0, [0, 0, 0]):
        raise ModelError(f"{CONFIG} pads images with another colour than black", hint="--preprocessing clip, or chexzero")
    mean, std = (_three(stored.get(key) or default) for key, default in (("mean", usual.mean), ("std", usual.std)))
    resample = stored.get("interpolation") or "bicubic"
    if resample not in ("bicubic", "bilinear", "random"):
        raise ModelError(f"{CONFIG} resizes images by {str(resample)[:20]}", hint="--preprocessing clip, or chexzero")
    return PublishedPreprocessing(resize, mean, std, "bilinear" if resample == "bilinear" else "bicubic")  # random: in training only


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third
