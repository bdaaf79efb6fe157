"""What `run.json` says of a training run: device, seed and recipe at its start, and how it ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import EngineError
from engine.tables.columns import NOTICE
from engine.tables.run_log import RUN, RunLog, code_version, versions
from engine.training.parallel import is_compiled

if TYPE_CHECKING:
    from engine.recipe.finetuning import FinetuneRecipe
    from engine.recipe.pretraining import PretrainRecipe
    from engine.training.distributed import Ranks


def device_facts(device: torch.device) -> dict[str, Any]:
    """The kind and name of a device; of a CPU also the number of threads, which rounding may depend on."""
    if device.type == "cuda":
        return {"kind": "cuda", "name": torch.cuda.get_device_name(device)}
    return {"kind": device.type, "name": platform.machine(), "threads": torch.get_num_threads()}


def recipe_hash(recipe: PretrainRecipe | FinetuneRecipe) -> str:
    """SHA-256 over every key of the recipe, defaults included, except `compute` and `logging`, which do not change what is learned."""
    return hashlib.sha256(recipe.model_dump_json(exclude={"compute", "logging"}).encode()).hexdigest()


def stored_recipe(out: Path) -> dict[str, Any] | None:
    """The recipe of the run in a folder, as its run.json has it; None where there is none."""
    try:
        stored = json.loads((out / RUN).read_text("utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stored if isinstance(stored, dict) else None


def changed_keys(out: Path, recipe: PretrainRecipe | FinetuneRecipe) -> list[str]:
    """Dotted keys in which a recipe differs from that of the run in a folder, without `compute` and `logging`."""
    stored = stored_recipe(out)
    if stored is None:
        return []
    here, there = (_leaves(each) for each in (recipe.model_dump(mode="json"), stored))
    keys = [key for key in dict.fromkeys((*here, *there)) if here.get(key) != there.get(key)]
    return [key for key in keys if not key.startswith(("compute.", "logging."))]


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted key -> value of every plain value of nested sections and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if not items:
        return {path: value}
    return {inner: leaf for key, each in items for inner, leaf in _leaves(each, f"{path}.{key}" if path else str(key)).items()}


def run_identity(recipe: PretrainRecipe | FinetuneRecipe) -> dict[str, str]:
    """What must be equal for a run to go on from a checkpoint, as far as it is known before the data are read."""
    return {"recipe": recipe_hash(recipe), "code": code_version()}


def training_facts(recipe: PretrainRecipe | FinetuneRecipe, device: torch.device) -> dict[str, Any]:
    """What is known of a training run before its first step."""
    return {
        "notice": NOTICE,
        "versions": versions(),
        "device": device_facts(device),
        "seed": recipe.seed,
        "recipe_hash": recipe_hash(recipe),
        "recipe": recipe.model_dump(mode="json"),
    }


def pretraining_facts(recipe: PretrainRecipe, device: torch.device, ranks: Ranks) -> dict[str, Any]:
    """The same of a pretraining run, with its processes."""
    facts = training_facts(recipe, device)
    facts["device"] |= {"processes": ranks.world, "compiled": is_compiled(recipe.compute, device)}
    return {"steps": 0, **facts}


@contextlib.contextmanager
def outcome_recorded(log: RunLog, device: torch.device, memory_hint: str) -> Iterator[None]:
    """Write the status of the run to `run.json` when the block ends: finished, failed or stopped.

    An error while this is written does not hide the first one; the disk may be what failed.

    Args:
        memory_hint: what reduces the memory of a step.

    Raises:
        EngineError: the device's memory is too small.
    """
    try:
        yield
        log.update(status="finished")
    except BaseException as error:
        is_ours = isinstance(error, EngineError)
        with contextlib.suppress(EngineError):
            status = "failed" if isinstance(error, Exception) else "stopped"
            log.update(status=status, error=str(error) if is_ours else type(error).__name__)
        if isinstance(error, torch.OutOfMemoryError):
            raise EngineError(f"the {device.type} has too little memory for a step", hint=memory_hint) from error
        raise


def memory_hint(recipe: PretrainRecipe) -> str:
    """The settings that reduce the memory of a step, those that do not change what is learned first."""
    batch, compute = recipe.batch, recipe.compute
    half = max(1, (compute.micro_batch or batch.paired + batch.unpaired) // 2)
    free = [f"--set compute.micro_batch={half}"] if half > 1 or compute.micro_batch != 1 else []
    if not compute.checkpoint_activations:
        free.append("--set compute.checkpoint_activations=true")
    same = f"{' or '.join(free)}, which do not change what is learned and may be used with --resume; " if free else ""
    return f"{same}else a smaller batch.paired and batch.unpaired (now {batch.paired} and {batch.unpaired})"
