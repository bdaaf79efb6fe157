"""Plain PNG and JPEG files, as image tables of published data sets name them: 8 or 16 bit, grey or grey stored in colour."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.dicom.codestream import jpeg_claim
from engine.dicom.grey import shrink
from engine.dicom.pixels import Stored, hash_of
from engine.dicom.policy import Refusal
from engine.dicom.selection import MIN_SIDE

_DRAFTS = (8, 4, 2)


def read_picture(data: bytes, size: int, max_pixels: int) -> tuple[NDArray[np.uint8], int, int, str | None, list[str]]:
    """uint8 (H, W) with shorter side == size; full rows and columns; pixel hash (None for JPEG); flags.

    8-bit pictures keep their grey values. 16-bit ones are scaled by the range that they truly use (12 bits in a 16-bit file are common):
    reading them through an 8-bit conversion clips. Nothing tells their polarity: they are taken to be bone bright.

    Raises:
        Refusal: `not_dicom` for other kinds of picture, `truncated`, `decode_error`, `resource_limit`, `too_small`, `color_image`,
            `degenerate_image`.
    """
    from PIL import Image

    kind = "JPEG" if data[:2] == b"\xff\xd8" else "PNG" if data[:4] == b"\x89PNG" else ""
    if not kind:
        raise Refusal("not_dicom")
    if kind == "JPEG":
        claim = jpeg_claim(data)
        if claim.rows * claim.columns > max_pixels:
            raise Refusal("resource_limit")
    try:
        with warnings.catch_warnings(), _any_size(), Image.open(io.BytesIO(data), formats=[kind]) as image:
            warnings.simplefilter("ignore")
            columns, rows = image.size
            if rows * columns > max_pixels:
                raise Refusal("resource_limit")
            if min(rows, columns) < MIN_SIDE:
                raise Refusal("too_small")
            factor = 1
            if kind == "JPEG":
                factor = next((factor for factor in _DRAFTS if min(rows, columns) // factor >= 2 * size), 1)
                if factor > 1:
                    image.draft(image.mode, (-(-columns // factor), -(-rows // factor)))
            values, flags = _grey_values(image)
    except Refusal:
        raise
    except MemoryError:
        raise Refusal("resource_limit") from None
    except OSError as error:
        raise Refusal("truncated" if "truncated" in str(error).lower() else "decode_error") from None
    except Exception:
        raise Refusal("decode_error") from None
    if values.max() == values.min():
        raise Refusal("degenerate_image")
    small = shrink(values, Stored(values, rows, columns, factor), 1.0, size)
    if values.dtype.itemsize > 1:
        low, high = float(values.min()), float(values.max())
        small = (small - low) * (255.0 / (high - low))
    picture = np.rint(np.clip(small, 0, 255)).astype(np.uint8)
    return picture, rows, columns, hash_of(values) if kind == "PNG" else None, flags


@contextmanager
def _any_size() -> Iterator[None]:
    """Without Pillow's own limit of pixels, which knows nothing of ours: the size is checked before anything is decoded."""
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _grey_values(image: Any) -> tuple[NDArray[Any], list[str]]:
    if image.mode in ("P", "PA", "LA", "RGBA", "CMYK", "YCbCr"):
        image = image.convert("RGB")
    values = np.asarray(image)
    if image.mode == "1":
        raise Refusal("unsupported_bits")
    if values.ndim == 2:
        return (values.astype(np.int32) if values.dtype.kind == "i" else values), []
    spread = values.max(-1).astype(np.int32) - values.min(-1)
    if np.count_nonzero(spread > 24) > spread.size / 1000:
        raise Refusal("color_image")
    return np.ascontiguousarray(values[..., 1]), ["color_as_grey"]
