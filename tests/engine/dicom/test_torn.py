import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.dicom.torn import CERTAIN, DOUBTFUL, sharp_edges, torn


@pytest.fixture(scope="module")
def radiograph(make) -> np.ndarray:
    """uint8 (400, 320), as JPEG of middling quality left it."""
    stream = io.BytesIO()
    Image.fromarray((make.chest(400, 320) >> 4).astype(np.uint8)).save(stream, "JPEG", quality=75)
    return np.asarray(Image.open(stream))


def test_a_sound_picture_is_not_torn(radiograph: np.ndarray) -> None:
    assert torn(radiograph, 8, 255) < DOUBTFUL


def torn_at(radiograph: np.ndarray, row: int, column: int, step: int) -> np.ndarray:
    """int16: everything from a block on is brighter."""
    damaged = radiograph.astype(np.int16)
    damaged[8 * row : 8 * row + 8, 8 * column :] += step
    damaged[8 * row + 8 :] += step
    return damaged


@given(row=st.integers(1, 36), column=st.integers(6, 34), step=st.sampled_from([-90, -60, 60, 90]))
def test_what_follows_a_damaged_block_looks_torn_from_the_rest(radiograph: np.ndarray, row: int, column: int, step: int) -> None:
    assert torn(torn_at(radiograph, row, column, step), 8, 255) > DOUBTFUL


@pytest.mark.parametrize("row", [10, 20, 30])
def test_a_step_in_the_middle_is_certainly_a_tear(radiograph: np.ndarray, row: int) -> None:
    damaged = torn_at(radiograph, row, 20, 60)
    assert torn(damaged, 8, 255) > CERTAIN
    assert torn(np.stack([damaged] * 3, -1), 8, 255) > CERTAIN


@pytest.mark.parametrize("rows", [slice(0, 64), slice(336, 400), slice(64, 72)], ids=["above", "below", "a bar one block high"])
def test_the_edge_of_a_shutter_on_the_grid_is_no_tear(radiograph: np.ndarray, rows: slice) -> None:
    covered = radiograph.copy()
    covered[rows] = 255
    assert torn(covered, 8, 255) < DOUBTFUL


@given(st.integers(1, 40), st.integers(1, 300), st.sampled_from([1, 2, 4, 8]))
def test_small_pictures_have_few_edges_or_none(rows: int, columns: int, side: int) -> None:
    values = np.random.default_rng(rows * columns).integers(0, 256, (rows, columns), dtype=np.uint8)
    assert 0 <= torn(values, side, 255) <= 1
    if side > 1:
        assert len(sharp_edges(values, side, 255)) == max(0, (rows - 2) // side)
