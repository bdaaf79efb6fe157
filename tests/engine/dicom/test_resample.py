import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.dicom.resample import block_means, fewer, lanczos, squashed


@settings(max_examples=50, deadline=None)
@given(sides=st.tuples(*[st.integers(20, 300)] * 4), edges=st.tuples(*[st.floats(0, 0.45)] * 4), seed=st.integers(0, 9))
def test_resampling_is_what_pillow_does(sides: tuple[int, ...], edges: tuple[float, ...], seed: int) -> None:
    height, width, rows, columns = sides
    values = np.random.default_rng(seed).random((height, width), np.float32) * 4095
    box = (edges[0] * width, edges[1] * height, (1 - edges[2]) * width, (1 - edges[3]) * height)
    expected = Image.fromarray(values).resize((columns, rows), Image.Resampling.LANCZOS, box=box)
    assert np.abs(lanczos(values, (rows, columns), box) - np.asarray(expected)).max() < 0.4


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 64), st.integers(0, 9))
def test_squashing_is_the_mean_between_edges(rows: int, columns: int, side: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (rows, columns), dtype=np.uint8)
    got = squashed(image, side)
    down, right = (np.linspace(0, length, side + 1).astype(int) for length in image.shape)
    row, column = seed % side, (7 * seed) % side
    cell = image[down[row] : max(down[row + 1], down[row] + 1), right[column] : max(right[column + 1], right[column] + 1)]
    assert got.shape == (side, side)
    np.testing.assert_allclose(got[row, column], cell.mean(), rtol=1e-6)


def test_a_constant_image_stays_exactly_constant() -> None:
    assert np.ptp(squashed(np.full((301, 223), 77, np.uint8), 64)) == 0


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 8), st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]))
def test_block_means_are_means_of_blocks(rows: int, columns: int, block: int, kind: type) -> None:
    values = np.random.default_rng(rows * columns).integers(0, 200, (rows, columns)).astype(kind)
    padded = np.pad(values, ((0, -rows % block), (0, -columns % block)), mode="edge").astype(np.float64)
    expected = padded.reshape(len(padded) // block, block, -1, block).mean((1, 3))
    np.testing.assert_allclose(block_means(values, block), expected, rtol=1e-5)


@given(st.integers(20, 200), st.integers(20, 200), st.sampled_from([(3, 2), (5, 4), (7, 4), (6, 4), (11, 8)]), st.integers(0, 9))
def test_fewer_pixels_are_means_of_whole_and_split_ones(rows: int, columns: int, ratio: tuple[int, int], seed: int) -> None:
    values = np.random.default_rng(seed).random((rows, columns), np.float32)
    inside, outside = ratio
    got = fewer(values, inside, outside)
    fine = values.repeat(outside, 0).repeat(outside, 1)  # `outside` x `outside` equal parts of every pixel
    expected = fine[: len(got) * inside, : got.shape[1] * inside].reshape(len(got), inside, -1, inside).mean((1, 3))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    for before, after in zip(values.shape, got.shape, strict=True):
        assert 0 <= before - after * inside / outside < 12


def test_values_that_are_small_enough_are_left_as_they_are() -> None:
    values = np.ones((40, 30), np.float32)
    assert fewer(values, 4, 4) is values and fewer(values, 3, 4) is values
