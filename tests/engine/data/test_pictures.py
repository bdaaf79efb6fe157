from __future__ import annotations

import io
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.data.pictures import is_dicom, picture_of, squared
from engine.dicom.policy import Refusal
from engine.model.preprocessing import resized

Resize = Literal["squash", "pad", "crop"]


def png(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


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


def test_eight_bit_grey_of_the_right_size_is_kept_as_it_is() -> None:
    picture = smooth(64, 64)
    assert np.array_equal(picture_of(png(picture), 64, "squash"), picture)


def test_twelve_bits_in_a_sixteen_bit_file_use_the_whole_grey_scale() -> None:
    picture = smooth(64, 64)
    twelve = (picture.astype(np.uint16) - picture.min()) * 16
    made = picture_of(png(twelve), 64, "squash")
    low, high = int(picture.min()), int(picture.max())
    assert made.min() == 0 and made.max() == 255
    assert np.abs(made - (picture.astype(float) - low) * 255 / (high - low)).max() <= 1


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "empty_file"),
        (b"a page of text", "not_dicom"),
        (png(smooth(64, 64))[:900], "truncated"),
        (png(np.full((64, 64), 7, np.uint8)), "degenerate_image"),
    ],
)
def test_what_is_no_picture_has_its_reason(raw: bytes, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        picture_of(raw, 32, "squash")
    assert refused.value.code == code


def test_dicom_is_told_by_content() -> None:
    assert is_dicom(bytes(128) + b"DICM")
    assert not is_dicom(b"DICM")
