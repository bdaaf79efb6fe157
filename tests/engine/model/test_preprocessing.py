"""From a grey picture to the model's pixels: squash, pad and crop."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.model.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing, Resize, resized

Picture = npt.NDArray[np.uint8]
RESIZES: tuple[Resize, ...] = ("squash", "pad", "crop")


def noise(height: int, width: int, seed: int = 0) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def halves(height: int, width: int) -> Picture:
    """Left half 50, right half 200."""
    picture = np.full((height, width), 50, np.uint8)
    picture[:, width // 2 :] = 200
    return picture


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.sampled_from(RESIZES))
def test_every_picture_becomes_the_asked_square(height: int, width: int, size: int, resize: Resize) -> None:
    square = resized(noise(height, width), size, resize)
    assert square.shape == (size, size)
    assert square.dtype == np.uint8


@pytest.mark.parametrize("resize", RESIZES)
def test_a_square_of_the_right_size_is_left_alone(resize: Resize) -> None:
    picture = noise(24, 24)
    assert np.array_equal(resized(picture, 24, resize), picture)


@pytest.mark.parametrize("resize", RESIZES)
def test_squares_are_resized_alike(resize: Resize) -> None:
    expected = np.asarray(Image.fromarray(noise(50, 50)).resize((24, 24), Image.Resampling.LANCZOS))
    assert np.array_equal(resized(noise(50, 50), 24, resize), expected)


def test_squash_keeps_the_whole_field_of_view() -> None:
    square = resized(halves(40, 80), 20, "squash")
    assert square[:, 0].tolist() == [50] * 20
    assert square[:, -1].tolist() == [200] * 20
    assert abs(int((square > 125).sum()) - 200) <= 20


def test_pad_keeps_the_aspect_and_puts_black_beside_it() -> None:
    square = resized(np.full((40, 80), 90, np.uint8), 20, "pad")
    assert (square[5:15] == 90).all()
    assert not square[:5].any()
    assert not square[15:].any()
    assert np.array_equal(resized(np.full((80, 40), 90, np.uint8), 20, "pad"), square.T)


def test_crop_keeps_the_aspect_and_takes_the_middle() -> None:
    picture = np.zeros((20, 60), np.uint8)
    picture[:, 20:40] = noise(20, 20)
    assert np.array_equal(resized(picture, 20, "crop"), picture[:, 20:40])
    assert np.array_equal(resized(picture.T.copy(), 20, "crop"), picture[:, 20:40].T)


@pytest.mark.parametrize("resize", RESIZES)
def test_a_line_of_pixels_is_still_a_picture(resize: Resize) -> None:
    assert resized(noise(1, 5000), 16, resize).shape == (16, 16)


def test_a_view_of_memory_in_any_order_reads_the_same() -> None:
    picture = noise(60, 40)
    assert np.array_equal(resized(picture[::2, ::-1], 16, "pad"), resized(picture[::2, ::-1].copy(), 16, "pad"))
    frozen = picture.copy()
    frozen.setflags(write=False)
    assert np.array_equal(resized(frozen, 16, "crop"), resized(picture, 16, "crop"))


def test_pixels_are_scaled_and_normalised_by_channel() -> None:
    pictures = [noise(16, 16, seed) for seed in range(3)]
    pixels = Preprocessing(16, "squash", CLIP_MEAN, CLIP_STD).pixels(pictures)
    assert pixels.shape == (3, 3, 16, 16)
    assert pixels.dtype == np.float32
    for row in range(3):
        for channel in range(3):
            expected = (pictures[row] / 255 - CLIP_MEAN[channel]) / CLIP_STD[channel]
            np.testing.assert_allclose(pixels[row, channel], expected, atol=1e-5)


def test_pictures_of_different_shapes_make_one_batch_and_do_not_mix() -> None:
    preprocessing = Preprocessing(16, "pad", (0.5,) * 3, (0.25,) * 3)
    pictures = [noise(30, 20), noise(9, 41), noise(16, 16)]
    pixels = preprocessing.pixels(pictures)
    for row, picture in enumerate(pictures):
        assert np.array_equal(pixels[row], preprocessing.pixels([picture])[0])


def test_no_pictures_make_an_empty_batch() -> None:
    assert Preprocessing(16, "pad", (0.5,) * 3, (0.25,) * 3).pixels([]).shape == (0, 3, 16, 16)


def test_as_dict_holds_all_that_decides_the_pixels() -> None:
    stored = Preprocessing(16, "pad", CLIP_MEAN, CLIP_STD).as_dict()
    assert Preprocessing(**stored) == Preprocessing(16, "pad", CLIP_MEAN, CLIP_STD)
    assert set(stored) == {"size", "resize", "mean", "std"}, "so that the hashes of models without further settings stay"
    cropped = Preprocessing(16, "pad", CLIP_MEAN, CLIP_STD, "bicubic", 20)
    assert Preprocessing(**cropped.as_dict()) == cropped


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 9), st.sampled_from(RESIZES))
def test_a_centre_crop_of_the_larger_square_is_the_square(height: int, width: int, margin: int, resize: Resize) -> None:
    preprocessing = Preprocessing(16, resize, CLIP_MEAN, CLIP_STD, "bicubic", 16 + margin)
    square = preprocessing.square(noise(height, width))
    assert square.shape == (16, 16)
    whole = resized(noise(height, width), 16 + margin, resize, "bicubic")
    assert preprocessing.square(whole).shape == (16, 16)
    if height == width:
        assert np.array_equal(preprocessing.square(whole), square)
