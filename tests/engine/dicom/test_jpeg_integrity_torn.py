import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.dicom.jpeg_integrity import CERTAIN, DOUBTFUL, block_row_discontinuity, edges_of


@pytest.fixture(scope="module")
def radiograph(make) -> np.ndarray:
    """uint8 (400, 320), with the noise that detectors have, as JPEG of good quality left it."""
    noise = np.random.default_rng(0).normal(0, 3, (400, 320))
    stream = io.BytesIO()
    Image.fromarray(np.clip((make.chest(400, 320) >> 4) + noise, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
    return np.asarray(Image.open(stream))


def test_a_sound_image_is_not_torn(radiograph: np.ndarray) -> None:
    assert max(block_row_discontinuity(radiograph, 8, 255)) < DOUBTFUL


def torn_at(radiograph: np.ndarray, row: int, column: int, step: int) -> np.ndarray:
    """int16: everything from a block on is brighter."""
    damaged = radiograph.astype(np.int16)
    damaged[8 * row : 8 * row + 8, 8 * column :] += step
    damaged[8 * row + 8 :] += step
    return damaged


@given(row=st.integers(1, 36), column=st.integers(6, 34), step=st.sampled_from([-90, -60, 60, 90]))
def test_what_follows_a_damaged_block_looks_torn_from_the_rest(radiograph: np.ndarray, row: int, column: int, step: int) -> None:
    assert block_row_discontinuity(torn_at(radiograph, row, column, step), 8, 255).pair > DOUBTFUL


@pytest.mark.parametrize("row", [10, 20, 30])
def test_a_step_in_the_middle_is_certainly_a_tear(radiograph: np.ndarray, row: int) -> None:
    damaged = torn_at(radiograph, row, 20, 60)
    assert block_row_discontinuity(damaged, 8, 255).pair > CERTAIN
    assert block_row_discontinuity(np.stack([damaged] * 3, -1), 8, 255).pair > CERTAIN


@pytest.mark.parametrize("rows", [slice(0, 64), slice(336, 400), slice(64, 72)], ids=["above", "below", "a bar one block high"])
def test_the_edge_of_a_shutter_on_the_grid_is_no_tear(radiograph: np.ndarray, rows: slice) -> None:
    covered = radiograph.copy()
    covered[rows] = 255
    assert max(block_row_discontinuity(covered, 8, 255)) < DOUBTFUL


@given(st.integers(1, 40), st.integers(1, 300), st.sampled_from([1, 2, 4, 8]))
def test_small_images_have_few_edges_or_none(rows: int, columns: int, side: int) -> None:
    values = np.random.default_rng(rows * columns).integers(0, 256, (rows, columns), dtype=np.uint8)
    assert all(0 <= share <= 1 for share in block_row_discontinuity(values, side, 255))
    if 1 < side <= rows - 2:
        sharp, uneven = edges_of(values, side, 255)
        assert len(sharp) == len(uneven) == (rows - 2) // side and not (sharp & ~uneven).any()
