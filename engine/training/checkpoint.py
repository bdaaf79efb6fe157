"""Checkpoints: folders that are whole or absent, checked by hash, from which a run resumes to the bit.

    checkpoints/step-00001000/
        weights.safetensors    the module's state, in its own dtypes
        state.pt               optimizer state by parameter name, RNG states and step; read with `weights_only=True` only
        manifest.json          step, identity of the run, sha256 and size of both files; written last

Sharded weights are gathered first, so that a checkpoint does not depend on the number of processes and any number can resume from it.
A checkpoint is written to a temporary folder, synced and renamed: a kill or a full disk at any point leaves earlier ones untouched. No
pickle is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import ModelError, NotFinite
from engine.training.checkpoint_files import MANIFEST, damage, read_state, read_weights, remove, short, unusable, write_files
from engine.training.distributed import SINGLE_PROCESS, Ranks
from engine.training.parallel import like, whole_tensor

_PREFIX = "step-"
_NAMED = 3
"""Number of keys that an error names; the rest is counted."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint of the run after `step` steps was written to `path`."""

    step: int
    path: Path


@dataclass(frozen=True)
class Refused:
    """A checkpoint that cannot be used: the name of its folder, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        folder: holds the step folders.
        identity: what must be equal for a run to resume, by name: `recipe`, `data`, `code` and so on.
        keep: number of checkpoints to keep; older ones are removed after a newer one is written.
        forced: True resumes also where the identity differs; names and shapes of weights must still agree.
        ranks: the processes of the run; all call `save` and `load`, the first one writes.
        changed: keys of the recipe that differ from the run's, for the error of another recipe.
        hint: of that error.
    """

    folder: Path
    identity: Mapping[str, str]
    keep: int = 2
    forced: bool = False
    ranks: Ranks = SINGLE_PROCESS
    changed: tuple[str, ...] = ()
    hint: str = "the run's own recipe, or another --out"

    def steps(self) -> list[int]:
        """The steps that have a folder with a manifest, ascending; their files are not checked."""
        names = [path.parent.name for path in self.folder.glob(f"{_PREFIX}*/{MANIFEST}")]
        return sorted(int(name[len(_PREFIX) :]) for name in names if name[len(_PREFIX) :].isdigit())

    def path(self, step: int) -> Path:
        """The folder of the checkpoint after `step` steps."""
        return self.folder / f"{_PREFIX}{step:08d}"

    def save(self, step: int, module: nn.Module, optimizer: torch.optim.Optimizer) -> Saved:
        """Write the run after `step` finished steps, then remove what is older than the last `keep`.

        Raises:
            NotFinite: a weight is NaN or infinite; nothing is written.
            OutputError: the folder cannot be written; earlier checkpoints are untouched.
        """
        weights, state = _weights(module), _optimizer_state(module, optimizer)
        rng = _rng_states(module)
        self.ranks.first(lambda: self._write(step, weights, {"optimizer": state, "rng": rng, "step": step}))
        return Saved(step, self.path(step))

    def _write(self, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        broken = _not_finite(weights)
        if broken:
            raise NotFinite(f"the weights after step {step} are not finite", why=f"first in {broken[0]}", hint="a lower optimizer.lr")
        write_files(self.path(step), step, weights, state, self.identity)
        for old in self.steps()[: -self.keep]:
            remove(self.path(old))

    def last_good(self) -> tuple[int, list[Refused]]:
        """The newest step whose files match their hashes (0: there is none), and the newer checkpoints that do not.

        Raises:
            ModelError: there are checkpoints and none is sound.
        """
        refused: list[Refused] = []
        for step in reversed(self.steps()):
            fault = damage(self.path(step))
            if not fault:
                return step, refused
            refused.append(Refused(self.path(step).name, fault))
        if not refused:
            return 0, []
        raise ModelError(
            "no checkpoint of this run is sound",
            why="; ".join(f"{one.name}: {one.reason}" for one in refused[:_NAMED]),
            hint="start again with another --out, or without --resume in an empty folder",
        )

    def differences(self, step: int) -> dict[str, str]:
        """How the identity of the checkpoint after `step` steps differs: name -> its value there and here.

        Compares the names that `identity` holds, which may be some of them while the others are not known yet. Empty for a damaged
        checkpoint, which `last_good` and `load` report.
        """
        try:
            found = dict(json.loads((self.path(step) / MANIFEST).read_bytes())["identity"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {
            name: f"{short(found.get(name))} there, {short(here)} here" for name, here in self.identity.items() if found.get(name) != here
        }

    def check_identity(self, step: int) -> None:
        """Check that the checkpoint after `step` steps is of the same recipe, data and code, unless forced.

        Raises:
            ModelError: names what differs.
        """
        other = {} if self.forced else self.differences(step)
        if other:
            keys = f"; keys that differ: {', '.join(self.changed[:8])}" if self.changed and "recipe" in other else ""
            hows = ", ".join(f"{name} {how}" for name, how in other.items())
            raise unusable(self.path(step), f"it belongs to a run with another {' and '.join(other)} ({hows}){keys}", self.hint)

    def load(self, step: int, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Restore module, optimizer and random states as they were after `step` steps.

        Everything is checked before anything is changed.

        Raises:
            ModelError: the checkpoint is damaged, pickled, of another run, of another shape, or not finite.
        """
        path = self.path(step)
        if fault := damage(path):
            raise unusable(path, fault, "an older checkpoint, or another --out")
        self.check_identity(step)
        weights = read_weights(path)
        _check_weights(path, weights, module.state_dict())
        state = read_state(path)
        if state["step"] != step:
            raise unusable(path, f"its state is of step {state['step']}", "an older checkpoint, or another --out")
        fitting = _fitting_state(path, state["optimizer"], module, optimizer)
        optimizer.load_state_dict(fitting)
        here = module.state_dict()
        module.load_state_dict({name: like(here[name], tensor) for name, tensor in weights.items()}, strict=True)
        torch.set_rng_state(state["rng"]["cpu"])
        if "cuda" in state["rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["rng"]["cuda"])


def full_weights(module: nn.Module) -> dict[str, Tensor]:
    """The module's state on the host, gathered from all shards (a collective call)."""
    return {name: whole_tensor(tensor.detach()).cpu() for name, tensor in module.state_dict().items()}


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """The same, contiguous; tied tensors are copied, since safetensors stores one tensor per name."""
    weights: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in full_weights(module).items():
        stored = tensor.contiguous()
        is_tied = stored.untyped_storage().data_ptr() in seen
        seen.add(stored.untyped_storage().data_ptr())
        weights[name] = stored.clone() if is_tied else stored
    return weights


def _optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's kind and its state of each parameter, by name.

    Parameter groups are not stored: their settings come from the recipe.
    """
    states = {
        name: {key: whole_tensor(value).cpu() if isinstance(value, Tensor) else value for key, value in optimizer.state[parameter].items()}
        for name, parameter in module.named_parameters()
        if parameter in optimizer.state
    }
    return {"kind": type(optimizer).__name__, "states": states}


def _fitting_state(path: Path, found: Any, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The stored state as `optimizer.load_state_dict` takes it, each tensor sharded like its parameter.

    Raises:
        ModelError: another optimizer, unknown parameters or another shape.
    """

    def refused(why: str) -> ModelError:
        return unusable(path, f"its optimizer state {why}", "the recipe that made it, or another --out")

    if not isinstance(found, dict) or not isinstance(found.get("states"), dict):
        raise refused("is damaged")
    if found.get("kind") != type(optimizer).__name__:
        raise refused(f"is of {found.get('kind')}, the recipe asks for {type(optimizer).__name__}")
    packed = optimizer.state_dict()["param_groups"]
    numbers = {
        parameter: number
        for group, numbered in zip(optimizer.param_groups, packed, strict=True)
        for parameter, number in zip(group["params"], numbered["params"], strict=True)
    }
    parameters = dict(module.named_parameters())
    states: dict[int, dict[str, Any]] = {}
    for name, values in found["states"].items():
        parameter = parameters.get(name)
        if parameter is None or parameter not in numbers:
            raise refused(f"is of {name}, which is not trained")
        states[numbers[parameter]] = {}
        for key, value in values.items():
            is_scalar = not isinstance(value, Tensor) or value.ndim == 0
            if not is_scalar and value.shape != parameter.shape:
                raise refused(f"has another shape for {name}")
            is_like = isinstance(value, Tensor) and value.shape == parameter.shape and hasattr(parameter, "device_mesh")
            states[numbers[parameter]][key] = like(parameter, value) if is_like else value
    return {"state": states, "param_groups": packed}


def _rng_states(module: nn.Module) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if any(parameter.is_cuda for parameter in module.parameters()):
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in weights.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]


def _check_weights(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises ModelError for weights with other names, shapes or dtypes, or values that are not finite; names the first of each."""
    faults: list[str] = []
    faults += _named("missing", [name for name in wanted if name not in found])
    faults += _named("not known", [name for name in found if name not in wanted])
    both = [name for name in wanted if name in found]
    faults += _named("of another shape", [_shapes(name, found, wanted) for name in both if found[name].shape != wanted[name].shape])
    faults += _named("of another dtype", [name for name in both if found[name].dtype != wanted[name].dtype])
    if faults:
        raise unusable(path, f"its weights do not fit the recipe's model: {'; '.join(faults)}", "the recipe that made it, or another --out")
    if broken := _not_finite(found):
        raise unusable(path, "; ".join(_named("not finite", broken)), "an older checkpoint, or another --out")


def _shapes(name: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    return f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"


def _named(what: str, names: Sequence[str]) -> list[str]:
    """One phrase that names the first few and counts the rest; empty where there are none."""
    if not names:
        return []
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"{len(names)} {what} ({', '.join(names[:_NAMED])}{rest})"]
