"""Weights of a CLIP model: read from safetensors, checked before use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engine.errors import ModelError

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPModel


def read_weights(path: Path, name: str) -> dict[str, Tensor]:
    """The state dict in float32.

    Raises:
        ModelError: not a whole safetensors file, or a value that is no finite number.
    """
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError):
        raise ModelError(f"{path.name} of model {name} is truncated or no safetensors file", hint="copy the model again") from None
    return checked_weights(weights, name)


def checked_weights(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The same weights as float32, whole numbers as they are; ModelError where one is NaN or infinite."""
    for key, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"model {name} holds NaN or infinite weights", why=f"in {key}")
    return {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}


def load_weights(clip: CLIPModel, weights: dict[str, Tensor], name: str) -> None:
    """Load weights into a model with exactly these names and shapes. Position ids of old checkpoints are dropped.

    Raises:
        ModelError: missing, unknown or misshapen weights: the number of each, and the first three.
    """
    weights = {key: value for key, value in weights.items() if not key.endswith("position_ids")}
    if faults := misfits({key: value.shape for key, value in clip.state_dict().items()}, weights):
        raise ModelError(f"the weights of model {name} do not fit its config.json", why=faults)
    clip.load_state_dict(weights)


def check_sizes(config: CLIPConfig, weights: Mapping[str, Tensor], name: str) -> None:
    """Refuse a configuration with more weights than the file, before memory is allocated.

    Raises:
        ModelError: its matrices alone would hold more than twice the numbers in the file.
    """
    wanted = config.text_config.vocab_size * config.text_config.hidden_size
    for tower in (config.vision_config, config.text_config):
        wanted += tower.num_hidden_layers * (4 * tower.hidden_size**2 + 2 * tower.hidden_size * tower.intermediate_size)
        wanted += tower.hidden_size * config.projection_dim
    wanted += (config.vision_config.image_size // config.vision_config.patch_size) ** 2 * config.vision_config.hidden_size
    wanted += config.text_config.max_position_embeddings * config.text_config.hidden_size
    there = sum(value.numel() for value in weights.values())
    if wanted > 2 * there:
        raise ModelError(
            f"the weights of model {name} do not fit its config.json",
            why=f"it describes {wanted:,} numbers or more, the file has {there:,}",
        )


def misfits(wanted: Mapping[str, Sequence[int]], weights: Mapping[str, Tensor]) -> str:
    """Missing, unknown and misshapen weights: the number of each and the first three; "" where all fit."""
    missing, unknown = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    misshapen = [
        f"{key} is {list(weights[key].shape)}, not {list(shape)}"
        for key, shape in wanted.items()
        if key in weights and list(weights[key].shape) != list(shape)
    ]
    faults = [
        f"{len(group)} {word}, first {'; '.join(group[:3])}"
        for word, group in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        if group
    ]
    return ", and ".join(faults)
