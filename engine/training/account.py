"""The account of a run, as `run.json` keeps it: how it ended, and what of a pretraining run is known before its data are."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import EngineError
from engine.training.blocks import is_compiled
from engine.training.record import RunRecord, code_version, device_facts, versions

if TYPE_CHECKING:
    from engine.recipe.pretraining import PretrainRecipe
    from engine.training.distributed import Ranks

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "polars", "pillow", "spacy", "scispacy")


def recipe_hash(recipe: PretrainRecipe) -> str:
    """A sha256 over every key of the recipe, defaults included, less those of `compute` and `logging`, which change nothing learned."""
    return hashlib.sha256(recipe.model_dump_json(exclude={"compute", "logging"}).encode()).hexdigest()


def identity_of(recipe: PretrainRecipe) -> dict[str, str]:
    """What must be equal for a run to go on from a checkpoint, as far as it is known before its data are."""
    return {"recipe": recipe_hash(recipe), "code": code_version()}


def facts_of(recipe: PretrainRecipe, device: torch.device, ranks: Ranks) -> dict[str, Any]:
    """What `run.json` opens with."""
    return {
        "notice": "RESEARCH USE ONLY - not for clinical use",
        "versions": versions(PACKAGES),
        "device": device_facts(device) | {"processes": ranks.world, "compiled": is_compiled(recipe.compute, device)},
        "seed": recipe.seed,
        "steps": 0,
        "recipe_hash": recipe_hash(recipe),
        "recipe": recipe.model_dump(mode="json"),
    }


@contextlib.contextmanager
def accounted(record: RunRecord, device: torch.device, lighter: str) -> Iterator[None]:
    """Writes to `run.json` how the run ended, whatever ended it; the disk may be what failed, so that is no second error.

    Args:
        lighter: what lessens a step's memory, for the hint.

    Raises:
        EngineError: the device's memory is too small.
    """
    try:
        yield
        record.say(status="finished")
    except BaseException as error:
        is_ours = isinstance(error, EngineError)
        with contextlib.suppress(EngineError):
            status = "failed" if isinstance(error, Exception) else "stopped"
            record.say(status=status, error=str(error) if is_ours else type(error).__name__)
        if isinstance(error, torch.OutOfMemoryError):
            raise EngineError(f"the {device.type} has too little memory for a step", hint=lighter) from error
        raise


def lighter_settings(recipe: PretrainRecipe) -> str:
    """The settings that lessen a step's memory, those that change nothing else first."""
    batch, compute = recipe.batch, recipe.compute
    half = max(1, (compute.micro_batch or batch.paired + batch.unpaired) // 2)
    free = [f"--set compute.micro_batch={half}"] if half > 1 or compute.micro_batch != 1 else []
    if not compute.checkpoint_activations:
        free.append("--set compute.checkpoint_activations=true")
    same = f"{' or '.join(free)}, which change nothing that is learned and may go on with --resume; " if free else ""
    return f"{same}else a smaller batch.paired and batch.unpaired (now {batch.paired} and {batch.unpaired})"
