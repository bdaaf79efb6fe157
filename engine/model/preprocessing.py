"""Image preprocessing of a model: resize, crop and normalise a grey image. Stored with the weights. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Resize = Literal["squash", "pad", "crop"]
Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
FILTERS: dict[Resample, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
Image8 = npt.NDArray[np.uint8]


def resized(image: Image8, size: int, resize: Resize, resample: Resample = "lanczos", resize_to: int | None = None) -> Image8:
    """One square (size, size) uint8 image from one of any shape (H, W), bone bright.

    squash: both sides to `size`, for any aspect: the whole field of view, a little distorted.
    pad: longer side to `size`, black next to it. crop: shorter side to `size`, the middle of the longer.

    Args:
        resize_to: scale to this side instead of `size`, and crop the centre.
    """
    (h, w), (top, left) = placement(image.shape, size, resize, resize_to)
    if (h, w) != image.shape:
        image = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((w, h), FILTERS[resample]))
    if (h, w) == (size, size):
        return image
    square = np.zeros((size, size), np.uint8)
    square[max(top, 0) : max(top, 0) + min(h, size), max(left, 0) : max(left, 0) + min(w, size)] = image[
        max(-top, 0) : max(-top, 0) + size, max(-left, 0) : max(-left, 0) + size
    ]
    return square


def placement(shape: tuple[int, ...], size: int, resize: Resize, resize_to: int | None = None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of an image of `shape` (H, W) after `resized` has scaled it, and its top and left on the square.

    Top and left are negative where the image is cropped. The point (y, x) of the image is at (y h / H + top, x w / W + left). Crops are
    rounded as in transformers.
    """
    scaled, (height, width) = resize_to or size, shape
    if resize == "squash":
        h, w = scaled, scaled
    elif resize == "pad":
        h, w = (max(1, round(side * scaled / max(height, width))) for side in (height, width))
    else:
        h, w = (int(scaled * side / min(height, width)) for side in (height, width))
    return (h, w), (_offset(size, h), _offset(size, w))


def _offset(size: int, length: int) -> int:
    return (size - length) // 2 if length <= size else -((length - size) // 2)


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop and `(grey / 255 - mean) / std` in three channels.

    Attributes:
        size: side in pixels of the square that the image tower takes.
        resize: as in `resized`.
        mean, std: per channel, of grey values in [0, 1].
        resample: the filter.
        resize_to: side in pixels before the centre is cropped to `size`; None: `size`.
    """

    size: int
    resize: Resize
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: Resample = "lanczos"
    resize_to: int | None = None

    @property
    def read_size(self) -> int:
        """Side in pixels before the centre crop: the resolution at which images are read."""
        return self.resize_to or self.size

    def square(self, image: Image8) -> Image8:
        """(size, size) uint8 from (H, W), before normalisation. A square of `read_size` is cropped only."""
        return resized(image, self.size, self.resize, self.resample, self.resize_to)

    def placement(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        """As the function `placement`."""
        return placement(shape, self.size, self.resize, self.resize_to)

    def pixels(self, images: Sequence[Image8]) -> npt.NDArray[np.float32]:
        """(B, 3, size, size) float32 from uint8 (H, W) images of any shapes, bone bright."""
        grey = np.zeros((len(images), self.size, self.size), np.float32)
        for row, image in enumerate(images):
            grey[row] = self.square(image)
        grey /= 255
        mean, std = (np.asarray(values, np.float32)[None, :, None, None] for values in (self.mean, self.std))
        normal: npt.NDArray[np.float32] = (grey[:, None] - mean) / std
        return normal

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON. `resample` and `resize_to` are left out where they are the defaults, so that older hashes stay."""
        defaults = {"resample": "lanczos", "resize_to": None}
        return {key: value for key, value in asdict(self).items() if key not in defaults or value != defaults[key]}


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
GREY_MEAN = (0.5, 0.5, 0.5)
GREY_STD = (0.25, 0.25, 0.25)
"""Plain constants for models trained here from scratch; close to the mean and deviation of chest radiographs."""
