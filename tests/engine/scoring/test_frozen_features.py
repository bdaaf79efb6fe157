"""Features that are computed once."""

import numpy as np
import pytest

from engine.errors import NotFinite
from engine.model.bundle import random_bundle
from engine.scoring.frozen_features import kept_features
from engine.scoring.scorers import encode


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return random_bundle(tmp_path_factory.mktemp("toy") / "toy")


PICTURES = list(np.random.default_rng(0).integers(0, 255, (6, 32, 32), dtype=np.uint8))
CONTENTS = [f"sha{number}" for number in range(6)]


def kept(bundle, numbers, folder, asked):
    def picture(place):
        asked.append(numbers[place])
        return PICTURES[numbers[place]]

    return kept_features(bundle, [CONTENTS[number] for number in numbers], picture, folder, 4)


def test_a_picture_is_asked_for_once_and_found_by_its_content(bundle, tmp_path):
    asked = []
    first = kept(bundle, [0, 1, 2, 1], tmp_path, asked)
    np.testing.assert_allclose(first, encode(bundle, [PICTURES[number] for number in (0, 1, 2, 1)], 4), atol=1e-6)
    assert sorted(asked) == [0, 1, 2]
    again = kept(bundle, [3, 2, 0], tmp_path, asked)
    assert sorted(asked) == [0, 1, 2, 3]
    np.testing.assert_array_equal(again[1:], first[[2, 0]])
    assert kept(bundle, [], tmp_path, asked).shape == (0, 32)


def test_another_model_has_features_of_its_own(bundle, tmp_path):
    other = random_bundle(tmp_path / "other", seed=1)
    asked = []
    ours, theirs = kept(bundle, [0], tmp_path, asked), kept(other, [0], tmp_path, asked)
    assert asked == [0, 0]
    assert not np.allclose(ours, theirs)


def test_a_torn_file_is_computed_anew(bundle, tmp_path):
    first = kept(bundle, [0, 1], tmp_path, [])
    (file,) = tmp_path.glob("features-*.npz")
    file.write_bytes(file.read_bytes()[:-50])
    asked = []
    np.testing.assert_array_equal(kept(bundle, [0, 1], tmp_path, asked), first)
    assert asked == [0, 1]


def test_nan_is_never_kept(tmp_path):
    broken = random_bundle(tmp_path / "broken")
    broken.clip.visual_projection.weight.data[:] = float("nan")
    with pytest.raises(NotFinite):
        kept(broken, [0], tmp_path, [])
    assert not list(tmp_path.glob("features-*.npz"))
