"""`mmclip doctor`, through the installed command."""

import json
from importlib.metadata import version

from engine.model.bundle import shipped_models
from mmclip_cli.doctor import _site_key


def test_doctor_tells_what_it_finds(mmclip):
    done = mmclip("doctor", "--json")
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert found["mmclip"] == version("mmclip")
    assert found["packages"]["pydicom"] == version("pydicom")
    assert {"torch", "typer", "pydicom", "simpleitk", "scispacy", "spacy", "polars", "tqdm", "pyyaml", "onnx"} <= found["packages"].keys()
    assert "pytest" not in found["packages"]  # of an extra
    assert found["models"].keys() == set(shipped_models())
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    assert found["worker_processes"] == "start and answer"
    assert found["amiss"] == []


def test_doctor_for_people_says_the_same_and_never_the_site_key(mmclip):
    done = mmclip("doctor", MMCLIP_SITE_KEY="very-secret")
    assert version("mmclip") in done.stdout
    assert "given in MMCLIP_SITE_KEY" in done.stdout
    assert "very-secret" not in done.stdout + done.stderr


def test_the_site_key_is_looked_for_and_not_made(tmp_path, monkeypatch):
    monkeypatch.delenv("MMCLIP_SITE_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert "not made yet" in _site_key()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mmclip").mkdir()
    (tmp_path / "mmclip/site.key").touch()
    assert _site_key() == "in the configuration folder"


def test_no_home_at_all_is_no_obstacle(mmclip):
    done = mmclip("doctor", "--json", HOME="", XDG_CONFIG_HOME="")
    assert done.returncode == 0
    assert "no home folder" in json.loads(done.stdout)["site_key"]
