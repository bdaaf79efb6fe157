"""Checkpoints: folders that are whole or absent, checked by hash, from which a run goes on to the bit.

    checkpoints/step-00001000/
        weights.safetensors    the module's state, in its own dtypes
        state.pt               optimizer state by parameter name, RNG states and step; only ever read with `weights_only=True`
        manifest.json          step, identity of the run, sha256 and size of both files; written last

Sharded weights are gathered first, so that a checkpoint tells nothing of how many processes made it and any number can go on from it.
A checkpoint is written beside its place, synced, renamed into it, and the folder synced: a kill or a full disk at any
point leaves the ones before untouched. Nothing here executes a pickle, whatever the file says.
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
from engine.training.distributed import ALONE, Ranks
from engine.training.parallel import like, whole_tensor

_PREFIX = "step-"
_NAMED = 3
"""How many keys an error names before it counts the rest."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint now lies in `path`, holding the run after `step` steps."""

    step: int
    path: Path


@dataclass(frozen=True)
class Refused:
    """A checkpoint that cannot be used, by its folder's name, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        folder: where the step folders stand.
        identity: what must be equal for a run to go on from here, by name: `recipe`, `data`, `code` and so on.
        keep: how many checkpoints stay; older ones are removed after a newer one is safely in place.
        forced: True goes on all the same where the identity differs; shapes and names of weights must still agree.
        ranks: the processes of the run: all call `save` and `load`, one writes.
    """

    folder: Path
    identity: Mapping[str, str]
    keep: int = 2
    forced: bool = False
    ranks: Ranks = ALONE

    def steps(self) -> list[int]:
        """The steps that a folder with a manifest claims, ascending; says nothing about whether it is sound."""
        names = [path.parent.name for path in self.folder.glob(f"{_PREFIX}*/{MANIFEST}")]
        return sorted(int(name[len(_PREFIX) :]) for name in names if name[len(_PREFIX) :].isdigit())

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` steps stands."""
        return self.folder / f"{_PREFIX}{step:08d}"

    def save(self, step: int, module: nn.Module, optimizer: torch.optim.Optimizer) -> Saved:
        """Write the run after `step` finished steps, then remove what is older than the last `keep`.

        Raises:
            NotFinite: a weight is NaN or infinite; nothing is written.
            OutputError: the folder cannot be written; the checkpoints before are untouched.
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
        """The newest step whose files agree with their hashes, and the newer checkpoints that do not.

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
        """In what the run of the checkpoint after `step` steps is another one: name -> what it is there and here.

        Compares what `identity` holds, so that a part of it can be asked for before the rest is known. A damaged checkpoint has none:
        `last_good` and `load` answer for that.
        """
        try:
            found = dict(json.loads((self.path(step) / MANIFEST).read_bytes())["identity"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {
            name: f"{short(found.get(name))} there, {short(here)} here" for name, here in self.identity.items() if found.get(name) != here
        }

    def check_identity(self, step: int) -> None:
        """Refuse to go on from the checkpoint after `step` steps under another recipe, on other data or with other code, unless forced.

        Raises:
            ModelError: names what differs.
        """
        other = {} if self.forced else self.differences(step)
        if other:
            raise unusable(
                self.path(step),
                f"it belongs to a run with another {' and '.join(other)} ({', '.join(f'{name} {how}' for name, how in other.items())})",
                "the run's own recipe, another --out, or --force-resume to go on all the same",
            )

    def load(self, step: int, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Bring module, optimizer and random states to where they stood after `step` steps.

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
    """The module's state on the host, shards put together; all processes ask for it together."""
    return {name: whole_tensor(tensor.detach()).cpu() for name, tensor in module.state_dict().items()}


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """The same, contiguous; tied tensors are stored once per name, which safetensors wants."""
    weights: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in full_weights(module).items():
        stored = tensor.contiguous()
        is_tied = stored.untyped_storage().data_ptr() in seen
        seen.add(stored.untyped_storage().data_ptr())
        weights[name] = stored.clone() if is_tied else stored
    return weights


def _optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What the optimizer remembers of each parameter, by the parameter's name, and of what kind it is.

    Its groups are not kept: their numbers come from the recipe.
    """
    states = {
        name: {key: whole_tensor(value).cpu() if isinstance(value, Tensor) else value for key, value in optimizer.state[parameter].items()}
        for name, parameter in module.named_parameters()
        if parameter in optimizer.state
    }
    return {"kind": type(optimizer).__name__, "states": states}


def _fitting_state(path: Path, found: Any, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The stored state as `optimizer.load_state_dict` takes it, each tensor sharded as its parameter.

    Raises:
        ModelError: of another optimizer, of parameters that are not there, or of another shape.
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
    """Refuse weights of other names, shapes or dtypes, and weights that are not finite; name the first of each."""
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
    """One phrase that names the first few and counts the rest; nothing when there are none."""
    if not names:
        return []
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"{len(names)} {what} ({', '.join(names[:_NAMED])}{rest})"]
