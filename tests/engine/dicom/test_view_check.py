import dataclasses
from pathlib import Path

import data_store
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dicom.view_check import (
    WEIGHTS,
    Look,
    convolved,
    is_pattern,
    shipped,
    small_copy,
    view_flags,
    view_scores,
)
from engine.intake.reader import read_file


@pytest.fixture(scope="module")
def radiograph() -> np.ndarray:
    image = read_file(Path(data_store.__file__).parent / "data" / "RG1_UNCR.dcm", size=96).image
    assert image is not None
    return image


def test_an_upright_chest_has_no_flags(radiograph: np.ndarray) -> None:
    assert view_flags(radiograph) == ()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_chest_is_flagged(radiograph: np.ndarray, turns: int) -> None:
    assert view_flags(np.rot90(radiograph, turns)) == ("orientation",)


def test_an_upside_down_negative_is_still_an_upside_down_chest(radiograph: np.ndarray) -> None:
    assert view_flags(255 - radiograph[::-1]) == ("orientation", "polarity")


def test_noise_is_no_chest() -> None:
    assert view_flags(np.random.default_rng(0).integers(0, 256, (96, 80), dtype=np.uint8)) == ("out_of_distribution",)


def stripes(every: int) -> np.ndarray:
    return np.broadcast_to((np.arange(96) % every < every // 2) * np.uint8(255), (96, 96)).copy()


PATTERNS = {
    **{f"stripes {every}": stripes(every) for every in (2, 6, 16, 30)},
    **{f"rungs {every}": stripes(every).T for every in (2, 6, 16, 30)},
    "ramp": np.broadcast_to(np.arange(96, dtype=np.uint8), (96, 96)),
    "grid": np.maximum(stripes(8), stripes(8).T),
    "board": stripes(8) ^ stripes(8).T,
    "noisy disk": np.random.default_rng(0).integers(0, 90, (96, 96), dtype=np.uint8)
    + np.uint8(60) * (np.hypot(*(np.mgrid[:96, :96] - 48)) < 40).astype(np.uint8),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_test_pattern_is_no_chest(name: str) -> None:
    assert view_flags(PATTERNS[name]) == ("out_of_distribution",)


def test_a_chest_under_strong_noise_is_still_one(radiograph: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 20, radiograph.shape)
    assert not is_pattern(small_copy(np.clip(radiograph + noise, 0, 255).astype(np.uint8)))


def test_a_chest_and_its_mirror_image_change_places(radiograph: np.ndarray) -> None:
    one, other = (view_scores(image, shipped(), sure=1.0) for image in (radiograph, radiograph[:, ::-1]))
    assert one.mirrored == pytest.approx(1 - other.mirrored, abs=1e-3)
    assert (one.strange, one.lateral, one.turned) == pytest.approx((other.strange, other.lateral, other.turned), abs=1e-3)


def test_a_image_that_is_surely_upright_is_asked_once_and_has_the_same_flags(radiograph: np.ndarray) -> None:
    once, twice = view_scores(radiograph, shipped()), view_scores(radiograph, shipped(), sure=1.0)
    assert once != twice
    assert once.flags(shipped()) == twice.flags(shipped()) == ()


@given(st.integers(1, 3), st.integers(1, 4), st.sampled_from([(9, 5, 2), (8, 3, 2), (7, 3, 1)]), st.integers(0, 2**32 - 1))
def test_a_layer_is_the_convolution_written_out(number: int, channels: int, sizes: tuple[int, int, int], seed: int) -> None:
    side, size, stride = sizes
    rng = np.random.default_rng(seed)
    layer, kernel, bias = (rng.standard_normal(shape) for shape in ((number, side, side, channels), (size * size * channels, 3), (3,)))
    got = convolved(layer.astype(np.float32), kernel.astype(np.float32), bias.astype(np.float32), stride)
    for place in np.ndindex(got.shape[:3]):
        down, right = place[1] * stride, place[2] * stride
        window = layer[place[0], down : down + size, right : right + size]
        np.testing.assert_allclose(got[place], np.maximum(window.reshape(-1) @ kernel + bias, 0), atol=1e-4)


@pytest.mark.parametrize(
    ("look", "flags"),
    [
        (Look(strange=1, lateral=0.1, turned=0, mirrored=1, contrast=-1), ("out_of_distribution",)),
        (Look(strange=1, lateral=0.9, turned=0, mirrored=1, contrast=-1), ("looks_lateral", "out_of_distribution")),
        (Look(strange=0, lateral=0, turned=1, mirrored=0, contrast=1), ("orientation",)),
        (Look(strange=0, lateral=0, turned=0, mirrored=1, contrast=-1), ("orientation", "polarity")),
        (Look(strange=0, lateral=0, turned=0, mirrored=0, contrast=1), ()),
    ],
)
def test_how_a_image_is_shown_is_asked_of_frontal_chests_alone(look: Look, flags: tuple[str, ...]) -> None:
    assert look.flags(shipped()) == flags


@given(st.integers(64, 90), st.integers(64, 90), st.integers(0, 2**32 - 1))
def test_brightness_and_contrast_change_nothing(rows: int, columns: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 100, (rows, columns), dtype=np.uint8)
    before, after = view_scores(image, shipped()), view_scores(2 * image + 20, shipped())
    assert dataclasses.astuple(after) == pytest.approx(dataclasses.astuple(before), abs=1e-2)


@pytest.mark.parametrize("shape", [(32, 32), (20, 300), (7, 5)])
def test_small_and_narrow_images_are_looked_at_too(shape: tuple[int, int]) -> None:
    image = np.arange(shape[0] * shape[1]).reshape(shape).astype(np.uint8)
    copy = small_copy(image)
    assert copy.shape == (64, 64) and np.isfinite(copy).all()
    assert copy.mean() == pytest.approx(0, abs=1e-5) and copy.std() == pytest.approx(1, abs=1e-4)


def test_a_constant_image_is_looked_at_without_a_warning() -> None:
    assert np.isfinite(dataclasses.astuple(view_scores(np.full((64, 64), 7, np.uint8), shipped()))).all()


def test_the_weights_stay_small() -> None:
    assert WEIGHTS.stat().st_size <= 300_000
