"""Ensembles of toy models."""

import dataclasses

import numpy as np
import pytest
import torch

from engine.errors import ModelError
from engine.scoring.scorers import joint_hash, prob_mean, weight_soup


@pytest.fixture(scope="module")
def bundles(random_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("members")
    return [random_bundle(folder / f"member{seed}", seed=seed) for seed in range(3)]


def test_every_weight_is_the_mean_of_the_members(bundles):
    soup = weight_soup(bundles)
    for name, tensor in soup.clip.state_dict().items():
        members = torch.stack([bundle.clip.state_dict()[name].double() for bundle in bundles])
        assert torch.allclose(tensor.double(), members.mean(dim=0), atol=1e-7), name


def test_the_members_stay_as_they_were(bundles):
    before = bundles[0].clip.visual_projection.weight.clone()
    weight_soup(bundles)
    assert torch.equal(bundles[0].clip.visual_projection.weight, before)


def test_a_soup_of_equals_scores_as_each_of_them(bundles):
    pictures = [np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)]
    soup = weight_soup([bundles[1]] * 3)
    assert torch.allclose(soup.image_features(soup.pixels(pictures)), bundles[1].image_features(bundles[1].pixels(pictures)), atol=1e-6)
    assert weight_soup(bundles[:1]) is bundles[0]


def test_the_order_of_the_members_does_not_count(bundles):
    assert weight_soup(bundles).content_hash == weight_soup(bundles[::-1]).content_hash
    assert weight_soup(bundles).content_hash not in {bundle.content_hash for bundle in bundles}
    assert joint_hash(["a", "b"], "prob_mean") != joint_hash(["a", "b"], "weight_soup")


def test_another_architecture_is_refused(random_bundle, bundles, tmp_path):
    with pytest.raises(ModelError, match="another architecture"):
        weight_soup([bundles[0], random_bundle(tmp_path / "larger", size=64)])


def test_another_preprocessing_is_refused(bundles):
    padded = dataclasses.replace(bundles[1], preprocessing=dataclasses.replace(bundles[1].preprocessing, resize="pad"))
    with pytest.raises(ModelError, match="other pixels"):
        weight_soup([bundles[0], padded])


def test_nothing_makes_no_soup():
    with pytest.raises(ModelError, match="no models"):
        weight_soup([])


def test_scores_are_averaged_study_by_study():
    assert prob_mean([[[0.2, 0.4]], [[0.6, 0.0]]]) == pytest.approx(np.array([[0.4, 0.2]]))
