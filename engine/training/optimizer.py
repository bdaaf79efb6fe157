"""Optimizer and learning-rate schedule of the recipe's `optimizer` section."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.recipe.pretraining import Optimizer as OptimizerSection

_FUSED_DEVICES = {"cpu", "cuda"}
"""Device types on which torch has fused kernels for both SGD and AdamW."""


def make_optimizer(
    module: nn.Module, section: OptimizerSection, groups: Sequence[Mapping[str, Any]] | None = None
) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters of `module`, with fused kernels where torch has them.

    The learning rate set here is the recipe's; `set_learning_rate` overrides it before every step.

    Args:
        groups: parameter groups of torch, with an optional factor `lr_scale` on the learning rate; None: `parameter_groups`.

    Raises:
        ConfigError: nothing in `module` is trainable.
    """
    groups = _of_one_kind(parameter_groups(module, section.weight_decay) if groups is None else groups)
    parameters = [parameter for group in groups for parameter in group["params"]]
    if not parameters:
        raise ConfigError("nothing to train", why="every parameter of the model is frozen", hint="a model with trainable parameters")
    fused = all(p.device.type in _FUSED_DEVICES and p.is_floating_point() for p in parameters)
    if section.name == "sgd":
        fused = fused and not any(
            hasattr(parameter, "device_mesh") for parameter in parameters
        )  # torch has no fused SGD for sharded parameters
        sgd = torch.optim.SGD(groups, lr=section.lr, momentum=section.momentum, fused=fused)
        if section.momentum:
            # The fused kernel cannot mix parameters with and without a momentum buffer, as when the projections get their first gradient
            # after warm-up. A buffer of zeros is the same as none: m * 0 + gradient.
            for parameter in parameters:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return sgd
    return torch.optim.AdamW(groups, lr=section.lr, betas=section.betas, fused=fused)


def parameter_groups(module: nn.Module, weight_decay: float, lr_scale: Callable[[str], float] | None = None) -> list[dict[str, Any]]:
    """The trainable parameters in two groups, with and without weight decay, each in the module's own order.

    With `lr_scale` there are two such groups for each factor on the learning rate, stored as `lr_scale`. Empty groups are left out. A
    parameter shared by two modules is listed once.
    """
    members: dict[tuple[float | None, bool], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            members.setdefault((lr_scale(name) if lr_scale else None, decays(name, parameter)), []).append(parameter)
    groups = []
    for (scale, decayed), parameters in sorted(members.items(), key=lambda item: (item[0][0] or 0.0, not item[0][1])):
        group: dict[str, Any] = {"params": parameters, "weight_decay": weight_decay if decayed else 0.0}
        groups.append(group if scale is None else group | {"lr_scale": scale})
    return groups


def _of_one_kind(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same groups, split where one holds both sharded and whole parameters: no kernel takes them together."""
    divided = [
        {**group, "params": [parameter for parameter in group["params"] if hasattr(parameter, "device_mesh") == is_sharded]}
        for group in groups
        for is_sharded in (True, False)
    ]
    return [group for group in divided if group["params"]]


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies to a parameter: to matrices and kernels, but not to position embeddings.

    Vectors do not decay, in any number of axes: gains and biases, `logit_scale`, class and mask tokens.
    """
    is_vector = sum(size > 1 for size in parameter.shape) < 2
    return not is_vector and "position" not in name


def learning_rate(section: OptimizerSection, step: int, steps: int) -> float:
    """The learning rate of step `step` (0-based) in a run of `steps`.

    It climbs linearly over the first `lr_warmup` steps, reaching `lr` in the last of them, then stays (`constant`) or falls
    along half a cosine towards 0, reached at step `steps` (`cosine`).
    """
    if step < section.lr_warmup:
        return section.lr * (step + 1) / section.lr_warmup
    if section.schedule == "constant":
        return section.lr
    progress = (step - section.lr_warmup) / max(1, steps - section.lr_warmup)
    return section.lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the same learning rate, times its `lr_scale` where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
