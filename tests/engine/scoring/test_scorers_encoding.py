"""Pictures to features: the same to the bit whatever the neighbours, and to a hair whatever the batch."""

import dataclasses

import numpy as np
import pytest
import torch

from engine.errors import NotFinite
from engine.scoring.scorers import encode


@pytest.fixture(scope="module")
def bundle(random_bundle, tmp_path_factory):
    return random_bundle(tmp_path_factory.mktemp("model") / "toy")


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40 + k, 50), dtype=np.uint8) for k in range(11)]


def test_features_have_length_one(bundle, pictures):
    features = encode(bundle, pictures, 4)
    assert features.shape == (11, 32)
    assert features.dtype == np.float32
    assert np.linalg.norm(features, axis=1) == pytest.approx(1, abs=1e-5)


def test_neighbours_do_not_count_to_the_bit(bundle, pictures):
    whole = encode(bundle, pictures, 4)
    assert (encode(bundle, pictures[3:], 4) == whole[3:]).all()
    assert (encode(bundle, pictures[::-1], 4)[::-1] == whole).all()
    assert (encode(bundle, pictures[5:6], 4) == whole[5:6]).all()


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_batch_size_does_not_change_features(bundle, pictures, size):
    assert encode(bundle, pictures, size) == pytest.approx(encode(bundle, pictures, 8), abs=1e-6)


def test_no_pictures_are_no_features(bundle):
    assert encode(bundle, [], 8).shape == (0, 32)


def test_a_model_of_nan_is_refused(random_bundle, tmp_path, pictures):
    sick = random_bundle(tmp_path / "sick")
    with torch.no_grad():
        sick.clip.visual_projection.weight.fill_(float("nan"))
    with pytest.raises(NotFinite, match="NaN"):
        encode(sick, pictures, 4)


def test_a_full_gpu_gets_half_batches(bundle, pictures):
    def narrow(pixels):
        if len(pixels) > 3:
            raise torch.OutOfMemoryError
        return type(bundle).image_features(bundle, pixels)

    @dataclasses.dataclass(frozen=True)
    class Narrow(type(bundle)):
        """A bundle on a device that holds three pictures."""

        def image_features(self, pixels):
            return narrow(pixels)

    small = Narrow(**{each.name: getattr(bundle, each.name) for each in dataclasses.fields(bundle)})
    assert encode(small, pictures, 8) == pytest.approx(encode(bundle, pictures, 8), abs=1e-6)
