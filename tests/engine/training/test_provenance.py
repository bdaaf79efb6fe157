import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import EngineError, OutputError
from engine.recipe.pretraining import PretrainRecipe
from engine.tables.run_log import RUN, RunLog, code_version
from engine.training.distributed import SINGLE_PROCESS
from engine.training.provenance import device_facts, memory_hint, outcome_recorded, pretraining_facts, recipe_hash, run_identity

CPU = torch.device("cpu")


def recipe(**changes: Any) -> PretrainRecipe:
    settings = {
        "version": 1,
        "steps": 6,
        "sources": [{"kind": "table", "file": "none"}],
        "tokenizer": {"vocab": 300},
        "batch": {"paired": 4, "unpaired": 2},
    }
    return PretrainRecipe.model_validate(settings | changes)


def told(folder: Path) -> Any:
    return json.loads((folder / RUN).read_text())


def test_a_recipe_is_another_by_what_changes_what_is_learned_alone() -> None:
    same = recipe(compute={"micro_batch": 2}, logging={"vitals_every": 3})
    assert recipe_hash(same) == recipe_hash(recipe())
    assert len({recipe_hash(each) for each in (recipe(), recipe(seed=1), recipe(steps=7), recipe(batch={"paired": 4}))}) == 4
    assert run_identity(recipe()) == {"recipe": recipe_hash(recipe()), "code": code_version()}


@pytest.mark.parametrize(("compile_", "is_compiled"), [("auto", False), ("always", True), ("never", False)])
def test_a_run_opens_with_what_it_runs_on(compile_: str, is_compiled: bool) -> None:
    facts = pretraining_facts(recipe(seed=3, compute={"compile": compile_}), CPU, SINGLE_PROCESS)
    assert (facts["seed"], facts["steps"]) == (3, 0)
    assert (facts["device"]["kind"], facts["device"]["processes"], facts["device"]["compiled"]) == ("cpu", 1, is_compiled)
    assert facts["recipe"]["batch"]["paired"] == 4
    assert facts["notice"].startswith("RESEARCH USE ONLY")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (EngineError("the prompts are too long"), "failed", "the prompts are too long."),
        (ValueError("a name in a cell"), "failed", "ValueError"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
    ],
)
def test_whatever_ends_a_run_is_told_and_a_strangers_words_are_not(tmp_path: Path, error: BaseException, status: str, words: str) -> None:
    with pytest.raises(type(error)), outcome_recorded(RunLog(tmp_path, {}), CPU, ""):
        raise error
    assert (told(tmp_path)["status"], told(tmp_path)["error"]) == (status, words)


def test_a_run_that_ends_well_is_finished(tmp_path: Path) -> None:
    with outcome_recorded(RunLog(tmp_path, {}), CPU, ""):
        pass
    assert told(tmp_path)["status"] == "finished"


def test_a_record_that_cannot_be_written_hides_no_error(tmp_path: Path) -> None:
    log = RunLog(tmp_path, {})
    (tmp_path / RUN).unlink()
    (tmp_path / RUN).mkdir()
    with pytest.raises(OutputError):
        log.update()
    with pytest.raises(ZeroDivisionError), outcome_recorded(log, CPU, ""):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("compute", "settings"),
    [
        ({}, ["compute.micro_batch=3", "compute.checkpoint_activations=true", "batch.paired and batch.unpaired (now 4 and 2)"]),
        ({"micro_batch": 2, "checkpoint_activations": True}, ["compute.micro_batch=1", "batch.paired"]),
        ({"micro_batch": 1, "checkpoint_activations": True}, ["a smaller batch.paired"]),
    ],
)
def test_too_little_memory_names_the_settings_to_lower(tmp_path: Path, compute: dict[str, Any], settings: list[str]) -> None:
    log = RunLog(tmp_path, {})
    with (
        pytest.raises(EngineError, match="the cuda has too little memory for a step") as refused,
        outcome_recorded(log, torch.device("cuda"), memory_hint(recipe(compute=compute))),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert all(setting in str(refused.value) for setting in settings)
    assert ("micro_batch" in str(refused.value)) == (compute.get("micro_batch") != 1)
    assert told(tmp_path)["status"] == "failed"


def test_a_cpu_is_recorded_with_its_threads() -> None:
    assert device_facts(CPU)["threads"] == torch.get_num_threads()
