"""A grey picture of any sides -> the square that is stored and trained on."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Resize = Literal["squash", "pad", "crop"]


def squared(picture: NDArray[np.uint8], size: int, resize: Resize) -> NDArray[np.uint8]:
    """uint8 (H, W) -> uint8 (size, size), antialiased by the filter that evaluation uses (LANCZOS).

    squash: both sides become `size`. pad: the longer side does, black on both ends of the shorter. crop: the shorter side does, the
    middle of the longer is kept.
    """
    height, width = picture.shape
    side = {"squash": 0, "pad": max(height, width), "crop": min(height, width)}[resize]
    shape = (size, size) if side == 0 else (max(1, round(width * size / side)), max(1, round(height * size / side)))
    image = Image.fromarray(np.ascontiguousarray(picture))
    image = image.resize(shape, Image.Resampling.LANCZOS) if shape != image.size else image
    left, top = -((size - shape[0]) // 2), -((size - shape[1]) // 2)  # negative where black is added
    return np.asarray(image.crop((left, top, left + size, top + size)))
