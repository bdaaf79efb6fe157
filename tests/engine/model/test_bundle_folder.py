"""A model folder on disk: found by name or path, whole or refused, without torch."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import InputMissing, ModelError
from engine.model.bundle_folder import (
    check_complete,
    check_whole,
    content_hash,
    file_hash,
    local_folder,
    read_manifest,
    read_preprocessing,
    shipped_models,
)
from engine.model.preprocessing import Preprocessing

STORED = {"size": 32, "resize": "pad", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
PAD = Preprocessing(32, "pad", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files and a manifest that holds the hashes of two."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "tokenizer.json").write_text("words")
    hashes = {name: file_hash(tmp_path / name) for name in ("config.json", "model.safetensors")}
    (tmp_path / "mmclip.json").write_text(json.dumps({"name": "toy", "preprocessing": STORED, "sha256": hashes}))
    return tmp_path


def test_a_path_is_itself_and_a_hub_name_is_nowhere_on_disk(tmp_path: Path) -> None:
    assert local_folder(tmp_path) == tmp_path
    assert local_folder(str(tmp_path)) == tmp_path
    assert local_folder("openai/clip-vit-base-patch16") is None


@pytest.mark.parametrize("name", ["no_such_model", "/no/such", "../no/such", "./nothing", "a/b/c"])
def test_what_is_neither_is_missing(name: str) -> None:
    with pytest.raises(InputMissing, match="no model named"):
        local_folder(name)


def test_shipped_models_are_found_by_name() -> None:
    assert shipped_models() == sorted(shipped_models())
    for name in shipped_models():
        found = local_folder(name)
        assert found is not None
        assert read_manifest(found, name)["name"] == name


def test_a_whole_folder_passes_and_a_changed_one_is_named(folder: Path) -> None:
    manifest = read_manifest(folder, "toy")
    check_complete(folder, "toy")
    check_whole(folder, manifest, "toy")
    (folder / "tokenizer.json").write_text("not in the manifest")
    check_whole(folder, manifest, "toy")
    (folder / "model.safetensors").write_bytes(b"weight5")
    with pytest.raises(ModelError, match=r"model\.safetensors of model toy is missing, truncated or altered"):
        check_whole(folder, manifest, "toy")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(ModelError, match=f"model toy has no {file}"):
        check_complete(folder, "toy")


def test_a_folder_without_manifest_has_an_empty_one(tmp_path: Path) -> None:
    assert read_manifest(tmp_path, "toy") == {}


def test_file_hash_is_sha256(folder: Path) -> None:
    assert file_hash(folder / "model.safetensors") == hashlib.sha256(b"weights").hexdigest()


def test_content_hash_covers_files_and_preprocessing_and_not_the_name(folder: Path) -> None:
    manifest = read_manifest(folder, "toy")
    found = content_hash(folder, manifest, PAD)
    assert found == content_hash(folder, manifest | {"name": "other"}, PAD)
    assert found == content_hash(folder, {}, PAD), "the same files without a manifest"
    assert found != content_hash(folder, manifest, Preprocessing(32, "crop", PAD.mean, PAD.std))
    (folder / "tokenizer.json").write_text("other words")
    assert found != content_hash(folder, manifest, PAD)


def test_preprocessing_comes_from_the_manifest_before_the_processor(folder: Path) -> None:
    processor = {"size": 32, "crop_size": 32, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 2]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    assert read_preprocessing(folder, read_manifest(folder, "toy"), 32, "toy") == PAD
    found = read_preprocessing(folder, {}, 32, "toy")
    assert (found.resize, found.resample) == ("crop", "bicubic")
    assert found.mean == pytest.approx((0.1, 0.2, 0.3)) and found.std == pytest.approx((1, 1, 2))


def test_the_manifest_keeps_filter_and_centre_crop(folder: Path) -> None:
    cropped = Preprocessing(32, "squash", PAD.mean, PAD.std, "bicubic", 40)
    (folder / "mmclip.json").write_text(json.dumps({"name": "toy", "preprocessing": cropped.as_dict()}))
    assert read_preprocessing(folder, read_manifest(folder, "toy"), 32, "toy") == cropped


def test_preprocessing_for_another_tower_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"the preprocessing in mmclip\.json of model toy does not fit it: it needs size 64"):
        read_preprocessing(folder, read_manifest(folder, "toy"), 64, "toy")


def test_looking_at_a_folder_needs_no_torch() -> None:
    program = "import sys, engine.model.bundle_folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
