"""The head of a classifier, alone and in a bundle."""

import json

import numpy as np
import pytest
from transformers import CLIPModel

from engine.errors import ModelError, NotFinite
from engine.model.bundle import load_bundle, save_bundle
from engine.model.bundle_folder import MANIFEST
from engine.model.head import HEAD, Head, findings_of


@pytest.fixture
def head():
    rng = np.random.default_rng(0)
    return Head(("Edema", "Nodule"), rng.normal(size=(2, 32)).astype(np.float32), np.array([0.5, -1], np.float32), {"mode": "linear"})


@pytest.fixture
def saved(random_bundle, tmp_path, head):
    base = random_bundle(tmp_path / "base")
    save_bundle(tmp_path / "classifier", base.clip, base.tokenizer, base.preprocessing, name="toy", head=head)
    return base, tmp_path / "classifier"


def test_scores_are_the_sigmoid_of_the_logits_whatever_stands_beside_a_row(head):
    features = np.random.default_rng(1).normal(size=(5, 32)).astype(np.float32)
    expected = 1 / (1 + np.exp(-(features.astype(np.float64) @ head.weight.T + head.bias)))
    np.testing.assert_allclose(head.scores(features), expected, atol=1e-12)
    assert np.array_equal(head.scores(features)[2:3], head.scores(features[2:3]))
    assert np.array_equal(head.scores(features * 1e9) > 0.5, (features @ head.weight.T) > 0)


def test_nan_is_an_error_and_no_score(head):
    with pytest.raises(NotFinite):
        head.scores(np.full((1, 32), np.nan))


def test_a_bundle_keeps_its_head_and_is_still_a_clip(saved, head):
    base, folder = saved
    loaded = load_bundle(folder)
    assert loaded.head is not None
    assert loaded.head.findings == ("Edema", "Nodule")
    assert loaded.head.about == {"mode": "linear"}
    np.testing.assert_array_equal(loaded.head.weight, head.weight)
    assert base.head is None
    assert isinstance(CLIPModel.from_pretrained(folder), CLIPModel)
    assert (findings_of(folder), findings_of(folder.parent / "base"), findings_of("an-id/on-the-hub")) == (("Edema", "Nodule"), None, None)


def test_the_hash_of_a_classifier_covers_its_head(saved, head, tmp_path):
    base, folder = saved
    other = Head(head.findings, head.weight + 1, head.bias)
    save_bundle(tmp_path / "other", base.clip, base.tokenizer, base.preprocessing, name="toy", head=other)
    renamed = Head(("Edema", "Mass"), head.weight, head.bias, head.about)
    save_bundle(tmp_path / "renamed", base.clip, base.tokenizer, base.preprocessing, name="toy", head=renamed)
    hashes = {load_bundle(each).content_hash for each in (folder, tmp_path / "other", tmp_path / "renamed")} | {base.content_hash}
    assert len(hashes) == 4
    assert other.content_hash != head.content_hash != renamed.content_hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"findings": []}, "the classifier section of model classifier is not"),
        ({"findings": ["Edema", "Edema"]}, "the classifier section of model classifier is not"),
        ({"score": "softmax"}, "the classifier section of model classifier is not"),
        ({"findings": ["Edema"]}, "the head of model classifier does not fit it"),
    ],
)
def test_another_section_is_refused(saved, change, message):
    _, folder = saved
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["classifier"] |= change
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=message):
        load_bundle(folder)


def test_a_flipped_bit_and_a_missing_head_are_refused(saved):
    _, folder = saved
    raw = bytearray((folder / HEAD).read_bytes())
    raw[-1] ^= 1
    (folder / HEAD).write_bytes(raw)
    with pytest.raises(ModelError, match=r"head\.safetensors of model classifier is missing, truncated or altered"):
        load_bundle(folder)
    (folder / HEAD).unlink()
    with pytest.raises(ModelError, match=r"head\.safetensors"):
        load_bundle(folder)


def test_weights_that_are_not_finite_are_refused(saved, head, tmp_path):
    base, _ = saved
    broken = Head(head.findings, np.full_like(head.weight, np.inf), head.bias)
    save_bundle(tmp_path / "broken", base.clip, base.tokenizer, base.preprocessing, name="toy", head=broken)
    with pytest.raises(ModelError, match="NaN or infinity"):
        load_bundle(tmp_path / "broken")
