"""Plain image files (PNG, JPEG, TIFF, BMP, WebP), as image tables name them: grey, or grey stored in colour, of any depth but 1 bit.

How such a file is shown:
  - Grey values are taken as they are stored. Gamma, sRGB and ICC profiles say how a screen should look; radiographs come with any of them.
  - 8 bits or fewer are shown as they are, deeper images over the range of their data (windowing.py): 12 bits in 16 are common, and reading
    them through an 8-bit conversion clips. Their polarity is not recorded: they are taken to be bone bright.
  - Transparent pixels are black, like padding.
  - The orientation that Exif asks for is applied: every viewer does.
  - Of a JPEG of several images (MPO) the first is read, the others are previews; a TIFF of several pages and an animated PNG or WebP
    are refused.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.dicom.codestream import Claim, jpeg_claim
from engine.dicom.decoders import JpegSource, exact_jpeg
from engine.dicom.grey import least_decoded_side, to_grey_image
from engine.dicom.header import Header
from engine.dicom.pixels import Stored, hash_of, refuse_color
from engine.dicom.reasons import Refusal
from engine.dicom.selection import MIN_SIDE

_DRAFTS = (8, 4, 2)
_ORIENTATION = 0x0112
_STARTS = {b"\x89PNG": "PNG", b"\xff\xd8": "JPEG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}


def _format(data: bytes) -> str:
    """The format as Pillow names it; "" for other kinds of image."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), "")


_TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
"""Exif orientation -> quarter turns to the left, and whether the result is then mirrored left to right (Exif 2.32, 4.6.5.1)."""


def read_image(data: bytes, size: int, max_pixels: int) -> tuple[NDArray[np.uint8], int, int, str | None, list[str]]:
    """uint8 (H, W) with shorter side == size; full rows and columns; pixel hash (None for JPEG and WebP); flags.

    Rows and columns are those of the upright image.

    Raises:
        Refusal: `not_dicom` for other kinds of image, `truncated`, `decode_error`, `resource_limit`, `too_small`, `color_image`,
            `multi_frame`, `unsupported_bits` (1 bit, more than 16, or floating point), `degenerate_image`.
    """
    kind = _format(data)
    if not kind:
        raise Refusal("not_dicom")
    claim = jpeg_claim(data) if kind == "JPEG" else None
    if claim is not None and claim.rows * claim.columns > max_pixels:
        raise Refusal("resource_limit")
    if claim is not None and not claim.whole:
        raise Refusal("truncated")
    try:
        deep = claim is not None and (claim.coding != "jpeg" or claim.bits != 8)
        values, rows, columns, factor, turn = _deep_jpeg(data, claim) if deep and claim else _opened(data, claim, kind, size, max_pixels)
    except Refusal:
        raise
    except MemoryError:
        raise Refusal("resource_limit") from None
    except OSError as error:
        raise Refusal("truncated" if "truncated" in str(error).lower() else "decode_error") from None
    except Exception:
        raise Refusal("decode_error") from None
    values, flags = _one_channel(values)
    header = Header(photometric="MONOCHROME2", samples=1, bits_stored=8 * values.dtype.itemsize)
    picture, raised = to_grey_image(Stored(values, rows, columns, factor), header, size)
    flags += [flag for flag in raised if flag == "burned_in"]  # the others speak of headers
    if turn in _TURNS:
        quarters, mirrored = _TURNS[turn]
        picture = np.rot90(picture, quarters)
        picture = np.ascontiguousarray(picture[:, ::-1] if mirrored else picture)
        rows, columns = (columns, rows) if quarters % 2 else (rows, columns)
    return picture, rows, columns, None if kind in ("JPEG", "WEBP") else hash_of(values), flags


_Opened = tuple[NDArray[Any], int, int, int, int]
"""Values (h, w) or (h, w, channels), full rows and columns, what the values are reduced by, and the orientation that Exif asks for."""


def _opened(data: bytes, claim: Claim | None, kind: str, size: int, max_pixels: int) -> _Opened:
    from PIL import Image

    source = io.BytesIO(data) if claim is None else JpegSource(data, claim)
    with warnings.catch_warnings(), _any_size(), Image.open(source, formats=[kind]) as image:
        warnings.simplefilter("ignore")
        columns, rows = image.size
        if rows * columns > max_pixels:
            raise Refusal("resource_limit")
        if min(rows, columns) < MIN_SIDE:
            raise Refusal("too_small")
        if kind != "JPEG" and getattr(image, "n_frames", 1) > 1:
            raise Refusal("multi_frame")
        if image.mode in ("1", "F"):
            raise Refusal("unsupported_bits")
        factor = 1
        if kind == "JPEG":
            factor = next((factor for factor in _DRAFTS if min(rows, columns) // factor >= least_decoded_side(size)), 1)
            if factor > 1:
                image.draft(image.mode, (-(-columns // factor), -(-rows // factor)))
        values = _values(image, data, kind)
        if isinstance(source, JpegSource):
            source.refuse_leftovers()
        return values, rows, columns, factor, _orientation(image)


def _orientation(image: Any) -> int:
    """The orientation in the Exif data of a loaded image; 1, upright, where they are absent or broken."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises almost anything on broken ones
        return 1


def _values(image: Any, data: bytes, kind: str) -> NDArray[Any]:
    """The values of an image that Pillow has opened; those of 16 bits and several channels, which it cuts to 8, by another decoder."""
    if kind == "PNG" and data[24] == 16 and data[25] != 0:  # IHDR: bit depth, colour type
        import imagecodecs

        image.load()  # which finds what is truncated or broken
        values: NDArray[Any] = np.asarray(imagecodecs.png_decode(data))
        return values
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode == "PA":
        image = image.convert("RGBA")
    elif image.mode in ("CMYK", "YCbCr", "LAB"):
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.dtype.kind == "i" and values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise Refusal("unsupported_bits")
    return values.astype(np.uint16) if values.dtype.kind == "i" or values.dtype.byteorder == ">" else values


def _deep_jpeg(data: bytes, claim: Claim) -> _Opened:
    """A JPEG that is lossless, JPEG-LS, or deeper than 8 bits, which Pillow does not decode."""
    import imagecodecs

    if min(claim.rows, claim.columns) < MIN_SIDE:
        raise Refusal("too_small")
    values = np.asarray(imagecodecs.jpegls_decode(data) if claim.coding == "jpegls" else exact_jpeg(data, claim))
    if values.shape[:2] != (claim.rows, claim.columns) or values.dtype.kind != "u" or values.dtype.itemsize > 2:
        raise Refusal("decode_error")
    return values, claim.rows, claim.columns, 1, 1


@contextmanager
def _any_size() -> Iterator[None]:
    """Without Pillow's own limit of pixels, which knows nothing of ours: the size is checked before anything is decoded."""
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _one_channel(values: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """Values (h, w), (h, w, 2) with alpha, (h, w, 3) or (h, w, 4) with alpha -> (h, w), and flags.

    Raises:
        Refusal: `color_image`.
    """
    if values.ndim == 2:
        return values, []
    channels = values.shape[2]
    alpha = values[..., -1] if channels in (2, 4) else None
    flags = []
    if channels >= 3:
        colors = values[..., :3]
        refuse_color(colors.max(-1) - colors.min(-1), 255 if values.dtype.itemsize == 1 else int(colors.max()))
        flags.append("color_as_grey")
    grey = np.ascontiguousarray(values[..., 1 if channels >= 3 else 0])
    if alpha is not None and int(alpha.min()) != int(alpha.max()):  # one alpha everywhere hides nothing from anything
        white = np.iinfo(values.dtype).max
        grey = ((grey.astype(np.uint32) * alpha + white // 2) // white).astype(values.dtype)
    return grey, flags
