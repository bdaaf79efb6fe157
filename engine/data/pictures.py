"""A picture file (PNG, JPEG, TIFF, BMP) -> one square of 8-bit grey."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 1 << 27
"""Pictures above 134 million pixels are turned away: no radiograph is that large, and a bomb is."""

Resize = Literal["squash", "pad", "crop"]


class Unreadable(Exception):  # noqa: N818 - the name says what happened; caught where it becomes a row's reason
    """A picture that cannot be read; `reason` is a code of engine/dicom/policy.py."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def is_dicom(raw: bytes) -> bool:
    """True for a DICOM file with its preamble (PS3.10, 7.1)."""
    return raw[128:132] == b"DICM"


def picture_of(raw: bytes, size: int, resize: Resize) -> NDArray[np.uint8]:
    """The bytes of a picture file -> uint8 (size, size).

    Eight-bit grey stays as it is, colour becomes grey. More than 8 bits are scaled by the range the picture really uses: an 8-bit
    conversion would clip the 10 to 16 bits that data sets store in 16-bit PNGs.

    Raises:
        Unreadable: empty_file, not_a_picture, truncated, decode_error, resource_limit or degenerate_image (one grey value).
    """
    if not raw:
        raise Unreadable("empty_file")
    try:
        with Image.open(io.BytesIO(raw)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Unreadable("resource_limit")
            image.draft("L", (2 * size, 2 * size))  # JPEG only: decodes at a half, quarter or eighth where that is large enough
            image.load()
            grey = _grey(image)
    except UnidentifiedImageError as error:
        raise Unreadable("not_a_picture") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable("resource_limit") from error
    except Unreadable:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more on damaged files
        raise Unreadable("truncated" if "truncated" in str(error) else "decode_error") from error
    low, high = grey.getextrema()
    if low == high:
        raise Unreadable("degenerate_image")
    return squared(np.asarray(grey), size, resize)


def _grey(image: Image.Image) -> Image.Image:
    """Mode L: 8-bit grey."""
    if not image.mode.startswith(("I", "F")):
        return image.convert("L")
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise Unreadable("decode_error")
    low, high = values.min(), values.max()
    if low == high:
        raise Unreadable("degenerate_image")
    return Image.fromarray(np.rint((values - low) * (255 / (high - low))).astype(np.uint8))


def squared(picture: NDArray[np.uint8], size: int, resize: Resize) -> NDArray[np.uint8]:
    """uint8 (H, W) -> uint8 (size, size), antialiased by the filter that evaluation uses (LANCZOS).

    squash: both sides become `size`. pad: the longer side does, black on both ends of the shorter. crop: the shorter side does, the
    middle of the longer is kept.
    """
    image = Image.fromarray(picture)
    width, height = image.size
    if resize == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)))
    if resize == "squash":
        return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
    scale = size / max(width, height)
    inner = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
    out = Image.new("L", (size, size))
    out.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return np.asarray(out)
