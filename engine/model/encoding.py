"""Pictures to image features in batches of one fixed shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.errors import NotFinite
from engine.model.bundle import Bundle


def encode(bundle: Bundle, pictures: Sequence[NDArray[np.uint8]], batch_size: int) -> NDArray[np.float32]:
    """Features (N, D), rows of length 1, of N uint8 pictures (H, W), bone bright.

    Every batch is filled up to `batch_size` with black pictures: matrix products of one shape add up in one order, so a picture has the
    same features to the bit whatever its neighbours, and a run that was broken off and started again ends as if it had not been. With
    several threads and batches of 2, PyTorch was seen to change the last bit of a toy model's features all the same; at 8 it was not. Where
    a GPU's memory does not hold a batch, it is halved; features then agree to about 1e-6, as between two batch sizes.

    Raises:
        NotFinite: the model gave NaN or infinity.
    """
    rows = [_one_batch(bundle, pictures[start : start + batch_size], batch_size) for start in range(0, len(pictures), batch_size)]
    features = np.concatenate(rows) if rows else np.empty((0, bundle.clip.config.projection_dim), dtype=np.float32)
    if not np.isfinite(features).all():
        raise NotFinite("the model gives NaN or infinite features", hint="another model, or --device cpu")
    return features


def _one_batch(bundle: Bundle, pictures: Sequence[NDArray[np.uint8]], batch_size: int) -> NDArray[np.float32]:
    import torch

    try:
        pixels = bundle.pixels(pictures)
        if len(pictures) < batch_size:
            pixels = torch.cat([pixels, pixels.new_zeros((batch_size - len(pictures), *pixels.shape[1:]))])
        features = bundle.image_features(pixels)[: len(pictures)]
        rows: NDArray[np.float32] = features.cpu().numpy()
        return rows
    except torch.OutOfMemoryError:
        if batch_size == 1:
            raise
    half = (batch_size + 1) // 2
    torch.cuda.empty_cache()
    return np.concatenate([_one_batch(bundle, pictures[start : start + half], half) for start in range(0, len(pictures), half)])
