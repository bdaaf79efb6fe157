"""What a run leaves to read: `log.jsonl`, one event a line as it happens, and `run.json`, what was run on what with which versions."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import EngineError
from engine.tables.atomic import publish
from engine.training.parallel import is_compiled

if TYPE_CHECKING:
    from engine.recipe.pretraining import PretrainRecipe
    from engine.training.distributed import Ranks


LOG, RUN = "log.jsonl", "run.json"


class RunRecord:
    """The log and the summary of one run in its folder.

    The summary is written at every `say`, so that it also tells of a run that was killed. A log that can no longer be written (a full
    disk) does not end the run: checkpoints are what must be kept, and they answer for themselves.

    Attributes:
        waits: True holds the summary back: what an earlier run wrote there stays until this one is let in.
        is_kept: False writes nothing: the record of a process beside the first.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], *, waits: bool = False, is_kept: bool = True) -> None:
        self.folder, self.waits, self.is_kept = folder, waits, is_kept
        self.facts: dict[str, Any] = {"status": "running", "seconds": 0.0, **facts}
        self._begun = time.monotonic()
        self.log_lines_lost = 0
        self.say()

    def say(self, **facts: Any) -> None:
        """Add facts to `run.json` and write it anew, whole, unless it waits."""
        self.facts |= facts | {"seconds": round(time.monotonic() - self._begun, 3)}
        if self.waits or not self.is_kept:
            return
        if self.log_lines_lost:
            self.facts["log_lines_lost"] = self.log_lines_lost
        text = json.dumps(plain(self.facts), indent=2, ensure_ascii=False) + "\n"
        publish(self.folder / RUN, lambda stream: stream.write(text.encode()))

    def log(self, event: object) -> None:
        """Append one event (a dataclass) as one line, with its kind and the seconds since the run began."""
        if not self.is_kept:
            return
        line = {"event": type(event).__name__.lower(), "at": round(time.monotonic() - self._begun, 3), **plain(event)}
        try:
            append_line(self.folder / LOG, json.dumps(line, ensure_ascii=False))
        except OSError:
            self.log_lines_lost += 1


def append_line(path: Path, line: str) -> None:
    """Append one line; what a kill left of the last one is ended first, so that every other line stays whole."""
    with path.open("a+b") as file:
        if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
            file.write(b"\n")
        file.write(line.encode() + b"\n")


def plain(value: Any) -> Any:
    """The value in JSON's own types; NaN and infinity, which JSON lacks, become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def code_version() -> str:
    """The version of mmclip that runs; "source" where it runs from a checkout without being installed."""
    try:
        return metadata.version("mmclip")
    except metadata.PackageNotFoundError:
        return "source"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python, mmclip and those of the packages that are installed, without importing any."""
    found = {"python": platform.python_version(), "mmclip": code_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_facts(device: torch.device) -> dict[str, Any]:
    """What was computed on: kind, name, and on a CPU the number of threads, which rounding may depend on."""
    if device.type == "cuda":
        return {"kind": "cuda", "name": torch.cuda.get_device_name(device)}
    return {"kind": device.type, "name": platform.machine(), "threads": torch.get_num_threads()}


# The account of a run, as `run.json` keeps it: how it ended, and what of a pretraining run is known before its data are.

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
