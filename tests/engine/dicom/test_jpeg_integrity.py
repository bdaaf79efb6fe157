import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dicom.codestream import jpeg_claim
from engine.dicom.jpeg_integrity import CheckRow, append_check_row, differences, end_of_data, huffman_tables


def witnessed(stream: bytes) -> tuple[CheckRow, np.ndarray]:
    witness = append_check_row(memoryview(stream), jpeg_claim(stream))
    assert witness is not None
    return witness, imagecodecs.jpeg8_decode(witness.stream)


@given(
    bits=st.sampled_from([10, 12, 14, 16]),
    predictor=st.integers(1, 7),
    shape=st.tuples(st.integers(2, 40), st.integers(20, 60)),
    noise=st.integers(0, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_row_that_was_added_shows_what_was_written_for_it(bits, predictor, shape, noise, seed) -> None:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, (1 << bits) - 1 - (1 << noise), shape[1])[None] * np.ones(shape)
    values = (ramp + rng.integers(0, 1 << noise, shape)).astype(np.uint16)
    stream = imagecodecs.jpeg8_encode(values, lossless=True, predictor=predictor, bitspersample=bits)
    witness, decoded = witnessed(stream)
    assert np.array_equal(decoded[:-1], values) and witness.agrees(decoded)


def test_a_decoder_out_of_step_shows_something_else(make) -> None:
    stream = imagecodecs.jpeg8_encode(make.chest(), lossless=True, bitspersample=12)
    end = end_of_data(stream, jpeg_claim(stream))
    without = stream[: end - 40] + stream[end - 37 :]
    witness, decoded = witnessed(without)
    assert not witness.agrees(decoded)


@pytest.mark.parametrize(
    "stream",
    [
        imagecodecs.jpeg8_encode(np.arange(4096, dtype=np.uint16).reshape(64, 64), bitspersample=12),
        imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8), lossless=True),
        imagecodecs.jpeg8_encode(np.full((16, 16), 1 << 11, np.uint16), lossless=True, bitspersample=12),
    ],
    ids=["DCT", "three components", "a table of one code"],
)
def test_other_streams_have_no_witness(stream: bytes) -> None:
    assert append_check_row(memoryview(stream), jpeg_claim(stream)) is None


def test_tables_and_differences_are_those_of_the_standard() -> None:
    """T.81 annex C, K.3.3.1: the typical table of luminance DC differences, category 0 as 00, 1 as 010, ..., 11 as 111111110."""
    body = bytes([0, 0, 1, 5, 1, 1, 1, 1, 1, 1, *[0] * 7, *range(12)])
    (codes,) = huffman_tables(body).values()
    assert (codes["00"], codes["010"], codes["110"], codes["111111110"]) == (0, 1, 5, 11)
    found = differences("00" + "010" + "1" + "010" + "0" + "011" + "10" + "011" + "01", codes)
    assert [next(found) for _ in range(5)] == [0, 1, -1, 2, -2]
