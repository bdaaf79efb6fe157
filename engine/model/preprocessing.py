"""Image preprocessing of a model: resize, crop and normalise a grey image. Stored with the weights. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Resize = Literal["squash", "pad", "crop"]


def resized(picture: npt.NDArray[np.uint8], size: int, resize: Resize) -> npt.NDArray[np.uint8]:
    """One square (size, size) uint8 picture from one of any shape (H, W), bone bright.

    squash: both sides to `size`, whatever the aspect: the whole field of view, a little distorted.
    pad: longer side to `size`, black beside it. crop: shorter side to `size`, the middle of the longer.
    """
    shape, (top, left) = placement(picture.shape, size, resize)
    if shape != picture.shape:
        image = Image.fromarray(np.ascontiguousarray(picture)).resize((shape[1], shape[0]), Image.Resampling.LANCZOS)
        picture = np.asarray(image)
    if shape == (size, size):
        return picture
    square = np.zeros((size, size), np.uint8)
    square[max(top, 0) : max(top, 0) + min(shape[0], size), max(left, 0) : max(left, 0) + min(shape[1], size)] = picture[
        max(-top, 0) : max(-top, 0) + size, max(-left, 0) : max(-left, 0) + size
    ]
    return square


def placement(shape: tuple[int, ...], size: int, resize: Resize) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width to which `resized` brings a picture of `shape` (H, W), and the top and left at which it then lies on the square.

    Top and left are negative where the picture is cropped. The point (y, x) of the picture lies at (y h / H + top, x w / W + left).
    """
    if resize == "squash":
        return (size, size), (0, 0)
    height, width = shape
    side = max(height, width) if resize == "pad" else min(height, width)
    h, w = max(1, round(height * size / side)), max(1, round(width * size / side))
    return (h, w), ((size - h) // 2, (size - w) // 2)


@dataclass(frozen=True)
class Preprocessing:
    """What a model does with a picture: `(resized / 255 - mean) / std`, the same for all three channels unless the source differs.

    `size` in pixels; `mean` and `std` per channel, of grey values in [0, 1].
    """

    size: int
    resize: Resize
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def pixels(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """(B, 3, size, size) float32 from uint8 (H, W) pictures of any shapes, bone bright."""
        grey = np.zeros((len(pictures), self.size, self.size), np.float32)
        for row, picture in enumerate(pictures):
            grey[row] = resized(picture, self.size, self.resize)
        grey /= 255
        mean, std = (np.asarray(values, np.float32)[None, :, None, None] for values in (self.mean, self.std))
        normal: npt.NDArray[np.float32] = (grey[:, None] - mean) / std
        return normal

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
GREY_MEAN = (0.5, 0.5, 0.5)
GREY_STD = (0.25, 0.25, 0.25)
"""Plain constants for models trained here from scratch; close to the mean and deviation of chest radiographs."""
