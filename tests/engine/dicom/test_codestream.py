import io
import struct
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from engine.dicom.codestream import Claim, j2k_claim, jpeg_claim, rle_segments
from engine.dicom.reasons import Refusal

ENCODERS = {
    "jpeg": lambda values: imagecodecs.jpeg8_encode((values >> 4).astype(np.uint8), level=90),
    "jpeg12": lambda values: imagecodecs.jpeg8_encode(values, level=95, bitspersample=12),
    "lossless": lambda values: imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=12),
    "jpegls": imagecodecs.jpegls_encode,
    "near": lambda values: imagecodecs.jpegls_encode(values, level=3),
    "j2k": lambda values: imagecodecs.jpeg2k_encode(values, reversible=True, codecformat="j2k", bitspersample=12),
    "jp2": lambda values: imagecodecs.jpeg2k_encode(values, reversible=True, codecformat="jp2", bitspersample=12),
    "htj2k": lambda values: imagecodecs.htj2k_encode(values, reversible=True),
}


def claim_of(name: str, stream: bytes) -> Claim:
    return j2k_claim(stream) if name in ("j2k", "jp2", "htj2k") else jpeg_claim(stream)


@pytest.mark.parametrize(
    ("name", "bits", "coding", "lossy"),
    [
        ("jpeg", 8, "jpeg", True),
        ("jpeg12", 12, "jpeg", True),
        ("lossless", 12, "lossless", False),
        ("jpegls", 12, "jpegls", False),
        ("near", 12, "jpegls", True),
        ("j2k", 12, "j2k", False),
        ("jp2", 12, "j2k", False),
        ("htj2k", 16, "htj2k", False),
    ],
)
def test_streams_tell_their_size(make: SimpleNamespace, name: str, bits: int, coding: str, lossy: bool) -> None:
    claim = claim_of(name, ENCODERS[name](make.chest()))
    assert (claim.rows, claim.columns, claim.samples, claim.coding, claim.lossy) == (300, 256, 1, coding, lossy)
    assert claim.bits == bits or (name in ("jpegls", "near") and claim.bits <= 16)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_stream_cut_short_is_truncated(make: SimpleNamespace, name: str, share: float) -> None:
    stream = ENCODERS[name](make.chest())
    with pytest.raises(Refusal) as raised:
        claim_of(name, stream[: int(len(stream) * share)])
    assert raised.value.code == "truncated"


@pytest.mark.parametrize("name", ["jpeg", "lossless", "jpegls", "j2k", "htj2k"])
def test_zero_padding_after_the_stream_does_not_matter(make: SimpleNamespace, name: str) -> None:
    stream = ENCODERS[name](make.chest())
    assert claim_of(name, stream + b"\0") == claim_of(name, stream)


def test_bytes_that_are_no_stream(make: SimpleNamespace) -> None:
    for claim in (jpeg_claim, j2k_claim):
        for junk in (b"not a jpeg at all " * 10, b"", b"\xff\xd8\xff\xd9", b"\xff\x4f\xff\x51"):
            with pytest.raises(Refusal) as raised:
                claim(junk)
            assert raised.value.code in ("decode_error", "truncated")


def test_a_run_of_ff_inside_a_scan_is_no_fill(make: SimpleNamespace) -> None:
    stream = bytearray(ENCODERS["jpeg"](make.chest()))
    middle = len(stream) // 2
    stream[middle : middle + 200] = b"\xff" * 200
    with pytest.raises(Refusal) as raised:
        jpeg_claim(bytes(stream))
    assert raised.value.code == "decode_error"


def test_the_size_of_a_bomb_is_read_without_decoding_it(make: SimpleNamespace) -> None:
    stream = bytearray(ENCODERS["jpeg"](make.chest()))
    frame = stream.index(b"\xff\xc0")
    stream[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    claim = jpeg_claim(bytes(stream))
    assert (claim.rows, claim.columns) == (65500, 65500)


def rle(count: int, *offsets: int) -> bytes:
    return struct.pack("<16I", count, *offsets, *[0] * (15 - len(offsets))) + b"\0" * 100


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (rle(2, 64, 100), None),
        (rle(1, 64), "decode_error"),
        (rle(2, 64, 64), "decode_error"),
        (rle(2, 60, 100), "decode_error"),
        (rle(2, 64, 5000), "truncated"),
        (rle(0), "decode_error"),
        (rle(0xFFFFFFFF, 64), "decode_error"),
        (b"\2\0\0\0", "truncated"),
    ],
)
def test_rle_headers(frame: bytes, code: str | None) -> None:
    if code is None:
        assert rle_segments(frame, 2) == [(64, 100), (100, len(frame))]
        return
    with pytest.raises(Refusal) as raised:
        rle_segments(frame, 2)
    assert raised.value.code == code


@pytest.mark.parametrize("filler", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, (2 << 20) - 1])
@pytest.mark.parametrize("frame", [0xC0, 0xF7])
def test_the_end_of_a_long_scan_is_found_wherever_it_lies(filler: int, frame: int) -> None:
    head = b"\xff\xd8\xff" + bytes([frame]) + struct.pack(">HBHHB3B", 11, 8, 100, 90, 1, 1, 0x11, 0)
    scan = b"\xff\xda" + struct.pack(">H6B", 8, 1, 1, 0, 0, 0, 0)
    stuffed = (b"\xff\x7f" if frame == 0xF7 else b"\xff\x00") * 4
    stream = head + scan + b"\x55" * (filler - len(stuffed)) + stuffed + b"\xff\xd0" + b"\xff\xff\xd9"
    assert jpeg_claim(stream).rows == 100
    assert jpeg_claim(memoryview(stream + b"\0")).columns == 90
    with pytest.raises(Refusal, match="truncated"):
        jpeg_claim(stream[:-1])
    with pytest.raises(Refusal, match="decode_error"):
        jpeg_claim(stream[:-3] + b"\x01\xff\xd2" + stream[-3:])  # restart markers count up


def code_of(stream: bytes, claim=jpeg_claim) -> str:
    with pytest.raises(Refusal) as raised:
        claim(stream)
    return raised.value.code


def by_pillow(values: np.ndarray, form: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, form, **options)
    return stream.getvalue()


def test_arithmetic_and_hierarchical_coding_are_refused_undecoded(make: SimpleNamespace) -> None:
    """An arithmetic decoder makes a image of anything: here of Huffman codes."""
    stream = ENCODERS["jpeg"](make.chest())
    for marker in (0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF):
        assert code_of(stream.replace(b"\xff\xc0", bytes([0xFF, marker]), 1)) == "decode_error"


def test_jpegls_indexes_of_a_mapping_table_are_no_grey_values(make: SimpleNamespace) -> None:
    stream = bytearray(ENCODERS["jpegls"](make.chest()))
    stream[stream.index(b"\xff\xda") + 6] = 1
    assert code_of(bytes(stream)) == "decode_error"


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("options", [{"restart_marker_blocks": 3}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 1}])
def test_restart_markers_are_counted(make: SimpleNamespace, colour: bool, options: dict[str, int]) -> None:
    eight = (make.chest(99, 77) >> 4).astype(np.uint8)
    stream = by_pillow(np.repeat(eight[..., None], 3, -1) if colour else eight, **options)
    assert jpeg_claim(stream).whole
    claim = jpeg_claim(stream)
    last = max(stream.rfind(bytes([0xFF, 0xD0 + number]), 0, claim.data_end) for number in range(8))
    assert not jpeg_claim(stream[:last] + stream[claim.data_end :]).whole, "one interval fewer"
    interval = stream.index(b"\xff\xdd")
    without = stream[:interval] + stream[interval + 6 :]
    assert jpeg_claim(without).whole, "markers that no interval calls for are left to the decoder"


def test_lossless_restart_intervals_count_samples() -> None:
    head = b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB3B", 11, 8, 4, 100, 1, 1, 0x11, 0)
    scan = b"\xff\xda" + struct.pack(">H6B", 8, 1, 1, 0, 1, 0, 0)
    body = b"\x55\xff\xd0\x55\xff\xd1\x55\xff\xd2\x55\xff\xd9"
    for interval, whole in ((100, True), (99, False), (0, True), (400, True)):
        assert jpeg_claim(head + b"\xff\xdd\x00\x04" + struct.pack(">H", interval) + scan + body).whole == whole


def test_a_progressive_image_must_come_to_its_last_bits(make: SimpleNamespace) -> None:
    eight = (make.chest() >> 4).astype(np.uint8)
    stream = by_pillow(eight, progressive=True)
    assert jpeg_claim(stream).whole and jpeg_claim(stream).scans > 3
    last = stream.rindex(b"\xff\xda")
    tables = stream.rindex(b"\xff\xc4", 0, last)
    fewer = jpeg_claim(stream[:tables] + b"\xff\xd9")
    assert fewer.scans == jpeg_claim(stream).scans - 1 and not fewer.whole


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x05\x01\x00\x00\x00\x00", b"\x00\x00\x3f\x00"])
def test_scan_headers_that_are_too_short(make: SimpleNamespace, body: bytes) -> None:
    stream = ENCODERS["jpeg"](make.chest())
    scan = stream.index(b"\xff\xda")
    assert code_of(stream[: scan + 2] + struct.pack(">H", len(body) + 2) + body + stream[scan + 10 :]) == "decode_error"


def test_the_end_of_a_image_is_its_own_and_not_a_thumbnails(make: SimpleNamespace) -> None:
    stream = ENCODERS["jpeg"](make.chest())
    thumbnail = stream[:400] + b"\xff\xd9"
    inside = stream[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + stream[2:]
    claim = jpeg_claim(inside + stream)
    assert (claim.rows, claim.end) == (300, len(inside))
    assert inside[claim.data_end : claim.end] == b"\xff\xd9"


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def test_the_codestream_is_found_by_the_boxes_around_it(make: SimpleNamespace) -> None:
    stream = ENCODERS["jp2"](make.chest())
    at = stream.index(b"jp2c") - 4
    expected = stream[at + 8 :]
    decoy = box(b"xml ", b"<a>jp2c\xff\x4f\xff\x51</a>")
    forms = (
        stream,
        stream[:at] + decoy + stream[at:] + decoy,
        stream[:at] + struct.pack(">I", 0) + stream[at + 4 :],
        stream[:at] + struct.pack(">I4sQ", 1, b"jp2c", len(expected) + 16) + expected,
    )
    for form in forms:
        claim = j2k_claim(form)
        assert form[claim.start : claim.end] == expected and claim.whole
    assert code_of(stream[: at + 6], j2k_claim) == "truncated"
    assert code_of(stream[:12] + b"\0\0\0\4" + stream[16:], j2k_claim) == "decode_error"
    head = stream.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", stream, head)
    palette = box(b"pclr", struct.pack(">HBB", 256, 1, 7) + bytes(range(255, -1, -1))) + box(b"cmap", b"\0\0\1\0")
    indexed = stream[:head] + box(b"jp2h", stream[head + 8 : head + length] + palette) + stream[head + length :]
    assert code_of(indexed, j2k_claim) == "decode_error"


def tile_parts(stream: bytes) -> list[int]:
    at, found = stream.index(b"\xff\x90"), []
    while stream[at : at + 2] == b"\xff\x90":
        found.append(at)
        at += struct.unpack_from(">I", stream, at + 6)[0]
    return found


def test_every_tile_must_be_there(make: SimpleNamespace) -> None:
    stream = by_pillow((make.chest() >> 4).astype(np.uint8), "JPEG2000", no_jp2=True, tile_size=(64, 64))
    starts = tile_parts(stream)
    assert len(starts) == 20 and j2k_claim(stream).whole
    for gone in (0, 10, 19):
        end = [*starts, len(stream) - 2][gone + 1]
        claim = j2k_claim(stream[: starts[gone]] + stream[end:])
        assert (claim.rows, claim.columns, claim.whole) == (300, 256, False)
    announced = bytearray(stream)
    announced[starts[3] + 11] = 2  # TNsot: two tile-parts, of which one is there
    assert not j2k_claim(bytes(announced)).whole


def test_a_claim_of_many_tiles_takes_no_time(make: SimpleNamespace) -> None:
    stream = bytearray(ENCODERS["j2k"](make.chest()))
    stream[8:16] = struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF)
    stream[24:32] = struct.pack(">II", 1, 1)
    claim = j2k_claim(bytes(stream))
    assert (claim.rows, claim.whole) == (0xFFFFFFFF, False)
    stream[24:32] = bytes(8)
    assert code_of(bytes(stream), j2k_claim) == "decode_error"


def test_thousands_of_segments_or_scans_are_not_followed(make: SimpleNamespace) -> None:
    stream = ENCODERS["jpeg"](make.chest(96, 80))
    for count, whole in ((5000, True), (20000, False)):
        form = stream[:2] + b"\xff\xfe\x00\x02" * count + stream[2:]
        assert (jpeg_claim(form).whole if whole else code_of(form) == "resource_limit") is True
    progressive = by_pillow((make.chest(96, 80) >> 4).astype(np.uint8), progressive=True)
    last = progressive.rindex(b"\xff\xda")
    assert code_of(progressive[:-2] + progressive[last:-2] * 300 + b"\xff\xd9") == "resource_limit"
    wavelets = ENCODERS["j2k"](make.chest(96, 80))
    tile = wavelets.index(b"\xff\x90")
    assert code_of(wavelets[:tile] + b"\xff\x64\x00\x02" * 20000 + wavelets[tile:], j2k_claim) == "resource_limit"


def test_a_point_transform_loses_the_lowest_bits(make: SimpleNamespace) -> None:
    stream = bytearray(ENCODERS["lossless"](make.chest(96, 80)))
    assert not jpeg_claim(bytes(stream)).lossy
    stream[stream.index(b"\xff\xda") + 9] = 2
    assert jpeg_claim(bytes(stream)).lossy, "its values are not to be compared with those of a lossless copy"
