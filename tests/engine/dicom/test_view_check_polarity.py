from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from engine.dicom.view_check import THRESHOLD, contrast


@pytest.mark.parametrize("shape", [(300, 256), (256, 300), (64, 64)])
def test_a_negative_is_told_from_a_chest(make: SimpleNamespace, shape: tuple[int, int]) -> None:
    chest = (make.chest(*shape) >> 4).astype(np.uint8)
    assert contrast(255 - chest) < THRESHOLD < 0 < contrast(chest)


def test_a_constant_image_has_no_polarity() -> None:
    assert contrast(np.full((64, 64), 9, np.uint8)) == 0.0


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=64, max_side=80), elements=st.integers(0, 255)))
def test_the_negative_has_the_negative_contrast(image: np.ndarray) -> None:
    assert contrast(255 - image) == pytest.approx(-contrast(image), abs=1e-9)
