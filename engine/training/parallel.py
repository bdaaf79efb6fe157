"""Data-parallel training of one module: replicated (DDP) or sharded (FSDP2); compiled and recomputed transformer blocks.

The losses of the processes add up to the loss of the batch, so gradients are summed, not averaged.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from engine.training.distributed import SINGLE_PROCESS, Ranks

if TYPE_CHECKING:
    from engine.recipe.pretraining import Compute

Function = TypeVar("Function", bound=Callable[..., Any])
VARIANTS = 32
"""Shapes and modes in which one block may be compiled: towers and decoders, with and without gradient, both mask levels."""


class ParallelModule:
    """A module that the processes of a run train together.

    Args:
        module: the optimizer holds its parameters; its `forward` returns the losses.
        blocks: submodules that FSDP gathers one at a time.
        parallel: ddp or fsdp; without effect on one process.
        methods: other methods of the module that read its parameters.
    """

    def __init__(
        self,
        module: nn.Module,
        ranks: Ranks = SINGLE_PROCESS,
        *,
        parallel: Literal["ddp", "fsdp"] = "ddp",
        blocks: Iterable[nn.Module] = (),
        methods: Sequence[str] = (),
    ) -> None:
        self.module, self.ranks = module, ranks
        self._ddp: DistributedDataParallel | None = None
        self._whole: list[nn.Parameter] = []
        if ranks.world == 1:
            return
        if parallel == "fsdp":
            self._whole = _sharded(module, blocks, methods)
        else:
            self._ddp = _replicated(module)

    def __call__(self, *arguments: Any, is_last: bool = True, **named: Any) -> Any:
        """The module's forward; gradients are exchanged in the backward pass of the last call of a step."""
        if self._ddp is None:
            return self.module(*arguments, **named)
        with nullcontext() if is_last else self._ddp.no_sync():
            return self._ddp(*arguments, **named)

    def finish_gradients(self, clip_norm: float | None = None) -> None:
        """After the last backward pass of a step: sum the gradients that FSDP does not, then clip the norm to `clip_norm`."""
        for parameter in self._whole:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
        if clip_norm is None:
            return
        if self._whole:
            _clip_sharded(self.module, clip_norm)
        else:
            nn.utils.clip_grad_norm_(self.module.parameters(), clip_norm)


def _replicated(module: nn.Module) -> DistributedDataParallel:
    known = inspect.signature(DistributedDataParallel).parameters
    buffers: dict[str, Any] = {
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
    }  # no buffer here ever changes
    # warm-up leaves parameters without a gradient; searching for them also keeps the buckets fixed, so that a resumed run sums alike
    replicated = DistributedDataParallel(module, find_unused_parameters=True, **buffers)
    replicated.register_comm_hook(None, lambda state, bucket: _summed(bucket))
    return replicated


def _summed(bucket: Any) -> torch.futures.Future[Tensor]:
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(_first)  # type: ignore[no-any-return]


def _first(future: torch.futures.Future[Any]) -> Tensor:
    value: Tensor = future.value()[0]
    return value


def _sharded(module: nn.Module, blocks: Iterable[nn.Module], methods: Sequence[str]) -> list[nn.Parameter]:
    """Shard the module in place; returns the parameters that stay whole: FSDP2 does not shard scalars, such as `logit_scale`."""
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    scalars = [parameter for parameter in module.parameters() if parameter.ndim == 0]
    ignored = set(scalars)
    for block in blocks:
        fully_shard(block, ignored_params=ignored)
    fully_shard(module, ignored_params=ignored)
    for method in methods:
        register_fsdp_forward_method(module, method)
    for each in module.modules():
        if isinstance(each, FSDPModule):
            each.set_gradient_divide_factor(1.0)
            each.set_force_sum_reduction_for_comms(True)
    return scalars


def _clip_sharded(module: nn.Module, clip_norm: float) -> None:
    """`clip_grad_norm_` over sharded and whole parameters together; every process scales its gradients by the same factor."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    shards = [gradient.to_local() for gradient in gradients if hasattr(gradient, "to_local")]
    whole = [gradient for gradient in gradients if not hasattr(gradient, "to_local")]
    squares = torch.stack([shard.float().square().sum() for shard in shards]).sum()
    dist.all_reduce(squares)
    for gradient in whole:
        squares += gradient.float().square().sum()
    norm = squares.sqrt()
    factor = (clip_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in (*shards, *whole):
        gradient.mul_(factor)


def whole_tensor(tensor: Tensor) -> Tensor:
    """The full value of a sharded tensor (a collective call); any other tensor as it is."""
    full: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def like(tensor: Tensor, whole: Tensor) -> Tensor:
    """The full value `whole`, on the device, in the dtype and with the sharding of `tensor`."""
    whole = whole.to(tensor.device, tensor.dtype)
    if not hasattr(tensor, "device_mesh"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = tensor
    return distribute_tensor(whole, sharded.device_mesh, sharded.placements, src_data_rank=None)


def compile_blocks(blocks: Iterable[nn.Module], backend: str = "inductor", *, whole: bool = False) -> None:
    """Compile the forward of each block, in place, for static shapes.

    Block by block and not the whole model: equal blocks share their code, so that this takes seconds and not minutes, and the hooks of
    FSDP and recomputation are not compiled.
    """
    for block in blocks:
        block.forward = compiled(block.forward, backend, whole=whole)


def compiled(function: Function, backend: str = "inductor", *, whole: bool = False) -> Function:
    """The function, compiled on its first call for each shape.

    Args:
        whole: code that cannot be compiled is an error, for tests; else it runs uncompiled, which costs little.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    return cast("Function", torch.compile(function, dynamic=False, fullgraph=whole, backend=backend))


def recompute_blocks(blocks: Iterable[nn.Module]) -> None:
    """Activation checkpointing, in place: keep only the input of each block, and compute the rest again in the backward pass."""
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
