"""Image tower + head: where it starts, what it learns from, which layer learns how fast."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.model.classifier import Classifier, bce_loss, class_balance, layer_scales, pos_weights, randomised, text_head, zero_head
from engine.model.zero_shot import words_by_finding, zero_shot
from engine.recipe.prompts import PromptRecipe

PROMPTS = PromptRecipe.model_validate(
    {
        "version": 1,
        "findings": {
            "Edema": {"positive": ["edema", "pulmonary edema"], "negative": ["no edema"]},
            "Nodule": {"positive": ["a nodule"], "negative": ["no nodule", "clear lungs"]},
        },
    }
)


@pytest.fixture(scope="module")
def bundle(random_bundle, tmp_path_factory):
    return random_bundle(tmp_path_factory.mktemp("toy") / "toy")


@pytest.fixture(scope="module")
def pictures():
    return list(np.random.default_rng(0).integers(0, 255, (5, 40, 36), dtype=np.uint8))


def words(bundle):
    return words_by_finding(PROMPTS, lambda texts: bundle.text_features(texts).numpy())


def test_the_text_head_scores_as_zero_shot_does(bundle, pictures):
    features = bundle.image_features(bundle.pixels(pictures)).numpy()
    expected = zero_shot(features, words(bundle), score="softmax_pair", pool="mean_embed", scale=bundle.logit_scale)
    head = text_head(("Nodule", "Edema"), words(bundle), bundle.logit_scale)
    np.testing.assert_allclose(head.scores(features), expected[:, ::-1], atol=1e-5)


def test_a_finding_without_phrases_cannot_start_from_text(bundle):
    with pytest.raises(ConfigError, match="no positive and negative phrases for Fracture"):
        text_head(("Edema", "Fracture"), words(bundle), 10.0)


def test_the_module_and_its_stored_head_give_the_same_scores(bundle, pictures):
    head = text_head(("Edema", "Nodule"), words(bundle), bundle.logit_scale)
    module = Classifier(bundle.clip, head, bundle.logit_scale)
    with torch.inference_mode():
        logits = module(bundle.pixels(pictures))
    stored = module.head({"mode": "full"})
    features = bundle.image_features(bundle.pixels(pictures)).numpy()
    np.testing.assert_allclose(stored.scores(features), logits.sigmoid().numpy(), atol=1e-5)
    assert (stored.findings, stored.about) == (("Edema", "Nodule"), {"mode": "full"})


def test_a_zero_head_has_no_opinion_and_the_text_tower_stays_outside(bundle, pictures):
    module = Classifier(bundle.clip, zero_head(("Edema",), 32), bundle.logit_scale)
    with torch.inference_mode():
        assert torch.equal(module(bundle.pixels(pictures)), torch.zeros(5, 1))
    assert not [name for name, _ in module.named_parameters() if "text" in name]


known = st.lists(st.sampled_from([0.0, 1.0, float("nan")]), min_size=6, max_size=6)


@given(known, st.integers(0, 2**16))
def test_an_unknown_label_has_no_part_in_the_loss_and_none_in_the_gradient(labels, seed):
    target = torch.tensor(labels).view(3, 2)
    logits = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    weights = torch.tensor([0.5, 3.0])
    loss = bce_loss(logits, target, weights)
    loss.backward()
    assert torch.equal(logits.grad == 0, target.isnan())
    moved = torch.where(target.isnan(), logits.detach() + 7, logits.detach())
    assert torch.equal(bce_loss(moved, target, weights), loss.detach())
    each = [
        -float(w) * np.log(1 / (1 + np.exp(-x))) if y == 1 else -np.log(1 - 1 / (1 + np.exp(-x)))
        for x, y, w in zip(logits.flatten().tolist(), target.flatten().tolist(), weights.repeat(3), strict=True)
        if not np.isnan(y)
    ]
    assert float(loss.detach()) == pytest.approx(np.mean(each) if each else 0.0, abs=1e-5)


def test_balanced_weights_make_both_sides_weigh_the_same():
    labels = np.array([[1, 0], [1, 1], [1, np.nan], [0, np.nan]], np.float32)
    np.testing.assert_allclose(pos_weights(labels, balanced=True), [1 / 3, 1])
    np.testing.assert_array_equal(pos_weights(labels, balanced=False), [1, 1])


def test_a_bundle_says_how_common_a_finding_was_where_it_was_known():
    labels = np.array([[1, 1], [0, np.nan], [0, 0], [0, np.nan]], np.float32)
    assert class_balance(("Edema", "Nodule"), labels, balanced=True) == {
        "prevalence": {"Edema": 0.25, "Nodule": 0.5},
        "pos_weight": {"Edema": 3.0, "Nodule": 1.0},
    }


def test_every_layer_learns_slower_than_the_one_above_it(bundle):
    module = Classifier(bundle.clip, zero_head(("Edema",), 32), 10.0)
    share = layer_scales(module.layers, 0.5)
    shares = {name: share(name) for name, _ in module.named_parameters()}
    assert module.layers == 2
    for name, value in shares.items():
        expected = {"weight": 1, "bias": 1, "visual_projection.weight": 1}.get(name)
        if name.startswith("vision_model."):
            part = name.removeprefix("vision_model.").split(".")
            expected = {"embeddings": 0.125, "pre_layrnorm": 0.125, "post_layernorm": 1}.get(part[0], 0)
            if part[:2] == ["encoder", "layers"]:
                expected = 0.5 ** (2 - int(part[2]))
        assert value == expected, name
    assert set(shares.values()) == {1, 0.5, 0.25, 0.125}


def test_a_control_has_the_same_shape_and_other_weights(bundle):
    before = torch.random.get_rng_state()
    control = randomised(bundle, 5)
    assert torch.equal(torch.random.get_rng_state(), before)
    ours, theirs = bundle.clip.state_dict(), control.clip.state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: tensor.shape for name, tensor in theirs.items()}
    weight = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert not torch.equal(ours[weight], theirs[weight])
    assert torch.equal(randomised(bundle, 5).clip.state_dict()[weight], theirs[weight])
    assert control.content_hash not in (bundle.content_hash, randomised(bundle, 1).content_hash)
