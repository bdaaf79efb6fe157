"""`mmclip models`, through the installed command."""

import hashlib
import json
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from engine.model.bundle import shipped_models


@pytest.fixture(scope="module")
def folder(random_bundle, tmp_path_factory):
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


@pytest.fixture(scope="module")
def checkpoint(random_bundle, tmp_path_factory):
    """A folder as transformers once wrote it: weights in a pickle, no manifest."""
    old = tmp_path_factory.mktemp("old") / "clip"
    random_bundle(old)
    torch.save(load_file(old / "model.safetensors"), old / "pytorch_model.bin")
    for name in ("model.safetensors", "mmclip.json"):
        (old / name).unlink()
    return old


def test_import_makes_a_bundle_that_show_knows(mmclip, checkpoint):
    done = mmclip("models", "import", checkpoint, "--out", "mine", "--size", 48, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["name"], said["written"], said["preprocessing"]["size"], said["context"]) == ("mine", True, 48, 32)
    assert said["imported"]["sha256"] == hashlib.sha256((checkpoint / "pytorch_model.bin").read_bytes()).hexdigest()
    shown = json.loads(mmclip("models", "show", "mine", "--json").stdout)
    assert (shown["name"], shown["image_size"], shown["provenance"]["imported"]) == ("mine", 48, said["imported"])
    assert mmclip("models", "show", "mine").stdout.startswith("# mine")


def test_a_dry_run_says_the_same_and_writes_nothing(mmclip, checkpoint):
    done = mmclip("models", "import", checkpoint, "--out", "mine", "--name", "other", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("other")
    assert "would be written to mine" in done.stdout
    assert list(mmclip.folder.iterdir()) == []


def test_import_writes_over_nothing(mmclip, checkpoint):
    (mmclip.folder / "mine").mkdir()
    (mmclip.folder / "mine" / "letter.txt").write_text("dear")
    done = mmclip("models", "import", checkpoint, "--out", "mine")
    assert done.returncode == 73
    assert (mmclip.folder / "mine" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(("source", "code"), [("tinny", 66), ("evil.pt", 78), ("old.pt", 78), ("words.pt", 78)])
def test_a_source_that_cannot_be_taken_is_one_line_and_a_code(mmclip, source, code):
    canary = mmclip.folder / "canary"
    with zipfile.ZipFile(mmclip.folder / "evil.pt", "w") as file:
        file.writestr("evil/data.pkl", b"\x80\x02cos\nmkdir\nX\x06\0\0\0canary\x85R.")
    (mmclip.folder / "old.pt").write_bytes(b"\x80\x02cos\nmkdir\nX\x06\0\0\0canary\x85R.")
    (mmclip.folder / "words.pt").write_text("no weights")
    done = mmclip("models", "import", source, "--out", "mine")
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1
    assert not canary.exists()
    assert not (mmclip.folder / "mine").exists()


def test_an_option_that_is_no_choice_is_usage(mmclip, checkpoint):
    assert mmclip("models", "import", checkpoint, "--out", "mine", "--preprocessing", "imagenet").returncode == 2


def test_a_hugging_face_id_is_taken_from_the_cache_without_network(mmclip, checkpoint):
    """The cache as huggingface_hub keeps it: a repository with pickled weights alone, fetched some other day."""
    repository = mmclip.folder / "hub" / "models--someone--old-clip"
    shutil.copytree(checkpoint, repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    offline = {"HF_HUB_CACHE": str(mmclip.folder / "hub"), "HF_HUB_OFFLINE": "1"}
    done = mmclip("models", "import", "someone/old-clip", "--out", "mine", "--json", **offline)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["imported"]["file"] == "pytorch_model.bin"
    done = mmclip("models", "import", "someone/other", "--out", "other", **offline)
    assert done.returncode == 66
    assert "check the id and the network" in done.stderr
