"""The first decoders: a codestream and its claim -> values, or a refusal where a decoder makes a picture of less than the whole of it.

libjpeg fills what is missing with grey and counts that as a warning, which neither of its two bindings here passes on; imagecodecs loses
the errors of OpenJPH. What each of them does at the end of its data is therefore arranged or looked at here. None of this costs a second
decoding but where the values already look as if data had run out, or run over.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.dicom.codestream import Claim
from engine.dicom.policy import Refusal

Codestream = Any
"""A memoryview: a copy of 4 MB is 5 % of an HTJ2K reading. imagecodecs takes one, its stubs do not know."""

_TAIL, _SPARE = 16, b"\0" * 16
_END = b"\xff\xd9"


class JpegSource(io.BytesIO):
    """A JPEG stream as Pillow is to read it, so that it tells what it makes of the end of the data.

    A stream of one scan goes in without its end marker, and with 16 zero bytes in place of those that it ends in, if any: a decoder that
    needs more of them waits for ever, which Pillow calls truncated. Its last bytes are handed out only to a reader that has read all
    others: a decoder that is done before it has asked for them has lost its way in damaged data. Streams of several scans go in as they
    are.
    """

    def __init__(self, stream: Codestream, claim: Claim) -> None:
        single = claim.scans == 1
        data = bytes(stream[: claim.data_end]).rstrip(b"\0") if single else bytes(stream[: claim.end])
        self.mark = len(data) - _TAIL if single else 0
        self.tail_was_read = False
        super().__init__(data + _SPARE if single else data)

    def read(self, size: int | None = -1, /) -> bytes:
        """As BytesIO, but never across the mark."""
        left = self.mark - self.tell()
        if left > 0:
            return super().read(left if size is None or size < 0 else min(size, left))
        self.tail_was_read = True
        return super().read(size)

    def refuse_leftovers(self) -> None:
        """To be asked once the picture is there.

        Raises:
            Refusal: `decode_error` where the decoder left data over, other than zeros, or a few bytes of padding.
        """
        if self.mark > 0 and not self.tail_was_read:
            raise Refusal("decode_error")


def scaled_jpeg(stream: Codestream, claim: Claim, factor: int, *, as_coded: bool = False) -> NDArray[np.uint8]:
    """8-bit JPEG by scaled DCT, (h, w) or (h, w, 3): libjpeg skips the coefficients that a picture of 1 / factor the size does not need.

    as_coded: colours stay as they are coded; else those that are YCbCr as far as the stream tells become RGB.

    Raises:
        Refusal: `truncated`, `decode_error`, both for what befalls once decoding has begun.
        Exception: Pillow's own, for headers that it cannot read.
    """
    from PIL import Image

    source = JpegSource(stream, claim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(source, formats=["JPEG"]) as picture:
            if factor > 1 or as_coded:
                picture.draft("YCbCr" if as_coded else picture.mode, (claim.columns // factor, claim.rows // factor))
            try:
                values = np.asarray(picture)
            except OSError as error:
                raise Refusal("truncated" if "truncated" in str(error) else "decode_error") from None
    source.refuse_leftovers()
    return values


def exact_jpeg(stream: Codestream, claim: Claim) -> NDArray[Any]:
    """JPEG of any bits, DCT or lossless, (h, w) or (h, w, c).

    Where data run out, libjpeg writes middle grey. A picture that ends in it is decoded once more with other bytes after its data:
    if that changes anything, they ran out.

    Raises:
        Refusal: `truncated`; `decode_error` for lossless values of more bits than the frame has whose decoder came to no end of its data.
        Exception: imagecodecs' own.
    """
    import imagecodecs

    values: NDArray[Any] = imagecodecs.jpeg8_decode(stream[: claim.end])
    if claim.scans != 1:
        return values
    if (values[-1, -8:] == 1 << (claim.bits - 1)).all() and not _decodes_to(values, stream[: claim.data_end], b"\x5a\xc3\x96" * 40):
        raise Refusal("truncated")
    if claim.coding == "lossless" and over_range(values, claim) and _decodes_to(values, stream[: claim.data_end - 4], b""):
        raise Refusal("decode_error")
    return values


def over_range(values: NDArray[Any], claim: Claim) -> bool:
    """Whether some value has more bits than the frame header says: lossless differences count modulo 2^16, whatever the precision."""
    return claim.bits < 8 * values.dtype.itemsize and int(values.max(initial=0)) >> claim.bits > 0


def _decodes_to(values: NDArray[Any], data: Codestream, more: bytes) -> bool:
    import imagecodecs

    try:
        return np.array_equal(imagecodecs.jpeg8_decode(bytes(data) + more + _END), values)
    except imagecodecs.Jpeg8Error:
        return False


def htj2k(stream: Codestream, bits: int, factor: int) -> NDArray[Any]:
    """HTJ2K by OpenJPH, 1 / factor the size."""
    import imagecodecs

    level = factor.bit_length() - 1
    with _errors_that_are_ignored() as ignored:
        values: NDArray[Any] = imagecodecs.htj2k_decode(stream, skipres=(level, level) if level else None)
    if ignored:
        raise ValueError("the decoder stopped before its last row")
    if level and values.dtype == np.uint16:
        values = np.clip(values.view(np.int16), 0, (1 << bits) - 1)  # what wrapped below zero
    return values


@contextmanager
def _errors_that_are_ignored() -> Iterator[list[Any]]:
    """Errors that native code cannot hand on (sys.unraisablehook): imagecodecs loses OpenJPH's, and returns memory that nobody filled."""
    before, ignored = sys.unraisablehook, list[Any]()
    sys.unraisablehook = lambda lost: ignored.append(lost.exc_type)
    try:
        yield ignored
    finally:
        sys.unraisablehook = before


def j2k(stream: Codestream, claim: Claim, factor: int, whole: bool) -> NDArray[Any]:
    """JPEG 2000 by Pillow's OpenJPEG where it can (it reduces, and refuses broken streams), else imagecodecs'."""
    if whole:
        import imagecodecs

        result: NDArray[Any] = imagecodecs.jpeg2k_decode(stream, numthreads=1)
        return result
    from PIL import Image

    shape = (-(-claim.rows // factor), -(-claim.columns // factor))
    with Image.open(io.BytesIO(stream), formats=["JPEG2000"]) as picture:
        _ask_for_level(picture, factor.bit_length() - 1, shape)
        values = np.asarray(picture)
    values = values >> (8 * values.dtype.itemsize - claim.bits)  # Pillow shifts 12 bits up to 16
    return (values.astype(np.int32) - (1 << (claim.bits - 1))).astype(np.int16) if claim.signed else values


def _ask_for_level(picture: Any, level: int, shape: tuple[int, int]) -> None:
    """Tell Pillow's JPEG 2000 decoder to leave out `level` resolutions. Its own `reduce` rounds the size where the standard rounds up."""
    tile = picture.tile[0]
    picture._size = (shape[1], shape[0])
    arguments = (tile[3][0], level, *tile[3][2:])
    picture.tile = [tile._replace(extents=(0, 0, *picture.size), args=arguments)]
