"""Stored pictures of a batch as the image tower takes them: views drawn at random, then normalised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.data.batches import augment, view_numbers

if TYPE_CHECKING:
    from engine.recipe.pretraining import Augmentation

Channels = tuple[float, ...]


def normalised_views(
    batch: Mapping[str, Tensor],
    augmentation: Augmentation,
    size: int,
    mean: Channels,
    std: Channels,
    uniform: Callable[[int, int], Tensor],
) -> dict[str, Tensor]:
    """The batch with a view of each stored picture: `images` and `unpaired_images`, uint8 (B, S0, S0), become float32 (B, 3, size, size).

    Args:
        mean, std: of the three channels, for pixels in [0, 1].
        uniform: (rows, columns) -> numbers in [0, 1) that decide the views.
    """
    seen = dict(batch)
    for name in ("images", "unpaired_images"):
        if name in seen:
            numbers = view_numbers(len(seen[name]), augmentation, uniform)
            grey = augment(seen[name], augmentation, size, numbers)
            middle, spread = _constants(mean, grey.device), _constants(std, grey.device)
            seen[name] = (grey - middle) / spread
    return seen


@cache
def _constants(values: Channels, device: torch.device) -> Tensor:
    """(1, 3, 1, 1), made once: a GPU would wait for each copy."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)
