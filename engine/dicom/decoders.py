"""The first decoders: a codestream and its claim -> values, or a rejection where a decoder returns an image of less than the whole stream.

libjpeg fills missing data with grey and only counts a warning, which neither of its two bindings used here passes on; imagecodecs loses
the errors of OpenJPH. This module therefore controls or checks what each decoder does at the end of its data. A second decoding is needed
only where the values already suggest that data ran out or were left over.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.dicom.codestream import Claim
from engine.dicom.jpeg_integrity import BLOCK, CERTAIN, DOUBTFUL, BlockEdges, append_check_row, block_row_discontinuity, end_of_data
from engine.dicom.reasons import Refusal

Codestream = Any
"""A memoryview: a copy of 4 MB is 5 % of an HTJ2K reading. imagecodecs accepts one, its type stubs do not."""

Decode = Callable[[bytes], NDArray[Any]]
"""A decoder of whole streams; it may raise anything."""

_TAIL, _SPARE = 16, b"\0" * 16
_END = b"\xff\xd9"


class JpegSource(io.BytesIO):
    """A JPEG stream as Pillow reads it, arranged so that the end of the data shows whether decoding stayed in step.

    A stream of one scan is given without its end marker, and with 16 zero bytes in place of the zeros that it ends in: a decoder that needs
    more data waits for them, which Pillow reports as truncated. Its last bytes are returned only to a reader that has read all others: a
    decoder that finishes before it asked for them lost sync in damaged data. Streams of several scans are given as they are.

    with_zeros: keep all zero bytes at the end of the data, and count them among those others.
    """

    def __init__(self, stream: Codestream, claim: Claim, *, with_zeros: bool = False) -> None:
        single = claim.scans == 1
        whole = bytes(stream[: claim.data_end if single else claim.end])
        data = whole if with_zeros or not single else whole.rstrip(b"\0")
        self.zeros = len(whole) - len(data)
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
        """Check, once the image is decoded, that its data were read.

        Raises:
            Refusal: `decode_error` where the decoder left data over, other than zeros or a few bytes of padding.
        """
        if self.mark > 0 and not self.tail_was_read:
            raise Refusal("decode_error")


def scaled_jpeg(stream: Codestream, claim: Claim, factor: int, *, as_coded: bool = False) -> NDArray[np.uint8]:
    """8-bit JPEG by scaled DCT, (h, w) or (h, w, 3): libjpeg skips the coefficients that an image of 1 / factor the size does not need.

    as_coded: keep colours as they are coded; else YCbCr, as far as the stream declares it, becomes RGB.

    Raises:
        Refusal: `truncated`, `decode_error`, both for failures once decoding has begun.
        Exception: Pillow's, for headers that it cannot read.
    """

    def again(data: bytes) -> NDArray[np.uint8]:
        """Decoded at full size: the effect of another last bit may be too fine for a smaller one."""
        return _scaled(io.BytesIO(data), claim, 1, as_coded)

    source = JpegSource(stream, claim)
    try:
        values = _scaled(source, claim, factor, as_coded)
    except Refusal as refusal:
        if source.zeros > len(_SPARE):
            with suppress(Refusal):  # zeros may also be the shortest codes, of a flat foot: then the image needs exactly these
                source = JpegSource(stream, claim, with_zeros=True)
                values = _scaled(source, claim, factor, as_coded)
                source.refuse_leftovers()
                return values
        if claim.scans == 1 and claim.whole and refusal.code == "truncated":
            _refuse_out_of_step(again(_filled_up(_data(stream, claim), b"\0")), stream, claim, again)
        raise
    source.refuse_leftovers()
    if claim.scans == 1:
        _refuse_discontinuity(block_row_discontinuity(values, BLOCK // factor, 255), values, stream, claim, again)
    return values


def _scaled(source: io.BytesIO, claim: Claim, factor: int, as_coded: bool) -> NDArray[np.uint8]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(source, formats=["JPEG"]) as image:
            if factor > 1 or as_coded:
                image.draft("YCbCr" if as_coded else image.mode, (claim.columns // factor, claim.rows // factor))
            try:
                return np.asarray(image)
            except OSError as error:
                raise Refusal("truncated" if "truncated" in str(error) else "decode_error") from None


def exact_jpeg(stream: Codestream, claim: Claim) -> NDArray[Any]:
    """JPEG of any bits, DCT or lossless, (h, w) or (h, w, c).

    Raises:
        Refusal: `truncated`, `decode_error`, where the image has discontinuities or ends in grey, or its check row disagrees, or lossless
            values have too many bits, and decoding again shows that data are missing or left over.
        Exception: imagecodecs'.
    """
    import imagecodecs

    check = append_check_row(stream, claim)
    values: NDArray[Any] = imagecodecs.jpeg8_decode(stream[: claim.end] if check is None else check.stream)
    if claim.scans != 1:
        return values
    if claim.coding == "jpeg":
        _refuse_discontinuity(
            block_row_discontinuity(values, BLOCK, (1 << claim.bits) - 1), values, stream, claim, imagecodecs.jpeg8_decode
        )
        return values
    if check is not None:
        doubtful = not check.agrees(values)
        values = values[:-1]
    else:
        doubtful = _ends_in_grey(values, claim)
    if doubtful or over_range(values, claim):
        _refuse_out_of_step(values, stream, claim, imagecodecs.jpeg8_decode)
    return values


def _refuse_discontinuity(edges: BlockEdges, values: NDArray[Any], stream: Codestream, claim: Claim, decode: Decode) -> None:
    """Judge a DCT image of one scan by the edges between its rows of blocks and by its last pixels.

    Raises:
        Refusal: as `_refuse_out_of_step` where there is a doubtful edge or the image ends in grey; `decode_error` for a certain one.
    """
    if max(edges) > DOUBTFUL or _ends_in_grey(values, claim):
        _refuse_out_of_step(decode(bytes(stream[: claim.end])), stream, claim, decode)
    if edges.pair > CERTAIN:
        raise Refusal("decode_error")


def _ends_in_grey(values: NDArray[Any], claim: Claim) -> bool:
    """Whether an image ends in the middle grey with which libjpeg fills missing data."""
    return bool((values[-1, -8:] == 1 << (claim.bits - 1)).all())


def _refuse_out_of_step(values: NDArray[Any], stream: Codestream, claim: Claim, decode: Decode) -> None:
    """Decode a stream of one scan again, with other data appended, and with other last bits.

    A decoder that lost sync in damaged data reports nothing, but reaches the end of the data too early or never. If appended data change
    the image, it needed more data than there are; if other last bits do not change it, it needed less.

    Raises:
        Refusal: `truncated` where more than a hundredth of the image is missing; `decode_error`.
    """
    data = _data(stream, claim)
    missing = _changed(values, decode, _filled_up(data, b"\x5a\xc3\x96"))
    if missing:
        raise Refusal("truncated" if missing > 0.01 else "decode_error")
    if claim.samples == 1 and not any(_changed(values, decode, end) for end in _other_ends(data)):
        raise Refusal("decode_error")  # in colour, subsampling may hide a bit


def _data(stream: Codestream, claim: Claim) -> bytes:
    return bytes(stream[: end_of_data(stream, claim)])


def _filled_up(data: bytes, byte: bytes) -> bytes:
    """A stream with other bytes appended, an eighth as many, enough to distinguish a hundredth of the image from less."""
    return data + byte * (40 + len(data) // (8 * len(byte))) + _END


def _changed(values: NDArray[Any], decode: Decode, data: bytes) -> float:
    """The share of the values that change with these data; 1 where they cannot be decoded."""
    try:
        return float(np.mean(decode(data) != values))
    except MemoryError:
        raise
    except Exception:
        return 1.0


def _other_ends(data: bytes) -> Iterator[bytes]:
    """Streams with other last bits: one or two that are certainly no padding, before the last run of ones or zeros; then other bytes.

    Up to 16 bytes of zeros may be padding and are left out; more are data, whose last byte is changed. Bits alone would not do: where they
    end the code of a flat block, what follows may be no code at all and change nothing.
    """
    if any(data[-_TAIL - 1 :]):
        tail = data[-_TAIL - 2 :].replace(b"\xff\0", b"\xff").rstrip(b"\0")
        bits = int.from_bytes(tail)
        changes = bits ^ (bits >> 1)
        last = changes & -changes  # the first bit of the last run
        for change in (1, 3):
            turned = bits ^ (change * last << 1 if last.bit_length() < 8 * len(tail) - 1 else 1)
            yield data[: -_TAIL - 2] + turned.to_bytes(len(tail)).replace(b"\xff", b"\xff\0") + _END
        data = data.rstrip(b"\0")
    whole = data[:-2] if data[-2:] == b"\xff\0" else data[:-1]
    for other in (b"\x5a\xc3\x96", b"\xa5\x3c\x69"):
        yield whole.removesuffix(b"\xff") + other * 20 + _END


def over_range(values: NDArray[Any], claim: Claim) -> bool:
    """Whether a value has more bits than the frame header declares: lossless differences count modulo 2^16 at any precision."""
    return claim.bits < 8 * values.dtype.itemsize and int(values.max(initial=0)) >> claim.bits > 0


def htj2k(stream: Codestream, bits: int, factor: int) -> NDArray[Any]:
    """HTJ2K by OpenJPH, 1 / factor the size."""
    import imagecodecs

    level = factor.bit_length() - 1
    with _unraisable_errors() as ignored:
        values: NDArray[Any] = imagecodecs.htj2k_decode(stream, skipres=(level, level) if level else None)
    if ignored:
        raise ValueError("the decoder stopped before its last row")
    if level and values.dtype == np.uint16:
        values = np.clip(values.view(np.int16), 0, (1 << min(bits, 15)) - 1)  # what wrapped below zero
    return values


@contextmanager
def _unraisable_errors() -> Iterator[list[Any]]:
    """Errors that native code cannot raise (sys.unraisablehook): imagecodecs loses OpenJPH's and returns uninitialised memory."""
    before, ignored = sys.unraisablehook, list[Any]()
    sys.unraisablehook = lambda lost: ignored.append(lost.exc_type)
    try:
        yield ignored
    finally:
        sys.unraisablehook = before


def j2k(stream: Codestream, claim: Claim, factor: int, whole: bool) -> NDArray[Any]:
    """JPEG 2000 by Pillow's OpenJPEG where possible (it reduces, and refuses broken streams), else by imagecodecs."""
    if whole:
        import imagecodecs

        result: NDArray[Any] = imagecodecs.jpeg2k_decode(stream, numthreads=1)
        return result
    from PIL import Image

    shape = (-(-claim.rows // factor), -(-claim.columns // factor))
    with Image.open(io.BytesIO(stream), formats=["JPEG2000"]) as image:
        _set_level(image, factor.bit_length() - 1, shape)
        values = np.asarray(image)
    values = values >> (8 * values.dtype.itemsize - claim.bits)  # Pillow shifts 12 bits up to 16
    return (values.astype(np.int32) - (1 << (claim.bits - 1))).astype(np.int16) if claim.signed else values


def _set_level(image: Any, level: int, shape: tuple[int, int]) -> None:
    """Set Pillow's JPEG 2000 decoder to leave out `level` resolutions. Its own `reduce` rounds the size where the standard rounds up."""
    tile = image.tile[0]
    image._size = (shape[1], shape[0])
    arguments = (tile[3][0], level, *tile[3][2:])
    image.tile = [tile._replace(extents=(0, 0, *image.size), args=arguments)]
