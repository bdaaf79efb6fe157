from pathlib import Path

import data_store
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dicom.likeness import MIRRORED, UPRIGHT, WEIGHTS, eight_ways, look_of, picture_flags, shipped, small_copy
from engine.dicom.reader import read_file


@pytest.fixture(scope="module")
def radiograph() -> np.ndarray:
    picture = read_file(Path(data_store.__file__).parent / "data" / "RG1_UNCR.dcm", size=96).picture
    assert picture is not None
    return picture


def test_an_upright_chest_has_no_flags(radiograph: np.ndarray) -> None:
    assert picture_flags(radiograph) == ()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_chest_is_flagged(radiograph: np.ndarray, turns: int) -> None:
    assert picture_flags(np.rot90(radiograph, turns)) == ("orientation",)


def test_an_upside_down_negative_is_still_an_upside_down_chest(radiograph: np.ndarray) -> None:
    assert picture_flags(255 - radiograph[::-1]) == ("orientation",)


def test_noise_is_no_chest() -> None:
    assert picture_flags(np.random.default_rng(0).integers(0, 256, (96, 80), dtype=np.uint8)) == ("out_of_distribution",)


def test_a_chest_and_its_mirror_image_change_places(radiograph: np.ndarray) -> None:
    likeness = shipped()
    ways = eight_ways(small_copy(radiograph)).reshape(8, -1)
    mirrored = eight_ways(small_copy(radiograph)[:, ::-1]).reshape(8, -1)
    np.testing.assert_array_equal(ways[[UPRIGHT, MIRRORED]], mirrored[[MIRRORED, UPRIGHT]])
    assert set(np.round(likeness.uprightness(ways), 3)) == set(np.round(likeness.uprightness(mirrored), 3))


def test_distances_are_those_of_the_covariance_written_out(radiograph: np.ndarray) -> None:
    likeness = shipped()
    axes = likeness.axes.astype(np.float64)
    axes = np.linalg.qr(axes.T)[0].T  # float16 on disk: not orthogonal to the last digit
    covariance = likeness.rest * np.eye(1024) + (axes.T * (likeness.variance - likeness.rest)) @ axes
    picture = small_copy(radiograph).reshape(1, -1)
    got = likeness.distances(picture)[:, 0]
    for distance, sign in zip(got, (1, -1), strict=True):
        moved = sign * picture[0] - likeness.mean
        assert distance == pytest.approx(moved @ np.linalg.solve(covariance, moved), rel=0.01)


@given(st.integers(64, 90), st.integers(64, 90), st.integers(0, 2**32 - 1))
def test_brightness_and_contrast_change_nothing(rows: int, columns: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 100, (rows, columns), dtype=np.uint8)
    before, after = look_of(picture, shipped()), look_of(2 * picture + 20, shipped())
    assert after.strangeness == pytest.approx(before.strangeness, rel=1e-3)
    assert (after.turned, after.mirrored) == pytest.approx((before.turned, before.mirrored), abs=1e-2)


@pytest.mark.parametrize("shape", [(32, 32), (20, 300), (7, 5)])
def test_small_and_narrow_pictures_are_looked_at_too(shape: tuple[int, int]) -> None:
    picture = np.arange(shape[0] * shape[1]).reshape(shape).astype(np.uint8)
    copy = small_copy(picture)
    assert copy.shape == (32, 32) and np.isfinite(copy).all()
    assert copy.mean() == pytest.approx(0, abs=1e-5) and copy.std() == pytest.approx(1, abs=1e-4)


def test_a_constant_picture_is_looked_at_without_a_warning() -> None:
    assert np.isfinite(look_of(np.full((64, 64), 7, np.uint8), shipped()).strangeness)


def test_the_weights_stay_small() -> None:
    assert WEIGHTS.stat().st_size <= 300_000
