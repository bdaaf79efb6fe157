"""What is done to each transformer block of a model: compile it, or compute it twice instead of keeping what is inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from engine.recipe.pretraining import Compute

Function = TypeVar("Function", bound=Callable[..., Any])
VARIANTS = 32
"""Shapes and modes in which one block may be compiled: towers and decoders, with and without gradient, both mask levels."""


def compile_blocks(blocks: Iterable[nn.Module], backend: str = "inductor", *, whole: bool = False) -> None:
    """Compile the forward of each block, in place, for static shapes.

    Block by block and not the whole model: equal blocks share their code, so that this takes seconds and not minutes, and FSDP's hooks
    and recomputation stay outside what is compiled.
    """
    for block in blocks:
        block.forward = compiled(block.forward, backend, whole=whole)


def compiled(function: Function, backend: str = "inductor", *, whole: bool = False) -> Function:
    """The function, compiled on its first call for each shape.

    Args:
        whole: a part that cannot be compiled is an error, as tests want it; else it runs as it is, which costs a run little.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    return cast("Function", torch.compile(function, dynamic=False, fullgraph=whole, backend=backend))


def recompute_blocks(blocks: Iterable[nn.Module]) -> None:
    """Keep only the input of each block on the way forward, in place, and compute the rest again on the way back."""
    for block in blocks:
        block.forward = _recomputed(block, block.forward)


def _recomputed(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def recomputed(*arguments: Any, **named: Any) -> Any:
        if block.training and torch.is_grad_enabled():
            return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=True, **named)
        return forward(*arguments, **named)

    return recomputed


def is_compiled(compute: Compute, device: torch.device) -> bool:
    """Whether the recipe's `compute.compile` means yes on this device."""
    return compute.compile == "always" or (compute.compile == "auto" and device.type == "cuda")
