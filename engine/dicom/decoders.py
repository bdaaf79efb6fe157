"""The first decoders: a codestream and its claim -> values, or a refusal where a decoder makes a picture of less than the whole of it.

libjpeg fills what is missing with grey and counts that as a warning, which neither of its two bindings here passes on; imagecodecs loses
the errors of OpenJPH. What each of them does at the end of its data is therefore arranged or looked at here. None of this costs a second
decoding but where the values already look as if data had run out, or run over.
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
from engine.dicom.jpeg_integrity import BLOCK, CERTAIN, DOUBTFUL, Tear, end_of_data, torn, witness_of
from engine.dicom.reasons import Refusal

Codestream = Any
"""A memoryview: a copy of 4 MB is 5 % of an HTJ2K reading. imagecodecs takes one, its stubs do not know."""

Decode = Callable[[bytes], NDArray[Any]]
"""A decoder of whole streams; it raises what it likes."""

_TAIL, _SPARE = 16, b"\0" * 16
_END = b"\xff\xd9"


class JpegSource(io.BytesIO):
    """A JPEG stream as Pillow is to read it, so that it tells what it makes of the end of the data.

    A stream of one scan goes in without its end marker, and with 16 zero bytes in place of those that it ends in, if any: a decoder that
    needs more of them waits for ever, which Pillow calls truncated. Its last bytes are handed out only to a reader that has read all
    others: a decoder that is done before it has asked for them has lost its way in damaged data. Streams of several scans go in as they
    are. with_zeros: the zero bytes that it ends in stay, all of them, and belong to those others.
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

    def again(data: bytes) -> NDArray[np.uint8]:
        """At full size: what another last bit changes may be too fine for a smaller one."""
        return _scaled(io.BytesIO(data), claim, 1, as_coded)

    source = JpegSource(stream, claim)
    try:
        values = _scaled(source, claim, factor, as_coded)
    except Refusal as refusal:
        if source.zeros > len(_SPARE):
            with suppress(Refusal):  # zeros may also be the shortest codes, of a flat foot: then the picture needs just so many of them
                source = JpegSource(stream, claim, with_zeros=True)
                values = _scaled(source, claim, factor, as_coded)
                source.refuse_leftovers()
                return values
        if claim.scans == 1 and claim.whole and refusal.code == "truncated":
            _refuse_out_of_step(again(_filled_up(_data(stream, claim), b"\0")), stream, claim, again)
        raise
    source.refuse_leftovers()
    if claim.scans == 1:
        _refuse_torn(torn(values, BLOCK // factor, 255), values, stream, claim, again)
    return values


def _scaled(source: io.BytesIO, claim: Claim, factor: int, as_coded: bool) -> NDArray[np.uint8]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(source, formats=["JPEG"]) as picture:
            if factor > 1 or as_coded:
                picture.draft("YCbCr" if as_coded else picture.mode, (claim.columns // factor, claim.rows // factor))
            try:
                return np.asarray(picture)
            except OSError as error:
                raise Refusal("truncated" if "truncated" in str(error) else "decode_error") from None


def exact_jpeg(stream: Codestream, claim: Claim) -> NDArray[Any]:
    """JPEG of any bits, DCT or lossless, (h, w) or (h, w, c).

    Raises:
        Refusal: `truncated`, `decode_error`, where the picture looks torn or ends in grey, or a witness disagrees, or lossless values have
            too many bits, and decoding again shows that data are missing or left over.
        Exception: imagecodecs' own.
    """
    import imagecodecs

    witness = witness_of(stream, claim)
    values: NDArray[Any] = imagecodecs.jpeg8_decode(stream[: claim.end] if witness is None else witness.stream)
    if claim.scans != 1:
        return values
    if claim.coding == "jpeg":
        _refuse_torn(torn(values, BLOCK, (1 << claim.bits) - 1), values, stream, claim, imagecodecs.jpeg8_decode)
        return values
    if witness is not None:
        doubtful = not witness.agrees(values)
        values = values[:-1]
    else:
        doubtful = _ends_in_grey(values, claim)
    if doubtful or over_range(values, claim):
        _refuse_out_of_step(values, stream, claim, imagecodecs.jpeg8_decode)
    return values


def _refuse_torn(tear: Tear, values: NDArray[Any], stream: Codestream, claim: Claim, decode: Decode) -> None:
    """What `torn` says of a DCT picture of one scan, and of its last pixels.

    Raises:
        Refusal: as `_refuse_out_of_step` does where it looks torn or ends in grey; `decode_error` where it certainly is torn.
    """
    if max(tear) > DOUBTFUL or _ends_in_grey(values, claim):
        _refuse_out_of_step(decode(bytes(stream[: claim.end])), stream, claim, decode)
    if tear.pair > CERTAIN:
        raise Refusal("decode_error")


def _ends_in_grey(values: NDArray[Any], claim: Claim) -> bool:
    """Whether a picture ends in the middle grey that libjpeg fills up with where it has no data."""
    return bool((values[-1, -8:] == 1 << (claim.bits - 1)).all())


def _refuse_out_of_step(values: NDArray[Any], stream: Codestream, claim: Claim, decode: Decode) -> None:
    """Decode a stream of one scan again, with other data after its own, and with other last bits.

    A decoder that has lost its way in damaged data does not say so, but comes to the end of them too early, or not at all. A picture that
    the first changes needed more data than there are; one that the second leaves as it is needed less.

    Raises:
        Refusal: `truncated` where more than a hundredth of the picture is missing; `decode_error`.
    """
    data = _data(stream, claim)
    missing = _changed(values, decode, _filled_up(data, b"\x5a\xc3\x96"))
    if missing:
        raise Refusal("truncated" if missing > 0.01 else "decode_error")
    if claim.samples == 1 and not any(_changed(values, decode, end) for end in _other_ends(data)):
        raise Refusal("decode_error")  # colour may hide a bit of it


def _data(stream: Codestream, claim: Claim) -> bytes:
    return bytes(stream[: end_of_data(stream, claim)])


def _filled_up(data: bytes, byte: bytes) -> bytes:
    """A stream with other bytes after its own, an eighth as many, so that it tells a hundredth of the picture from less."""
    return data + byte * (40 + len(data) // (8 * len(byte))) + _END


def _changed(values: NDArray[Any], decode: Decode, data: bytes) -> float:
    """The share of the values that these data make others of; 1 where they cannot be decoded."""
    try:
        return float(np.mean(decode(data) != values))
    except MemoryError:
        raise
    except Exception:
        return 1.0


def _other_ends(data: bytes) -> Iterator[bytes]:
    """Streams whose last bits are others: one or two of those that are surely no padding, before the last run of ones or zeros; then bytes.

    Up to 16 bytes of zeros may be padding and are left out; more of them are data, whose last byte becomes another. Bits alone would not
    do: where they end the code of a flat block, what follows them may be no code at all, and change nothing.
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
    """Whether some value has more bits than the frame header says: lossless differences count modulo 2^16, whatever the precision."""
    return claim.bits < 8 * values.dtype.itemsize and int(values.max(initial=0)) >> claim.bits > 0


def htj2k(stream: Codestream, bits: int, factor: int) -> NDArray[Any]:
    """HTJ2K by OpenJPH, 1 / factor the size."""
    import imagecodecs

    level = factor.bit_length() - 1
    with _errors_that_are_ignored() as ignored:
        values: NDArray[Any] = imagecodecs.htj2k_decode(stream, skipres=(level, level) if level else None)
    if ignored:
        raise ValueError("the decoder stopped before its last row")
    if level and values.dtype == np.uint16:
        values = np.clip(values.view(np.int16), 0, (1 << min(bits, 15)) - 1)  # what wrapped below zero
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
