import io
import struct
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pydicom.encaps import generate_frames

from engine.dicom.elements import read_meta
from engine.dicom.header import Header, read_header
from engine.dicom.pixels import Stored, expected_bytes, hash_of, read_pixels
from engine.dicom.reasons import Refusal

LOSSLESS = ["implicit", "explicit", "big_endian", "deflated", "rle", "jpeg_lossless", "jpegls", "j2k", "htj2k"]
JPEG = "1.2.840.10008.1.2.4.50"


def stored(content: bytes, *, least: int = 10**6, max_pixels: int = 10**8) -> Stored:
    from engine.intake.limits import Limits
    from engine.intake.reader import _walk

    view = memoryview(content)
    meta = read_meta(view)
    body, walked = _walk(view, meta, Limits())
    assert walked.damage is None
    return read_pixels(body, walked, read_header(body, walked), meta.transfer_syntax, least=least, max_pixels=max_pixels)


def refused(content: bytes, **options: int) -> str:
    with pytest.raises(Refusal) as raised:
        stored(content, **options)
    return raised.value.code


@pytest.mark.parametrize("encoding", LOSSLESS)
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_lossless_encodings_give_back_the_stored_values(make: SimpleNamespace, encoding: str, bits: int) -> None:
    values = make.chest()
    values = (values.astype(np.uint32) * ((1 << bits) - 1) // 4095).astype(np.uint8 if bits == 8 else np.uint16)
    got = stored(make.LOSSLESS[encoding](values, bits))
    assert np.array_equal(got.values, values)
    assert got.pixel_hash == hash_of(values)


@pytest.mark.parametrize("encoding", ["implicit", "explicit", "big_endian", "rle", "j2k"])
def test_signed_values_come_back_signed(make: SimpleNamespace, encoding: str) -> None:
    values = make.chest().astype(np.int16) - 2048
    got = stored(make.LOSSLESS[encoding](values, 16))
    assert got.values.min() < 0 and np.array_equal(got.values, values)


def test_bits_above_the_stored_ones_are_masked_and_signs_extended(make: SimpleNamespace) -> None:
    values = make.chest()
    junk = values | 0x8000
    assert np.array_equal(stored(make.to_bytes(make.radiograph(junk, 12))).values, values)
    twelve = ((values.astype(np.int32) - 2048) & 0xFFF).astype(np.uint16)
    ds = make.radiograph(twelve, 12, PixelRepresentation=1)
    assert np.array_equal(stored(make.to_bytes(ds)).values, values.astype(np.int32) - 2048)


def test_a_codestream_of_fewer_bits_than_a_signed_header_stores_is_read_as_it_is(make: SimpleNamespace) -> None:
    seven = (make.chest() >> 5).astype(np.uint8)
    stream = imagecodecs.jpeg2k_encode(seven, level=0, reversible=True, codecformat="j2k")
    ds = make.encapsulated(make.radiograph(seven, 12, PixelRepresentation=1), "1.2.840.10008.1.2.4.90", stream)
    assert np.array_equal(stored(make.to_bytes(ds)).values, seven)


@pytest.mark.parametrize("signed", [0, 1])
def test_no_value_exceeds_the_stated_peak(make: SimpleNamespace, signed: int) -> None:
    values = make.chest()
    values |= np.random.default_rng(0).integers(0, 16, values.shape).astype(np.uint16) << 12  # junk above the stored bits
    values[0, :2] = 0xFFF, 0x800
    got = stored(make.to_bytes(make.radiograph(values, 12, PixelRepresentation=signed)))
    assert got.peak == (2048 if signed else 4095)
    assert np.abs(got.values.astype(np.int64)).max() == got.peak


@pytest.mark.parametrize("encoding", ["j2k", "htj2k", "j2k_lossy"])
def test_wavelets_are_decoded_at_a_fraction_of_their_size(make: SimpleNamespace, encoding: str) -> None:
    values = make.chest(301, 259)  # sizes that no power of two divides
    got = stored({**make.LOSSLESS, **make.LOSSY}[encoding](values, 12), least=64)
    assert (got.factor, got.values.shape, got.pixel_hash) == (4, (76, 65), None)
    assert abs(float(got.values.mean()) - float(values.mean())) < 20


def test_jpeg_is_decoded_at_a_fraction_of_its_size(make: SimpleNamespace) -> None:
    eight = (make.chest(301, 259) >> 4).astype(np.uint8)
    ds = make.encapsulated(make.radiograph(eight, 8), JPEG, imagecodecs.jpeg8_encode(eight, level=95))
    got = stored(make.to_bytes(ds), least=64)
    assert (got.factor, got.values.shape, got.shift) == (4, (76, 65), 0.0)
    assert abs(float(got.values.mean()) - float(eight.mean())) < 2


def in_colour(make: SimpleNamespace, values: np.ndarray, photometric: str = "RGB", planar: int = 0):
    ds = make.radiograph(np.ascontiguousarray(values[..., 0]), 8, PhotometricInterpretation=photometric, SamplesPerPixel=3)
    ds.PlanarConfiguration = planar
    ds.PixelData = (np.moveaxis(values, -1, 0) if planar else values).tobytes()
    return ds


def test_grey_in_colour_is_grey_however_it_is_stored(make: SimpleNamespace) -> None:
    grey = (make.chest() >> 4).astype(np.uint8)
    three = np.repeat(grey[..., None], 3, -1)
    luma = np.stack([grey, np.full_like(grey, 128), np.full_like(grey, 128)], -1)
    by_rle = in_colour(make, three)
    by_rle.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    for ds in (in_colour(make, three), in_colour(make, three, planar=1), in_colour(make, luma, "YBR_FULL"), by_rle):
        got = stored(make.to_bytes(ds))
        assert np.array_equal(got.values, grey) and "color_as_grey" in got.flags
    jpeg = make.encapsulated(in_colour(make, three, "YBR_FULL_422"), JPEG, imagecodecs.jpeg8_encode(three, level=95, subsampling="422"))
    assert np.abs(stored(make.to_bytes(jpeg)).values.astype(int) - grey).mean() < 2


@pytest.mark.parametrize("least", [64, 10**6])
def test_a_jpeg_of_three_channels_is_ycbcr_or_rgb_as_the_header_says_where_the_stream_does_not(make: SimpleNamespace, least: int) -> None:
    grey = (make.chest() >> 4).astype(np.uint8)

    def as_rgb(values: np.ndarray) -> bytes:
        """Coded as RGB, with the component numbers of YCbCr and no Adobe segment to tell."""
        coded = bytearray(imagecodecs.jpeg8_encode(values, level=95, colorspace="rgb", outcolorspace="rgb"))
        adobe, frame, scan = (coded.index(bytes([0xFF, marker])) for marker in (0xEE, 0xC0, 0xDA))
        for number in range(3):
            coded[frame + 10 + 3 * number] = coded[scan + 5 + 2 * number] = number + 1
        return bytes(coded[:adobe] + coded[adobe + 16 :])

    three = np.repeat(grey[..., None], 3, -1)
    got = stored(make.to_bytes(make.encapsulated(in_colour(make, three), JPEG, as_rgb(three))), least=least)
    assert "color_as_grey" in got.flags and abs(float(got.values.mean()) - float(grey.mean())) < 1
    assert got.values.shape == (300 // got.factor, 256 // got.factor)
    coloured = np.stack([grey, 255 - grey, grey], -1)
    told = imagecodecs.jpeg8_encode(coloured, level=95, colorspace="rgb", outcolorspace="rgb")
    for stream in (as_rgb(coloured), told):
        assert refused(make.to_bytes(make.encapsulated(in_colour(make, coloured), JPEG, stream)), least=least) == "color_image"


def test_colour_is_refused(make: SimpleNamespace) -> None:
    grey = (make.chest() >> 4).astype(np.uint8)
    assert refused(make.to_bytes(in_colour(make, np.stack([grey, 255 - grey, grey], -1)))) == "color_image"


def test_sizes_are_compared_before_anything_is_decoded(make: SimpleNamespace) -> None:
    eight = (make.chest() >> 4).astype(np.uint8)
    frame = imagecodecs.jpeg8_encode(eight)

    def jpeg(stream: bytes, **changes: int) -> bytes:
        return make.to_bytes(make.encapsulated(make.radiograph(eight, 8, **changes), JPEG, stream))

    assert refused(jpeg(frame, Rows=600)) == "invalid_dimensions"
    assert refused(jpeg(frame), max_pixels=1000) == "resource_limit"
    assert refused(jpeg(imagecodecs.jpeg8_encode(np.repeat(eight[..., None], 3, -1)))) == "decode_error"
    assert refused(jpeg(frame[: len(frame) // 2])) == "truncated"
    assert refused(jpeg(b"no jpeg at all, only text" * 5)) == "decode_error"
    assert refused(make.to_bytes(make.radiograph(Rows=150))) == "pixel_length_mismatch"
    assert refused(make.to_bytes(make.radiograph(Rows=65535, Columns=65535))) == "pixel_length_mismatch"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_htj2k_whose_decoder_stops_half_way_is_refused(make: SimpleNamespace, share: float) -> None:
    """The tile-part is cut and its length made to fit, so that every marker is in its place; OpenJPH's error got lost on its way."""
    stream = imagecodecs.htj2k_encode(make.chest(), reversible=True)
    tile = stream.index(b"\xff\x90")
    kept = int((len(stream) - 2 - tile) * share)
    cut = bytearray(stream[: tile + kept] + b"\xff\xd9")
    cut[tile + 6 : tile + 10] = struct.pack(">I", kept)
    content = make.to_bytes(make.encapsulated(make.radiograph(), "1.2.840.10008.1.2.4.201", bytes(cut)))
    assert refused(content) == "decode_error"


def test_a_size_is_judged_before_what_is_missing(make: SimpleNamespace) -> None:
    """A claim of more tiles or restart intervals than there are is first of all a claim of another size."""
    stream = bytearray(imagecodecs.jpeg2k_encode(make.chest(), reversible=True, codecformat="j2k", bitspersample=12))

    def j2k(width: int, height: int, **changes: int) -> bytes:
        stream[8:16] = struct.pack(">II", width, height)
        return make.to_bytes(make.encapsulated(make.radiograph(**changes), "1.2.840.10008.1.2.4.90", bytes(stream)))

    assert refused(j2k(65500, 65500)) == "resource_limit"
    assert refused(j2k(256, 600)) == "invalid_dimensions"
    assert refused(j2k(256, 600, Rows=600)) == "truncated"


@pytest.mark.parametrize("least", [64, 10**6])
def test_jpeg_2000_without_its_last_marker_is_whole(make: SimpleNamespace, least: int) -> None:
    stream = imagecodecs.jpeg2k_encode(make.chest(), level=0, reversible=True, codecformat="j2k", bitspersample=12)
    for end in (b"", b"\0\0"):
        got = stored(make.to_bytes(make.encapsulated(make.radiograph(), "1.2.840.10008.1.2.4.90", stream[:-2] + end)), least=least)
        assert got.factor > 1 or np.array_equal(got.values, make.chest())


def test_jpeg_2000_that_may_have_lost_something_is_not_compared_value_by_value(make: SimpleNamespace) -> None:
    """The reversible transform with few of its bits: what `opj_compress -r` writes. A copy of an instance is no conflict for that."""
    eight, stream = (make.chest() >> 4).astype(np.uint8), io.BytesIO()
    Image.fromarray(eight).save(stream, "JPEG2000", no_jp2=True, irreversible=False, quality_mode="rates", quality_layers=[8])
    lossy = stored(make.to_bytes(make.encapsulated(make.radiograph(eight, 8), "1.2.840.10008.1.2.4.91", stream.getvalue())))
    assert lossy.factor == 1 and lossy.pixel_hash is None and not np.array_equal(lossy.values, eight)
    whole = imagecodecs.jpeg2k_encode(eight, level=0, reversible=True, codecformat="j2k")
    lossless = stored(make.to_bytes(make.encapsulated(make.radiograph(eight, 8), "1.2.840.10008.1.2.4.90", whole)))
    assert lossless.pixel_hash == hash_of(eight)


def test_jpeg_2000_that_begins_inside_its_reference_grid_is_read_whole(make: SimpleNamespace) -> None:
    eight, stream = (make.chest() >> 4).astype(np.uint8), io.BytesIO()
    Image.fromarray(eight).save(stream, "JPEG2000", no_jp2=True, tile_size=(64, 64), tile_offset=(0, 0), offset=(10, 20))
    got = stored(make.to_bytes(make.encapsulated(make.radiograph(eight, 8), "1.2.840.10008.1.2.4.90", stream.getvalue())), least=64)
    assert got.factor == 1 and np.array_equal(got.values, eight)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("bits", [8, 12])
def test_rle_cut_short_is_truncated(make: SimpleNamespace, share: float, bits: int) -> None:
    values = (make.chest() >> 4).astype(np.uint8) if bits == 8 else make.chest()
    whole = make.radiograph(values, bits)
    whole.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    frame = next(generate_frames(whole.PixelData, number_of_frames=1))
    for length in (int(len(frame) * share), int(len(frame) * share) + 1):
        ds = make.encapsulated(make.radiograph(values, bits), "1.2.840.10008.1.2.5", frame[:length])
        assert refused(make.to_bytes(ds)) == "truncated"


def test_values_above_the_precision_of_a_lossless_jpeg_are_masked(make: SimpleNamespace) -> None:
    """Overlay bits pass through lossless coding of 12 bits, whose differences count modulo 2^16."""
    values = make.chest()
    overlaid = values.astype(np.int64)
    overlaid[50:90, 50:90] |= 0x8000
    first = (1 << 15) - (1 << 11)  # the first value is coded as a difference to half of the range, of 16 bits here and 12 in the end
    stream = bytearray(imagecodecs.jpeg8_encode(((overlaid + first) & 0xFFFF).astype(np.uint16), lossless=True, bitspersample=16))
    stream[stream.index(b"\xff\xc3") + 4] = 12
    got = stored(make.to_bytes(make.encapsulated(make.radiograph(), "1.2.840.10008.1.2.4.70", bytes(stream))))
    assert np.array_equal(got.values, values) and "unused_bits" in got.flags


def test_encodings_that_are_not_read(make: SimpleNamespace) -> None:
    content = make.to_bytes(make.radiograph())
    assert refused(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0", 1)) == "unsupported_transfer_syntax"
    assert refused(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0", 1)) == "decode_error", (
        "native bytes under a compressed name"
    )


def test_an_rle_segment_may_run_over_by_a_little(make: SimpleNamespace) -> None:
    eight = np.zeros((100, 128), np.uint8)
    over = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 101  # 101 runs of 128 zeros for 100 rows
    assert stored(make.to_bytes(make.encapsulated(make.radiograph(eight, 8), "1.2.840.10008.1.2.5", over))).values.shape == (100, 128)
    far = over + b"\x81\x00" * 100
    assert refused(make.to_bytes(make.encapsulated(make.radiograph(eight, 8), "1.2.840.10008.1.2.5", far))) == "decode_error"
    under = over[:-100]
    assert refused(make.to_bytes(make.encapsulated(make.radiograph(eight, 8), "1.2.840.10008.1.2.5", under))) == "truncated"


def test_the_length_that_a_header_calls_for() -> None:
    header = Header(rows=10, columns=20, samples=3, bits_allocated=8, photometric="RGB")
    assert expected_bytes(header) == 600
    assert expected_bytes(Header(rows=10, columns=20, samples=3, bits_allocated=8, photometric="YBR_FULL_422")) == 400
    assert expected_bytes(Header(rows=10, columns=20, samples=1, bits_allocated=16, frames=3)) == 1200


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint16, (50, 700), elements=st.integers(0, 3)), st.integers(0, 49), st.integers(0, 699))
def test_one_other_pixel_is_another_hash(values: np.ndarray, row: int, column: int) -> None:
    other = values.copy()
    other[row, column] += 1
    assert hash_of(values) == hash_of(values.copy()) != hash_of(other)
