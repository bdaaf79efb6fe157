"""A picture file -> one square of 8-bit grey, read as the scoring of files reads it (engine/dicom/picture.py)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_PIXELS = 1 << 27
"""Pictures above 134 million pixels are turned away: no radiograph is that large, and a decompression bomb is."""

Resize = Literal["squash", "pad", "crop"]


def is_dicom(raw: bytes) -> bool:
    """True for a DICOM file with its preamble (PS3.10, 7.1)."""
    return raw[128:132] == b"DICM"


def picture_of(raw: bytes, size: int, resize: Resize) -> NDArray[np.uint8]:
    """The bytes of a PNG or JPEG file -> uint8 (size, size).

    Eight-bit grey stays as it is. Sixteen bits are scaled by the range the picture really uses: an 8-bit conversion would clip the 10
    to 16 bits that data sets store in 16-bit PNGs.

    Raises:
        engine.dicom.policy.Refusal: with the code of what is wrong with the picture.
    """
    from engine.dicom.picture import read_picture
    from engine.dicom.policy import Refusal

    if not raw:
        raise Refusal("empty_file")
    return squared(read_picture(raw, size, MAX_PIXELS)[0], size, resize)


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
