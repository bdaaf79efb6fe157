"""Files of one checkpoint (see checkpoint.py): written atomically, listed with their hashes in a manifest, never opened as a pickle."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from engine.errors import ModelError, OutputError

FORMAT = 2
"""Format 1, never released, kept optimizer state by number."""
WEIGHTS, STATE, MANIFEST = "weights.safetensors", "state.pt", "manifest.json"


def write_files(target: Path, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any], identity: Mapping[str, str]) -> None:
    """Write the checkpoint after `step` steps to a temporary folder, sync it, and rename it to `target`.

    Raises:
        OutputError: it cannot be written; the temporary folder is removed.
    """
    beside = target.parent / f".{target.name}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)  # left by a run that was killed while it saved
        beside.mkdir()
        _write(beside / WEIGHTS, safetensors.torch.save(dict(weights)))
        stream = BytesIO()
        torch.save(dict(state), stream)
        _write(beside / STATE, stream.getbuffer())
        files = {name: {"sha256": _sha256(beside / name), "bytes": (beside / name).stat().st_size} for name in (WEIGHTS, STATE)}
        manifest = {"format": FORMAT, "step": step, "identity": dict(identity), "files": files}
        _write(beside / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True).encode())
        _sync_folder(beside)
        if target.exists():  # a damaged one of the same step
            remove(target)
        beside.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise OutputError(
            f"the checkpoint of step {step} cannot be written",
            why=error.strerror or type(error).__name__,
            hint="free some space and go on with --resume; checkpoints already saved are untouched",
        ) from error


def damage(path: Path) -> str:
    """What is wrong with the files of a checkpoint, by its manifest; "" where they are as written."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            return f"format {manifest['format']}, this version reads {FORMAT}"
        if not isinstance(manifest["identity"], dict):
            return "its manifest is damaged"
        for name in (WEIGHTS, STATE):
            written = manifest["files"][name]
            if not (path / name).is_file():
                return f"{name} is missing"
            size = (path / name).stat().st_size
            if size != written["bytes"]:
                return f"{name} has {size} bytes instead of {written['bytes']}"
            if _sha256(path / name) != written["sha256"]:
                return f"{name} does not match its sha256 {short(written['sha256'])}"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        return "its manifest is damaged"
    return ""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The module's state.

    Raises:
        ModelError: the file is not in the safetensors format.
    """
    try:
        weights: dict[str, Tensor] = safetensors.torch.load_file(path / WEIGHTS)
        return weights
    except (SafetensorError, OSError, ValueError) as error:
        raise unusable(
            path, f"{WEIGHTS} is not a safetensors file", "a checkpoint that this program wrote; a pickle is never opened"
        ) from error


def read_state(path: Path) -> dict[str, Any]:
    """`optimizer`, `rng` and `step`.

    Raises:
        ModelError: one of them is not there, or the file holds more than tensors and numbers.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of foreign pickles before it refuses them
            state = torch.load(path / STATE, map_location="cpu", weights_only=True)
        if isinstance(state, dict) and {"optimizer", "rng", "step"} <= set(state):
            return state
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise unusable(
            path, f"{STATE} holds more than tensors and numbers, and is not opened", "a checkpoint that this program wrote"
        ) from error
    raise unusable(path, f"{STATE} lacks the optimizer, the random states or the step", "a checkpoint that this program wrote")


def remove(path: Path) -> None:
    """Remove a checkpoint, its manifest first, so that an interrupted removal leaves no checkpoint."""
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def unusable(path: Path, why: str, hint: str) -> ModelError:
    """The error for a checkpoint that cannot be used."""
    return ModelError(f"checkpoint {path.name} cannot be used", why=why, hint=hint)


def short(digest: str | None) -> str:
    """The first 12 characters of a hash or version, for messages."""
    return "none" if digest is None else digest[:12]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
