from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dicom.stored_bits import exceeds, stored_values

SHAPE = (360, 320)


def smooth(low: float, high: float) -> np.ndarray:
    """Values that run smoothly between two numbers, with a little noise."""
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    share = (np.sin(x / 68) * np.cos(y / 52) + 1) / 2
    return np.rint(low + share * (high - low) + np.random.default_rng(0).normal(0, 3, SHAPE)).clip(low, high).astype(np.int64)


def raw_of(values: np.ndarray) -> np.ndarray:
    return (values & 0xFFFF).astype("<u2")


@pytest.mark.parametrize("bits", [8, 10, 11, 12, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("extended", [False, True], ids=["zeros above", "sign above"])
def test_values_within_their_bits_are_what_they_mean(bits: int, signed: bool, extended: bool) -> None:
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = smooth(low, high)
    raw = raw_of(values) if extended else raw_of(values) & ((1 << bits) - 1)
    got, used, flags = stored_values(raw.astype("<u2"), bits, signed=signed)
    assert np.array_equal(got, values) and (used, flags) == (bits, ())


@pytest.mark.parametrize(("bits", "used"), [(11, 12), (10, 12), (8, 12), (12, 16)])
def test_values_that_continue_above_the_stored_bits_are_read(bits: int, used: int) -> None:
    values = smooth(0, (1 << used) - 1)
    assert_read(values, bits, used, signed=False)


def test_signed_values_that_continue_above_the_stored_bits_are_read() -> None:
    assert_read(smooth(-3000, 3000), 12, 13, signed=True)


def assert_read(values: np.ndarray, bits: int, used: int, *, signed: bool) -> None:
    got, held, flags = stored_values(raw_of(values), bits, signed=signed)
    assert np.array_equal(got, values) and held == used and set(flags) == {"unused_bits", "more_bits"}


@given(st.integers(8, 15), st.integers(0, 99))
def test_junk_above_the_stored_bits_is_ignored(bits: int, seed: int) -> None:
    values = smooth(0, (1 << bits) - 1)
    junk = np.random.default_rng(seed).integers(0, 1 << (16 - bits), SHAPE) << bits
    got, used, flags = stored_values(raw_of(values | junk), bits, signed=False)
    assert np.array_equal(got, values) and used == bits and flags == (("unused_bits",) if junk.any() else ())


def test_an_overlay_above_the_stored_bits_is_ignored() -> None:
    """Old files keep the plane of an overlay in a bit that the pixels leave free (PS3.5 8.1.2, retired)."""
    values = smooth(0, 4095)
    values[20:40, 20:60] |= 1 << 15
    got, used, flags = stored_values(raw_of(values), 12, signed=False)
    assert got.max() < 4096 and (used, flags) == (12, ("unused_bits",))


def test_a_painted_marker_does_not_widen_the_values() -> None:
    values = smooth(0, 4095)
    values[5:15, 5:15] = 65535
    got, used, flags = stored_values(raw_of(values), 12, signed=False)
    assert got.max() == 4095 and (used, flags) == (12, ("unused_bits",))


def test_a_bit_that_all_values_share_is_ignored() -> None:
    values = smooth(0, 4095)
    got, _, flags = stored_values(raw_of(values | 1 << 14), 12, signed=False)
    assert np.array_equal(got, values) and flags == ("unused_bits",)


def test_a_codestream_that_holds_fewer_bits_is_not_searched() -> None:
    values = smooth(0, 4095)
    got, used, flags = stored_values(raw_of(values), 12, signed=False, precision=12)
    assert np.array_equal(got, values) and (used, flags) == (12, ())


def test_no_values_exceed_no_bits() -> None:
    assert not exceeds(np.zeros(0, np.uint16), 8, signed=False)


@pytest.mark.parametrize("encoding", ["explicit", "rle", "jpeg_lossless", "jpegls", "j2k", "htj2k"])
def test_a_bits_stored_that_is_too_low_changes_no_pixel(make: SimpleNamespace, read, encoding: str) -> None:
    """Masked to 11 bits the bright half of a 12-bit radiograph wrapped around to black, without a flag."""
    right = read(make.encoded(make.radiograph(), encoding))
    ds = make.encoded(make.radiograph(), encoding)
    ds.BitsStored, ds.HighBit = 11, 10
    wrong = read(ds)
    assert {"unused_bits", "more_bits"} <= set(wrong.flags), wrong
    assert np.abs(wrong.image.astype(int) - right.image).mean() < 0.6
