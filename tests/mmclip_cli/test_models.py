"""`mmclip models`, through the installed command."""

import json

import pytest

from engine.model.bundle import random_bundle, shipped_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    random_bundle(tmp_path_factory.mktemp("models") / "toy")
    return tmp_path_factory.getbasetemp() / "models0" / "toy"


def test_list_names_every_shipped_model(mmclip):
    found = json.loads(mmclip("models", "list", "--json").stdout)["models"]
    assert [each["name"] for each in found] == shipped_models()
    assert [line.split()[0] for line in mmclip("models", "list").stdout.splitlines()] == ["name", *shipped_models()]


def test_show_tells_a_folder_s_hash_and_size(mmclip, folder):
    found = json.loads(mmclip("models", "show", folder, "--json").stdout)
    assert len(found["content_hash"]) == 64
    assert found["content_hash"] in mmclip("models", "show", folder).stdout


def test_a_damaged_model_is_78(mmclip, folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    done = mmclip("models", "show", folder)
    assert done.returncode == 78
    assert "missing, truncated or altered" in json.loads(done.stderr)["message"]


def test_a_model_of_no_such_name_is_66(mmclip):
    assert mmclip("models", "show", "tinny").returncode == 66
