from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.data.store import Resize, squared
from engine.model.preprocessing import resized


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@given(st.integers(20, 90), st.integers(20, 90), st.sampled_from(["squash", "pad", "crop"]))
def test_training_and_evaluation_make_the_same_square(height: int, width: int, resize: Resize) -> None:
    picture = smooth(height, width)
    assert np.array_equal(squared(picture, 32, resize), resized(picture, 32, resize))


def test_pad_keeps_all_and_crop_keeps_the_middle() -> None:
    picture = np.full((60, 120), 200, np.uint8)
    padded, cropped = squared(picture, 40, "pad"), squared(picture, 40, "crop")
    assert (padded[10:30] == 200).all() and (padded[:10] == 0).all() and (padded[30:] == 0).all()
    assert (cropped == 200).all()
