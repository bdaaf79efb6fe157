import struct
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest

from engine.dicom.codestream import Claim, j2k_claim, jpeg_claim, rle_segments
from engine.dicom.policy import Refusal

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
