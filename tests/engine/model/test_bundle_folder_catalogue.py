"""What a model folder says about itself, without being loaded."""

import json
import shutil

import pytest

from engine.errors import InputMissing, ModelError
from engine.model.bundle import load_bundle
from engine.model.bundle_folder import describe


@pytest.fixture(scope="module")
def made(random_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "toy"
    return folder, random_bundle(folder)


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "toy")


def test_a_description_agrees_with_the_loaded_model(made):
    folder, bundle = made
    found = describe(folder)
    assert found.content_hash == bundle.content_hash == load_bundle(folder).content_hash
    assert found.parameters == sum(weight.numel() for weight in bundle.clip.state_dict().values())
    assert (found.image_size, found.text_tokens) == (bundle.preprocessing.size, bundle.context)
    assert (found.name, found.card) == (bundle.name, bundle.card)
    assert found.preprocessing == bundle.preprocessing.as_dict()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_flipped_bit_is_found(folder, file):
    raw = bytearray((folder / file).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / file).write_bytes(raw)
    with pytest.raises(ModelError, match=f"{file} of model toy is missing, truncated or altered"):
        describe(folder)


@pytest.mark.parametrize("raw", [b"", b"\x80\x04pickle", b"\xff" * 16, b"\x08\0\0\0\0\0\0\0[1,2,3] "])
def test_weights_that_are_no_safetensors_are_refused(folder, raw):
    (folder / "model.safetensors").write_bytes(raw)
    (folder / "mmclip.json").unlink()
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        describe(folder)


@pytest.mark.parametrize("config", ["", "[]", '{"vision_config": 3, "text_config": {}}', json.dumps({"text_config": {}})])
def test_a_configuration_of_something_else_is_refused(folder, config):
    (folder / "config.json").write_text(config)
    (folder / "mmclip.json").unlink()
    with pytest.raises(ModelError, match="no CLIP configuration"):
        describe(folder)


def test_a_model_that_is_not_here_is_missing_input(tmp_path):
    with pytest.raises(InputMissing):
        describe(tmp_path / "nothing")
    with pytest.raises(InputMissing, match="not on this machine"):
        describe("someone/something")


def test_a_folder_without_weights_says_what_it_lacks(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        describe(folder)
