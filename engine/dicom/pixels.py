"""Transfer syntax -> stored values of one frame, at full size or, where the codec can, reduced to no less than what is asked for.

Every route was measured (one core, 2500 x 2048, 12 bit): imagecodecs is 4-6x faster than pylibjpeg on lossless JPEG and JPEG-LS; Pillow
decodes JPEG 2000 at 1/2, 1/4, 1/8 (43x) and JPEG by scaled DCT; OpenJPH skips resolutions of HTJ2K. Sizes are checked against the
header before a decoder is called, lengths after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from engine.dicom.codestream import Claim, j2k_claim, jpeg_claim, rle_segments
from engine.dicom.decoders import Codestream, exact_jpeg, htj2k, j2k, over_range, scaled_jpeg
from engine.dicom.elements import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, PIXEL_DATA, DataSetLayout
from engine.dicom.header import Header
from engine.dicom.reasons import Refusal
from engine.dicom.stored_bits import stored_values

Family = Literal["native", "rle", "jpeg", "j2k"]
FAMILIES: dict[str, Family] = {
    IMPLICIT: "native",
    EXPLICIT: "native",
    BIG_ENDIAN: "native",
    DEFLATED: "native",
    "1.2.840.10008.1.2.5": "rle",
    "1.2.840.10008.1.2.4.50": "jpeg",  # baseline, 8 bit
    "1.2.840.10008.1.2.4.51": "jpeg",  # extended, 8 and 12 bit
    "1.2.840.10008.1.2.4.57": "jpeg",  # lossless, any predictor
    "1.2.840.10008.1.2.4.70": "jpeg",  # lossless, first-order
    "1.2.840.10008.1.2.4.80": "jpeg",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81": "jpeg",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90": "j2k",
    "1.2.840.10008.1.2.4.91": "j2k",
    "1.2.840.10008.1.2.4.201": "j2k",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202": "j2k",  # HTJ2K lossless RPCL
    "1.2.840.10008.1.2.4.203": "j2k",  # HTJ2K
}
"""Transfer syntax UID -> how its pixel data are read; the marker segments, not the UID, tell JPEG from JPEG-LS and J2K from HTJ2K."""

FallbackDecoder = Callable[[bytes | memoryview, Claim], NDArray[Any]]
"""What second.decode is: a codestream of one channel and its claim -> values (rows, columns); any error means that it cannot read it."""

_MAY_LOSE = frozenset({"1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"})
"""JPEG 2000 that may have left packets out: nothing in a stream of the reversible transform says whether it did."""
_OVERSHOOT = 9 / 8
"""Of the largest stored value, up to which a reduced wavelet may exceed it next to an edge."""
_END_OF_IMAGE = b"\xff\xd9"
_FROM_COLOR = "color_as_grey"
_MOST_COLOR, _MOST_COLORED = 24, 1 / 1000
"""Of 255, by which the channels of a pixel may differ, and share of the pixels where they may by more: JPEG chroma noise stays below."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Stored values (h, w), masked to BitsStored and sign-extended; or the same reduced by `factor`.

    Sample (i, j) of a reduced array is at ((i + 0.5) * factor - 0.5 - shift * factor) of the full image: shift is 0 for averages of
    blocks and (factor - 1) / (2 * factor) for wavelet reductions, which keep every factor-th sample. rows and columns are the full size.
    `pixel_hash` is the same for the same values in every lossless encoding, None where they were not decoded whole or are lossy.
    `peak`: no value is larger, with or without its sign, by what BitsStored allows; None where that was not checked.
    `bits` that hold values, None for BitsStored. `flags` were raised by decoding.
    """

    values: NDArray[Any]
    rows: int
    columns: int
    factor: int = 1
    shift: float = 0.0
    pixel_hash: str | None = None
    peak: int | None = None
    bits: int | None = None
    flags: tuple[str, ...] = ()


def expected_bytes(header: Header) -> int:
    """Bytes of native pixel data without padding that the header calls for (PS3.5 section 8); all attributes must be present."""
    assert header.rows is not None and header.columns is not None and header.samples is not None and header.bits_allocated is not None
    bits = header.rows * header.columns * header.samples * header.bits_allocated * max(header.frames or 1, 1)
    if header.photometric == "YBR_FULL_422":
        bits = bits * 2 // 3
    return (bits + 7) // 8


def refuse_length(length: int, header: Header) -> None:
    """Native pixel data have as many bytes as the header calls for, or one more to make them even (PS3.5 section 8).

    Raises:
        Refusal: `pixel_length_mismatch`.
    """
    if not 0 <= length - expected_bytes(header) <= 1:
        raise Refusal("pixel_length_mismatch")


def read_pixels(
    data: memoryview,
    layout: DataSetLayout,
    header: Header,
    transfer_syntax: str,
    *,
    least: int,
    max_pixels: int,
    second: FallbackDecoder | None = None,
) -> Stored:
    """The stored values of the only frame; a reduced image keeps both sides at `least` or above.

    second: asked where the first decoder raised its own error; never where a Refusal was reached by reading the codestream.

    The header must have passed checks.refuse_description. Raises Refusal: `decode_error`, `truncated`, `resource_limit`,
    `invalid_dimensions`, `pixel_length_mismatch`, `color_image`, `unsupported_transfer_syntax`, `no_pixel_data`.
    """
    family = FAMILIES.get(transfer_syntax)
    if family is None:
        raise Refusal("unsupported_transfer_syntax")
    element = layout.elements[PIXEL_DATA]
    if (family == "native") == layout.encapsulated:
        raise Refusal("decode_error")
    if family == "native":
        return _native(data[element.value : element.stop], header, layout.little, element.vr)
    ranges = layout.fragments
    frame = data[slice(*ranges[0])] if len(ranges) == 1 else memoryview(b"".join(data[start:stop] for start, stop in ranges))
    if not len(frame):
        raise Refusal("no_pixel_data")
    stored = _compressed(frame, header, family, least, max_pixels, second)
    return replace(stored, pixel_hash=None) if transfer_syntax in _MAY_LOSE else stored


def _compressed(frame: Codestream, header: Header, family: Family, least: int, max_pixels: int, second: FallbackDecoder | None) -> Stored:
    try:
        if family == "rle":
            return _rle(frame, header)
        return _jpeg(frame, header, least, max_pixels) if family == "jpeg" else _j2k(frame, header, least, max_pixels)
    except (Refusal, MemoryError):
        raise
    except Exception:  # any error of a decoder; its text may quote the file
        if second is None or family == "rle":
            raise Refusal("decode_error") from None
    return _second(frame, header, family, second)


def _second(frame: Codestream, header: Header, family: Family, second: FallbackDecoder) -> Stored:
    """The same from the second decoder: grey images only, whole ones, every value within BitsStored."""
    claim = jpeg_claim(frame) if family == "jpeg" else j2k_claim(frame)
    try:
        values = second(frame[claim.start : claim.end], claim)
    except MemoryError:
        raise
    except Exception:
        raise Refusal("decode_error") from None
    if header.samples != 1 or values.shape != (header.rows, header.columns) or int(values.max()) >> (header.bits_stored or 0) > 0:
        raise Refusal("decode_error")
    stored = _whole(values, header, lossy=claim.lossy)
    return replace(stored, flags=(*stored.flags, "second_decoder"))


# --- routes ---------------------------------------------------------------------------------------------------------------------


def _native(raw: memoryview, header: Header, little: bool, vr: str) -> Stored:
    refuse_length(len(raw), header)
    wide = (header.bits_allocated or 0) // 8
    if not little and wide == 1 and vr == "OW":  # PS3.5 8.2: bytes of a word swap places
        raw = memoryview(np.frombuffer(raw[: len(raw) // 2 * 2], ">u2").astype("<u2").tobytes())
    values = np.frombuffer(raw[: expected_bytes(header)], np.dtype(f"{'<' if little else '>'}u{wide}"))
    if not little and wide > 1:
        values = values.astype(values.dtype.newbyteorder("<"))
    return _whole(values, header)


def _rle(frame: Codestream, header: Header) -> Stored:
    import imagecodecs

    wide, samples = (header.bits_allocated or 0) // 8, header.samples or 1
    segments = rle_segments(frame, samples * wide)
    plane = (header.rows or 0) * (header.columns or 0)
    try:
        raw = np.frombuffer(imagecodecs.dicomrle_decode(frame, f"<u{wide}", out=plane * wide * samples), np.uint8)
    except imagecodecs.DicomrleError:
        raw = np.zeros(0, np.uint8)
    if len(raw) != plane * wide * samples:  # a segment that decodes to a little more than a plane occurs; much more is a bomb
        planes = [_unpacked(frame[start:stop], plane + plane // 20) for start, stop in segments]
        if any(len(part) < plane for part in planes):
            raise Refusal("truncated" if all(len(part) >= plane for part in planes[:-1]) else "decode_error")
        stacked = np.stack([part[:plane] for part in planes]).reshape(samples, wide, plane)
        raw = np.ascontiguousarray(np.moveaxis(stacked[:, ::-1], 1, -1)).reshape(-1)  # PS3.5 G.2: the most significant byte comes first
    return _whole(raw.view(f"<u{wide}"), header, planar=1)


def _unpacked(segment: Codestream, most: int) -> NDArray[np.uint8]:
    """The bytes of one RLE segment, at most `most`; none where it ends inside a run."""
    import imagecodecs

    try:
        return np.frombuffer(imagecodecs.packbits_decode(segment, out=most), np.uint8)
    except imagecodecs.PackbitsError as error:
        if "TOO_SMALL" in str(error):
            raise Refusal("decode_error") from None
        return np.zeros(0, np.uint8)


def _jpeg(frame: Codestream, header: Header, least: int, max_pixels: int) -> Stored:
    claim = jpeg_claim(frame)
    _compare(claim, header, max_pixels)
    if claim.coding == "jpegls":
        import imagecodecs

        values = imagecodecs.jpegls_decode(frame[: claim.end])
    elif claim.bits == 8 and claim.coding == "jpeg":
        return _baseline(frame, claim, header, least)
    else:
        values = exact_jpeg(frame, claim)
    if values.shape[:2] != (claim.rows, claim.columns):
        raise Refusal("decode_error")
    over = claim.coding == "lossless" and over_range(values, claim)
    return _whole(values, header, planar=0, lossy=claim.lossy, precision=None if over else claim.bits)


def _baseline(frame: Codestream, claim: Claim, header: Header, least: int) -> Stored:
    factor = _power_of_two(min(claim.rows, claim.columns), least, 3)
    values: NDArray[Any] = scaled_jpeg(frame, claim, factor)
    if values.shape[:2] != (-(-claim.rows // factor), -(-claim.columns // factor)):
        raise Refusal("decode_error")
    grey = claim.samples == 3
    if grey:
        try:
            values = _one_channel(values, "RGB")
        except Refusal as colored:  # a stream that names no colours is taken for YCbCr: where the header says RGB, either may be right
            if header.photometric != "RGB":
                raise
            try:
                values = _one_channel(scaled_jpeg(frame, claim, factor, as_coded=True), "RGB")
            except Refusal:  # a stream that names RGB is never read as anything else
                raise colored from None
    return Stored(values, claim.rows, claim.columns, factor, flags=(_FROM_COLOR,) if grey else ())


def _j2k(frame: Codestream, header: Header, least: int, max_pixels: int) -> Stored:
    claim = j2k_claim(frame)
    _compare(claim, header, max_pixels)
    stream = frame[claim.start : claim.end]
    if stream[-2:] != _END_OF_IMAGE:  # whole, but old encoders leave the last marker out
        stream = bytes(stream) + _END_OF_IMAGE
    # values whose sign the header contradicts are reinterpreted bit by bit, which only whole ones can be
    whole = claim.samples != 1 or claim.signed != bool(header.signed) or claim.bits > 16
    factor = 1 if whole else _power_of_two(min(claim.rows, claim.columns), least, claim.levels)
    bits = min(claim.bits, header.bits_stored or claim.bits)
    if claim.coding == "htj2k" and (bits in (8, 16) or claim.signed):
        factor = 1  # the overshoot of a reduced image wraps around where the container has no spare bit

    def decode(factor: int) -> NDArray[Any]:
        return htj2k(stream, claim.bits, factor) if claim.coding == "htj2k" else j2k(stream, claim, factor, whole)

    values = decode(factor)
    if factor > 1 and claim.bits > bits:
        most = 1 << (bits - claim.signed)
        if max(int(values.max()), -int(values.min())) > most * _OVERSHOOT:
            factor, values = 1, decode(1)  # what the bits above BitsStored hold is judged on whole values
        else:
            values = np.clip(values, -most if claim.signed else 0, most - 1)
    if values.shape[:2] != (-(-claim.rows // factor), -(-claim.columns // factor)):
        raise Refusal("decode_error")
    if factor == 1:
        return _whole(values, header, planar=0, lossy=claim.lossy, photometric="RGB")
    return Stored(values, claim.rows, claim.columns, factor, 0.5 - 0.5 / factor)


# --- what the routes share ------------------------------------------------------------------------------------------------------


def _power_of_two(side: int, least: int, most: int) -> int:
    """The largest power of two, at most 2^most, that leaves `side` at `least` or above."""
    level = 0
    while level < most and side >> (level + 1) >= least:
        level += 1
    return 1 << level


def _compare(claim: Claim, header: Header, max_pixels: int) -> None:
    if claim.rows * claim.columns > max_pixels:
        raise Refusal("resource_limit")
    if (claim.rows, claim.columns) != (header.rows, header.columns):
        raise Refusal("invalid_dimensions")
    if claim.samples != header.samples or claim.bits > (header.bits_allocated or 0):
        raise Refusal("decode_error")
    if not claim.whole:
        raise Refusal("truncated")


def _whole(
    values: NDArray[Any],
    header: Header,
    *,
    planar: int | None = None,
    lossy: bool = False,
    photometric: str = "",
    precision: int | None = None,
) -> Stored:
    """Full-size values of any decoder -> (rows, columns), masked, sign-extended, one channel.

    precision: bits that the codestream says no value exceeds, which saves a look at every one of them; None where nothing says so.
    """
    rows, columns, samples = header.rows or 0, header.columns or 0, header.samples or 1
    if samples == 3:
        if header.photometric == "YBR_FULL_422" and values.size == rows * columns * 2:
            values = values.reshape(rows, columns // 2, 4)  # PS3.3 C.7.6.3.1.2: Y Y Cb Cr
            luma = values[..., :2].reshape(rows, columns)
            values = np.stack([luma, values[..., 2].repeat(2, 1), values[..., 3].repeat(2, 1)], -1)
        elif (header.planar if planar is None else planar) == 1:
            values = np.moveaxis(values.reshape(3, rows, columns), 0, -1)
        values = _one_channel(values.reshape(rows, columns, 3), photometric or header.photometric)
    else:
        values = values.reshape(rows, columns)
    values, bits, flags = stored_values(values, header.bits_stored or 0, signed=bool(header.signed), precision=precision)
    peak = 1 << (bits - 1) if header.signed else (1 << bits) - 1
    flags = (*flags, _FROM_COLOR) if samples == 3 else flags
    return Stored(values, rows, columns, pixel_hash=None if lossy else hash_of(values), peak=peak, bits=bits, flags=flags)


def hash_of(values: NDArray[Any]) -> str:
    """SHA-256 over the CRC-32 of every 64 kB of the values and their shape: distinguishes images, at 40x the speed of SHA-256 itself.

    It is compared only between files of one SOP instance UID; it is no protection against someone who makes collisions.
    """
    digest = hashlib.sha256(repr((values.dtype.kind, values.shape)).encode())
    flat = np.ascontiguousarray(values).data.cast("B")
    for start in range(0, len(flat), 1 << 16):
        digest.update(isal_zlib.crc32(flat[start : start + (1 << 16)]).to_bytes(4, "little"))
    return digest.hexdigest()


def _one_channel(values: NDArray[Any], photometric: str) -> NDArray[Any]:
    """8-bit (h, w, 3) -> (h, w) of a grey image stored in colour.

    Raises:
        Refusal: `color_image`.
    """
    if photometric.startswith("YBR"):
        grey, spread = values[..., 0], np.abs(values[..., 1:].astype(np.int16) - 128).max(-1)
    else:
        grey, spread = values[..., 1], values.max(-1) - values.min(-1)
    refuse_color(spread, 255)
    return np.ascontiguousarray(grey)


def refuse_color(spread: NDArray[Any], white: float) -> None:
    """spread: by how much the channels of each pixel differ. white: the brightest value.

    Raises:
        Refusal: `color_image` when more than 1 pixel in 1,000 is coloured by more than 24 of 255.
    """
    if np.count_nonzero(spread > _MOST_COLOR / 255 * white) > _MOST_COLORED * spread.size:
        raise Refusal("color_image")
