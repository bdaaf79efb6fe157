import json
from pathlib import Path

import pytest
import torch

from engine.errors import ModelError, OutputError
from engine.training.checkpoint_files import MANIFEST, STATE, WEIGHTS, damage, read_state, read_weights, remove, write_files

STATES = {"optimizer": {"kind": "SGD", "states": {}}, "rng": {"cpu": torch.get_rng_state()}, "step": 4}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_files(tmp_path / "runs" / "step", 4, {"weight": torch.arange(6.0)}, STATES, {"recipe": "a"})
    return tmp_path / "runs" / "step"


def test_what_was_written_is_read_and_nothing_stands_beside_it(written: Path) -> None:
    assert damage(written) == ""
    assert torch.equal(read_weights(written)["weight"], torch.arange(6.0))
    assert read_state(written)["step"] == 4
    assert {file.name for file in written.iterdir()} == {WEIGHTS, STATE, MANIFEST}
    assert [each.name for each in written.parent.iterdir()] == ["step"]


@pytest.mark.parametrize("name", [WEIGHTS, STATE, MANIFEST])
def test_every_missing_cut_or_changed_file_is_damage_by_its_name(written: Path, name: str) -> None:
    content = (written / name).read_bytes()
    (written / name).write_bytes(content[:-1])
    assert ("bytes instead of" if name != MANIFEST else "manifest is damaged") in damage(written)
    (written / name).write_bytes(bytes([*content[:-1], content[-1] ^ 1]))
    assert damage(written)
    (written / name).unlink()
    assert damage(written) == f"{name} is missing"


@pytest.mark.parametrize(
    ("change", "words"), [({"format": 1}, "format 1, this version reads 2"), ({"identity": []}, "manifest is damaged")]
)
def test_a_manifest_of_another_time_is_damage(written: Path, change: dict[str, object], words: str) -> None:
    manifest = json.loads((written / MANIFEST).read_text())
    (written / MANIFEST).write_text(json.dumps(manifest | change))
    assert words in damage(written)


def test_a_state_without_its_parts_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path / "step", 4, {"weight": torch.zeros(1)}, {"step": 4}, {})
    assert damage(tmp_path / "step") == ""
    with pytest.raises(ModelError, match="lacks the optimizer"):
        read_state(tmp_path / "step")


def test_a_place_that_cannot_be_written_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="step 4 cannot be written"):
        write_files(tmp_path / "runs" / "step", 4, {"weight": torch.zeros(1)}, STATES, {})
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]


def test_a_removed_one_is_gone_and_may_be_removed_again(written: Path) -> None:
    remove(written)
    assert not written.exists()
    remove(written)
