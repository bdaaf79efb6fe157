import io
import struct
from collections.abc import Callable
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from engine.dicom.codestream import Claim, jpeg_claim
from engine.dicom.decoders import exact_jpeg, htj2k, scaled_jpeg
from engine.dicom.reasons import Refusal

END = b"\xff\xd9"


def pillow(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def cut(stream: bytes, share: float) -> bytes:
    """The first part of a scan with an end marker put behind it: every marker is where it should be."""
    claim = jpeg_claim(stream)
    scan = stream.index(b"\xff\xda") + 14
    return stream[: scan + int((claim.data_end - scan) * share)].rstrip(b"\xff") + END


def refused(decode: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as raised:
        decode()
    return raised.value.code


def scaled(stream: bytes, factor: int = 1) -> np.ndarray:
    return scaled_jpeg(memoryview(stream), jpeg_claim(stream), factor)


def exact(stream: bytes) -> np.ndarray:
    return exact_jpeg(memoryview(stream), jpeg_claim(stream))


@pytest.fixture(scope="module")
def eight(make: SimpleNamespace) -> np.ndarray:
    return (make.chest() >> 4).astype(np.uint8)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "options", [{}, {"restart_marker_blocks": 5}, {"restart_marker_rows": 1}, {"progressive": True}, {"optimize": True}]
)
def test_jpeg_comes_at_a_fraction_of_its_size(eight: np.ndarray, factor: int, options: dict[str, object]) -> None:
    got = scaled(pillow(eight, **options), factor)
    assert got.shape == (-(-300 // factor), -(-256 // factor))
    assert abs(float(got.mean()) - float(eight.mean())) < 1


@pytest.mark.parametrize("colour", [False, True])
def test_a_flat_image_of_few_bytes_is_whole(colour: bool) -> None:
    flat = np.full((64, 64, 3) if colour else (64, 64), 128, np.uint8)
    assert (scaled(pillow(flat)) == 128).all()
    assert (scaled(pillow(flat, progressive=True)) == 128).all()


@pytest.mark.parametrize("factor", [1, 4])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 5}, {"optimize": True}])
def test_a_jpeg_cut_before_its_end_marker_is_truncated_and_not_grey(
    eight: np.ndarray, share: float, factor: int, options: dict[str, object]
) -> None:
    stream = cut(pillow(eight, **options), share)
    claim = jpeg_claim(stream)
    assert claim.whole == (not options.get("restart_marker_blocks")), "missing restart markers tell it before anything is decoded"
    assert refused(lambda: scaled(stream, factor)) == "truncated"


def test_a_jpeg_whose_decoder_is_done_before_its_data_are_is_damaged(eight: np.ndarray) -> None:
    stream = pillow(eight)
    claim = jpeg_claim(stream)
    more = stream[: claim.data_end] + b"\x12\x34" * 20 + stream[claim.data_end :]
    assert refused(lambda: scaled(more)) == "decode_error"
    for padding in (b"\x12\x34", b"\0" * 3, b"\0" * 5000):
        padded = stream[: claim.data_end] + padding + stream[claim.data_end :]
        assert np.array_equal(scaled(padded), scaled(stream)), "what fills up a word or a sector is no damage"
    zeros = cut(stream, 0.5)[:-2] + b"\0" * 5000 + END
    assert refused(lambda: scaled(zeros)) == "truncated", "nor is it a image"


@pytest.mark.parametrize("factor", [1, 4])
def test_a_flat_foot_that_is_coded_in_zeros_is_no_missing_data(eight: np.ndarray, factor: int) -> None:
    """Optimised Huffman tables give the shortest codes to flat blocks; where the last ends with a byte, hundreds of zeros are the end."""
    feet = (np.full((900, columns), 128, np.uint8) for columns in range(160, 256, 8))
    images = (np.repeat(np.vstack([eight[:, : foot.shape[1]], foot])[..., None], 3, -1) for foot in feet)
    stream = next(coded for image in images if (coded := pillow(image, optimize=True))[:-2].endswith(b"\0" * 100))
    data_end = jpeg_claim(stream).data_end
    got = scaled(stream, factor)
    assert got.shape[0] == 1200 // factor and (got[-800 // factor :] == 128).all()
    assert refused(lambda: scaled(stream[: data_end - 60] + END, factor)) == "truncated"
    assert refused(lambda: scaled(stream[:data_end] + b"\0" * 60 + END, factor)) in ("truncated", "decode_error")


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("quality", [60, 90])
def test_a_sound_image_may_end_in_the_grey_that_stands_for_missing_data(eight: np.ndarray, factor: int, quality: int) -> None:
    for columns in range(192, 256, 8):
        values = np.vstack([eight[:, :columns], np.full((300, columns), 128, np.uint8)])
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "JPEG", quality=quality, optimize=True)
        assert (scaled(stream.getvalue(), factor)[-240 // factor :] == 128).all()


def test_what_follows_the_image_is_no_part_of_it(eight: np.ndarray) -> None:
    stream = pillow(eight)
    for tail in (END, b"\0" * 9, stream, bytes(range(256))):
        assert np.array_equal(scaled(stream + tail), scaled(stream))
    comment = b"\xff\xfe\x00\x06" + END + b"\xff\xd8"
    assert np.array_equal(scaled(stream[:-2] + comment + END), scaled(stream))


CODINGS: dict[str, Callable[[np.ndarray], bytes]] = {
    "dct": lambda values: imagecodecs.jpeg8_encode(values, level=95, bitspersample=12),
    "lossless": lambda values: imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=12),
    "predicted": lambda values: imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=12, predictor=6),
    "sixteen": lambda values: imagecodecs.jpeg8_encode(values << 4, lossless=True, bitspersample=16),
    "eight": lambda values: imagecodecs.jpeg8_encode((values >> 4).astype(np.uint8), lossless=True),
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_middle_grey_for_missing_data_is_truncated(make: SimpleNamespace, coding: str, share: float) -> None:
    assert refused(lambda: exact(cut(CODINGS[coding](make.chest()), share))) == "truncated"


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("grey", [0, 2048, 4095])
def test_a_image_that_ends_in_any_grey_is_whole(make: SimpleNamespace, coding: str, grey: int) -> None:
    values = make.chest()
    values[-40:] = grey
    stream = CODINGS[coding](values)
    assert np.array_equal(exact(stream), imagecodecs.jpeg8_decode(stream))


def test_lossless_data_that_run_over_are_damaged(make: SimpleNamespace) -> None:
    """Bytes overwritten half way: the differences after them add up to values that 12 bits cannot hold, and some data are left over."""
    stream = CODINGS["lossless"](make.chest())
    codes = set()
    for place in range(20, 90, 5):
        damaged = bytearray(stream)
        middle = len(stream) * place // 100
        damaged[middle : middle + 100] = b"\0" * 100
        try:
            values = exact(bytes(damaged))
        except Refusal as refusal:
            codes.add(refusal.code)
        else:
            assert values.shape == (300, 256)
    assert codes == {"decode_error"}


def test_junk_above_the_precision_is_not_damage(make: SimpleNamespace) -> None:
    """Overlay bits above the stored ones pass through lossless coding of 12 bits, whose differences count modulo 2^16."""
    values = make.chest()
    stream = bytearray(CODINGS["sixteen"](values >> 4 | 0x800))
    stream[stream.index(b"\xff\xc3") + 4] = 12
    got = exact(bytes(stream))
    assert int(got.max()) > 4095


def test_the_end_of_an_htj2k_decoder_that_gave_up_is_an_error(make: SimpleNamespace) -> None:
    stream = imagecodecs.htj2k_encode(make.chest(), reversible=True)
    tile = stream.index(b"\xff\x90")
    kept = (len(stream) - tile) // 2
    half = stream[: tile + 6] + struct.pack(">I", kept) + stream[tile + 10 : tile + kept] + END
    assert np.array_equal(htj2k(stream, 12, 1), make.chest())
    with pytest.raises(ValueError, match="stopped"):
        htj2k(half, 12, 1)


def test_a_header_that_pillow_cannot_read_is_its_own_error(eight: np.ndarray) -> None:
    """Not a refusal: another decoder may read it."""
    stream = pillow(eight)
    odd = stream[:2] + b"\xff\xee\x00\x07Adobe" + stream[2:]
    claim = jpeg_claim(odd)
    assert isinstance(claim, Claim)
    with pytest.raises(Exception) as raised:
        scaled_jpeg(memoryview(odd), claim, 1)
    assert not isinstance(raised.value, Refusal)


@pytest.mark.parametrize(("coding", "most"), [("dct", 6), ("lossless", 3), ("sixteen", 3), ("baseline", 6)])
def test_a_damaged_byte_rarely_makes_a_wrong_image_that_passes(make: SimpleNamespace, coding: str, most: int) -> None:
    """40 bytes, one after the other: about half do harm, which no decoder tells; before the two checks 15 to 25 of these passed."""
    values = make.chest()
    sound = pillow((values >> 4).astype(np.uint8)) if coding == "baseline" else CODINGS[coding](values)
    read = scaled if coding == "baseline" else exact
    expected = read(sound).astype(int)
    harmed, passed, rng = 0, 0, np.random.default_rng(2)
    begin, end = sound.index(b"\xff\xda") + 14, jpeg_claim(sound).data_end - 4
    for at in rng.integers(begin, end, 40):
        damaged = bytearray(sound)
        damaged[at] ^= int(rng.integers(1, 255))
        try:
            difference = np.abs(read(bytes(damaged)).astype(int) - expected).mean()
        except Refusal:
            harmed += 1
            continue
        passed += difference > expected.max() / 255
    assert passed <= most and harmed > 8


@pytest.mark.parametrize("edge", [64, 61], ids=["on the grid of blocks", "beside it"])
@pytest.mark.parametrize("coding", ["dct", "lossless", "eight", "baseline"])
def test_a_sharp_edge_is_no_damage(make: SimpleNamespace, coding: str, edge: int) -> None:
    values = make.chest()
    values[:edge], values[-edge:] = 0, 4095
    stream = pillow((values >> 4).astype(np.uint8)) if coding == "baseline" else CODINGS[coding](values)
    assert (scaled if coding == "baseline" else exact)(stream).shape == values.shape


@pytest.mark.parametrize("zeros", [0, 1, 16])
@pytest.mark.parametrize("coding", ["dct", "lossless", "sixteen", "eight"])
def test_zeros_in_front_of_the_end_marker_are_padding(make: SimpleNamespace, coding: str, zeros: int) -> None:
    stream = CODINGS[coding](make.chest())
    assert np.array_equal(exact(stream[:-2] + b"\0" * zeros + END), exact(stream))
