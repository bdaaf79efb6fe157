"""Names and shapes of OpenAI's CLIP weights, also used by open_clip and CheXzero, and their conversion to transformers.

Sizes are read from the shapes, as in OpenAI's loader. The number of heads is not in the shapes: it is width / 64 there and in open_clip's
configurations, except for four wide towers. Position embeddings are interpolated to other image sizes and text lengths.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.errors import ConfigError, ModelError
from engine.model.weights import misfits

if TYPE_CHECKING:
    from transformers import CLIPModel

IMAGE_POSITIONS = "vision_model.embeddings.position_embedding.weight"
TEXT_POSITIONS = "text_model.embeddings.position_embedding.weight"
SHORTEST, LONGEST = 3, 4096
"""Text lengths in tokens: SOT, one word, EOT; and more than any CLIP model has."""


def resized_clip(clip: CLIPModel, *, image_size: int | None = None, context: int | None = None, antialias: bool) -> CLIPModel:
    """The same weights for images of `image_size` pixels and texts of `context` tokens; `clip` itself where nothing changes.

    Raises:
        ConfigError: no whole number of patches, or a text length out of range.
    """
    vision, text = clip.config.vision_config, clip.config.text_config
    image_size, context = image_size or vision.image_size, context or text.max_position_embeddings
    if (image_size, context) == (vision.image_size, text.max_position_embeddings):
        return clip
    if image_size % vision.patch_size or not vision.patch_size <= image_size <= 8192:
        near = max(1, round(image_size / vision.patch_size)) * vision.patch_size
        raise ConfigError(
            f"images of {image_size} pixels do not divide into the weights' patches of {vision.patch_size}", hint=f"a size of {near}"
        )
    if not SHORTEST <= context <= LONGEST:
        raise ConfigError(f"a context of {context} tokens holds no text", hint=f"between {SHORTEST} and {LONGEST}")
    from transformers import CLIPModel

    config = copy.deepcopy(clip.config)
    config.vision_config.image_size = image_size
    config.text_config.max_position_embeddings = context
    weights = dict(clip.state_dict())
    weights[IMAGE_POSITIONS] = image_positions(weights[IMAGE_POSITIONS], image_size // vision.patch_size, antialias=antialias)
    weights[TEXT_POSITIONS] = text_positions(weights[TEXT_POSITIONS], context)
    with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced below
        changed = CLIPModel(config).eval()
    changed.load_state_dict(weights)
    return changed


def image_positions(positions: Tensor, grid: int, *, antialias: bool) -> Tensor:
    """(1 + G * G, width) -> (1 + grid * grid, width): CLS unchanged, the rest resampled bicubically in 2-D."""
    cls, patches = positions[:1], positions[1:]
    old = math.isqrt(len(patches))
    if old == grid:
        return positions
    plane = patches.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, size=(grid, grid), mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([cls, plane.permute(0, 2, 3, 1).reshape(grid * grid, -1)])


def text_positions(positions: Tensor, context: int) -> Tensor:
    """(T, width) -> (context, width): cut to the first ones, or extended by repeating the last."""
    last = positions[-1:].expand(max(0, context - len(positions)), -1)
    return torch.cat([positions[:context], last])


HEAD_WIDTH = 64
WIDE_IMAGE_HEADS = {1280: 80, 1408: 88, 1664: 104, 1792: 112}
"""Width of a head where it is not 64: open_clip's ViT-H/14, ViT-g/14, ViT-bigG/14 and ViT-e/14."""

_FACTS = ("input_resolution", "context_length", "vocab_size")
"""Entries next to the weights that only OpenAI's release has."""
_BLOCK = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OTHERS = (
    (r"^visual\.layer\d|^visual\.attnpool\.", "a ResNet image tower", "a ViT"),
    (r"^visual\.trunk\.", "an image tower of timm", "open_clip's own ViT"),
    (r"^text\.transformer\.(embeddings|encoder|model)\.", "a text tower of transformers with another tokenizer", "CLIP's text tower"),
    (r"^text_decoder\.|^visual\.attn_pool|(^|\.)cls_emb$", "CoCa's decoder and pooling", "plain CLIP"),
    (r"^logit_bias$", "SigLIP's bias, with another loss and tokenizer", "CLIP"),
    (r"\.ls_[12]\.gamma$", "layer scale", "plain blocks"),
    (r"\.(ln_q|ln_k|ln_attn|ln_inner|scale_heads|head_scale)", "altered attention blocks", "plain blocks"),
    (r"text_projection\.bias$", "a bias in the text projection", "CLIP's bare matrix"),
    (r"^(vision_model|text_model)\.", "the names of transformers", "its folder, with config.json beside the weights"),
    (r"^(image_encoder|text_encoder|encoder|model)\.", "the names of another library", "OpenAI's or open_clip's"),
)


@dataclass(frozen=True)
class TowerSizes:
    """Sizes of one transformer: width, layers, heads, width of the MLP."""

    width: int
    layers: int
    heads: int
    mlp: int


@dataclass(frozen=True)
class ClipSizes:
    """Sizes of a CLIP model in pixels, tokens and channels; `prefix`, "" or "text.", starts the names of the text tower."""

    image: TowerSizes
    text: TowerSizes
    image_size: int
    patch: int
    context: int
    vocabulary: int
    projection: int
    prefix: str = ""


def without_facts(weights: Mapping[str, Tensor], name: str) -> tuple[dict[str, Tensor], bool]:
    """The weights without OpenAI's three extra entries and causal masks; and whether these entries were there.

    Raises:
        ModelError: a mask that is not causal.
    """
    for key, value in weights.items():
        if key.split(".")[-1] == "attn_mask" and not _is_causal(value):
            raise ModelError(f"the text tower of {name} is not causal", why=f"{key} lets a token see later ones", hint="a CLIP")
    kept = {key: value for key, value in weights.items() if key.split(".")[-1] not in ("attn_mask", *_FACTS)}
    return kept, all(fact in weights for fact in _FACTS)


def sizes_of(weights: Mapping[str, Tensor], name: str, *, image_heads: int | None = None, text_heads: int | None = None) -> ClipSizes:
    """Sizes read from the shapes; all names and shapes are checked.

    Args:
        image_heads, text_heads: from a configuration; None: width / 64, or as in open_clip's wide towers.

    Raises:
        ModelError: another architecture, named; or missing, unknown and misshapen weights, of each the first three.
    """
    _refuse_others(weights, name)
    prefix = "text." if "text.token_embedding.weight" in weights else ""
    try:
        patches = weights["visual.positional_embedding"].shape[0] - 1
        width, _, patch, _ = weights["visual.conv1.weight"].shape
        vocabulary, text_width = weights[f"{prefix}token_embedding.weight"].shape
        sizes = ClipSizes(
            image=_tower(weights, "visual.", width, image_heads or width // WIDE_IMAGE_HEADS.get(width, HEAD_WIDTH)),
            text=_tower(weights, prefix, text_width, text_heads or text_width // HEAD_WIDTH),
            image_size=math.isqrt(patches) * patch,
            patch=patch,
            context=weights[f"{prefix}positional_embedding"].shape[0],
            vocabulary=vocabulary,
            projection=weights["visual.proj"].shape[1],
            prefix=prefix,
        )
    except KeyError as error:
        why = f"it has no weight named {error.args[0]}"
        raise ModelError(f"{name} does not hold the weights of a ViT CLIP", why=why, hint="OpenAI's, open_clip's or CheXzero's") from None
    except (ValueError, IndexError):
        raise ModelError(f"{name} holds the names of a CLIP with other shapes", hint="copy the file again") from None
    if faults := misfits(dict(_shapes(sizes)), _scalar_scale(weights)):
        raise ModelError(f"the weights of {name} are not those of a ViT CLIP", why=faults, hint="copy the file again")
    for tower, what, given in ((sizes.image, "image", image_heads), (sizes.text, "text", text_heads)):
        odd = tower.width % HEAD_WIDTH and not (what == "image" and tower.width in WIDE_IMAGE_HEADS)
        if not tower.heads or tower.width % tower.heads or (odd and given is None):
            raise ModelError(
                f"the number of heads of the {what} tower of {name} is not known",
                why=f"its width {tower.width} is no multiple of {HEAD_WIDTH}, and the shapes do not tell",
                hint="open_clip_config.json beside the weights",
            )
    return sizes


def settings(sizes: ClipSizes, activation: str, *, sot: int, eot: int) -> dict[str, Any]:
    """Arguments of `transformers.CLIPConfig` for these sizes."""

    def tower(each: TowerSizes) -> dict[str, Any]:
        return {
            "hidden_size": each.width,
            "intermediate_size": each.mlp,
            "num_hidden_layers": each.layers,
            "num_attention_heads": each.heads,
            "hidden_act": activation,
            "projection_dim": sizes.projection,
        }

    return {
        "projection_dim": sizes.projection,
        "vision_config": {**tower(sizes.image), "image_size": sizes.image_size, "patch_size": sizes.patch},
        "text_config": {
            **tower(sizes.text),
            "vocab_size": sizes.vocabulary,
            "max_position_embeddings": sizes.context,
            "bos_token_id": sot,
            "eos_token_id": eot,
            "pad_token_id": eot,
        },
    }


def renamed(weights: Mapping[str, Tensor], sizes: ClipSizes) -> dict[str, Tensor]:
    """The weights under the names of transformers: q, k and v split, projections transposed, the temperature a scalar."""
    prefix = sizes.prefix
    projection = _projection_name(weights, prefix)
    # parameters that multiply from the right in OpenAI's code are transposed; open_clip's nn.Linear is not
    found = {
        "logit_scale": weights["logit_scale"].reshape(()),
        "visual_projection.weight": weights["visual.proj"].T.contiguous(),
        "text_projection.weight": weights[projection] if projection.endswith(".weight") else weights[projection].T.contiguous(),
        "vision_model.embeddings.class_embedding": weights["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": weights["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": weights["visual.positional_embedding"],
        "text_model.embeddings.token_embedding.weight": weights[f"{prefix}token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": weights[f"{prefix}positional_embedding"],
    }
    norms = {
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        f"{prefix}ln_final": "text_model.final_layer_norm",
    }
    for theirs, ours in norms.items():
        for kind in ("weight", "bias"):
            found[f"{ours}.{kind}"] = weights[f"{theirs}.{kind}"]
    for side, model, layers in (("visual.", "vision_model", sizes.image.layers), (prefix, "text_model", sizes.text.layers)):
        for number in range(layers):
            block, layer = f"{side}transformer.resblocks.{number}", f"{model}.encoder.layers.{number}"
            for kind in ("weight", "bias"):
                for theirs, ours in _BLOCK.items():
                    found[f"{layer}.{ours}.{kind}"] = weights[f"{block}.{theirs}.{kind}"]
                for letter, third in zip("qkv", weights[f"{block}.attn.in_proj_{kind}"].chunk(3), strict=True):
                    found[f"{layer}.self_attn.{letter}_proj.{kind}"] = third.contiguous()
    return found


def _tower(weights: Mapping[str, Tensor], prefix: str, width: int, heads: int) -> TowerSizes:
    pattern = re.compile(re.escape(prefix) + r"transformer\.resblocks\.(\d+)\.")
    layers = {found[1] for name in weights if (found := pattern.match(name))}
    return TowerSizes(width, len(layers), heads, weights[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"].shape[0])


def _shapes(sizes: ClipSizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every weight of a CLIP model of these sizes, with its shape."""
    image, text, prefix = sizes.image, sizes.text, sizes.prefix
    yield from (
        ("logit_scale", ()),
        ("visual.class_embedding", (image.width,)),
        ("visual.conv1.weight", (image.width, 3, sizes.patch, sizes.patch)),
        ("visual.positional_embedding", ((sizes.image_size // sizes.patch) ** 2 + 1, image.width)),
        ("visual.proj", (image.width, sizes.projection)),
        (f"{prefix}token_embedding.weight", (sizes.vocabulary, text.width)),
        (f"{prefix}positional_embedding", (sizes.context, text.width)),
        (f"{prefix}text_projection", (text.width, sizes.projection)),
    )
    for norm, width in (("visual.ln_pre", image.width), ("visual.ln_post", image.width), (f"{prefix}ln_final", text.width)):
        yield from ((f"{norm}.{kind}", (width,)) for kind in ("weight", "bias"))
    for side, tower in (("visual.", image), (prefix, text)):
        for number in range(tower.layers):
            block, width = f"{side}transformer.resblocks.{number}", tower.width
            yield from (
                (f"{block}.attn.in_proj_weight", (3 * width, width)),
                (f"{block}.attn.in_proj_bias", (3 * width,)),
                (f"{block}.attn.out_proj.weight", (width, width)),
                (f"{block}.attn.out_proj.bias", (width,)),
                (f"{block}.mlp.c_fc.weight", (tower.mlp, width)),
                (f"{block}.mlp.c_fc.bias", (tower.mlp,)),
                (f"{block}.mlp.c_proj.weight", (width, tower.mlp)),
                (f"{block}.mlp.c_proj.bias", (width,)),
            )
            yield from ((f"{block}.{norm}.{kind}", (width,)) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias"))


def _scalar_scale(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in the form of `_shapes`: the temperature a scalar, an nn.Linear text projection as a matrix."""
    normal = dict(weights)
    if "logit_scale" in normal and normal["logit_scale"].numel() == 1:
        normal["logit_scale"] = normal["logit_scale"].reshape(())
    for prefix in ("", "text."):
        if f"{prefix}text_projection.weight" in normal:
            normal[f"{prefix}text_projection"] = normal.pop(f"{prefix}text_projection.weight").T
    return normal


def _projection_name(weights: Mapping[str, Tensor], prefix: str) -> str:
    bare = f"{prefix}text_projection"
    return bare if bare in weights else f"{bare}.weight"


def _is_causal(mask: Tensor) -> bool:
    """Zero on and below the diagonal, far below zero above it."""
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        return False
    above = torch.ones_like(mask, dtype=torch.bool).triu(1)
    return bool((mask[above] < -1e3).all() and (mask[~above] == 0).all())


def _refuse_others(weights: Mapping[str, Tensor], name: str) -> None:
    """Raise ModelError for another architecture, by its name, before its weights are counted as faults."""
    for pattern, what, wanted in _OTHERS:
        if any(re.search(pattern, key) for key in weights):
            raise ModelError(f"{name} cannot be imported: it has {what}", hint=f"a checkpoint with {wanted}")
    if "visual.conv1.weight" in weights and "visual.ln_pre.weight" not in weights:
        raise ModelError(f"{name} cannot be imported: its image tower has no first layer norm (CLIPA)", hint="a plain CLIP")
