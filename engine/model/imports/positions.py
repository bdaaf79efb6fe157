"""A CLIP for pictures of another size or texts of another length: its position embeddings, made to fit.

pictures   the grid of patch positions is resampled bicubically, CLS keeps its own. `antialias` picks whose bicubic: open_clip's
           (`resize_pos_embed`: antialiased, a = -0.5), or transformers' (`interpolate_pos_encoding`: not, a = -0.75)
texts      a shorter context keeps the first positions, so that texts which still fit have the same features; a longer one keeps them all
           and repeats the last, for training to tell apart. (open_clip stretches positions instead, which moves every text.)
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.errors import ConfigError

if TYPE_CHECKING:
    from transformers import CLIPModel

IMAGE_POSITIONS = "vision_model.embeddings.position_embedding.weight"
TEXT_POSITIONS = "text_model.embeddings.position_embedding.weight"
SHORTEST, LONGEST = 3, 4096
"""Tokens: SOT, a word, EOT; and what no CLIP goes beyond."""


def fitted(clip: CLIPModel, *, image_size: int | None = None, context: int | None = None, antialias: bool) -> CLIPModel:
    """The same weights for pictures of `image_size` pixels and texts of `context` tokens; `clip` itself where nothing changes.

    Raises:
        ConfigError: no whole number of patches, or a length that no text has.
    """
    vision, text = clip.config.vision_config, clip.config.text_config
    image_size, context = image_size or vision.image_size, context or text.max_position_embeddings
    if (image_size, context) == (vision.image_size, text.max_position_embeddings):
        return clip
    if image_size % vision.patch_size or not vision.patch_size <= image_size <= 8192:
        near = max(1, round(image_size / vision.patch_size)) * vision.patch_size
        raise ConfigError(
            f"pictures of {image_size} pixels do not divide into the weights' patches of {vision.patch_size}", hint=f"a size of {near}"
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
    """(1 + G * G, width) -> (1 + grid * grid, width): CLS as it is, the rest resampled bicubically over the plane."""
    cls, patches = positions[:1], positions[1:]
    old = math.isqrt(len(patches))
    if old == grid:
        return positions
    plane = patches.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, size=(grid, grid), mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([cls, plane.permute(0, 2, 3, 1).reshape(grid * grid, -1)])


def text_positions(positions: Tensor, context: int) -> Tensor:
    """(T, width) -> (context, width): the first ones, and the last repeated where there are not enough."""
    last = positions[-1:].expand(max(0, context - len(positions)), -1)
    return torch.cat([positions[:context], last])
