"""The training loop: a page of plain steps.

What is learned is decided by the callables it is given: `batch_at` makes the batch of a step, `losses_of` turns it into losses by name,
for the whole batch or for one micro-batch after the other. No random generator keeps a state: each is made from (seed, step).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.errors import ConfigError, NotFinite
from engine.training.checkpoint import Checkpoints, Saved
from engine.training.distributed import Ranks
from engine.training.optimizer import set_learning_rate
from engine.training.parallel import ParallelModule
from engine.training.prefetch import Batch, batches_ahead, generator_at

Losses = Mapping[str, Tensor]
LossesOf = Callable[[Batch, int, torch.Generator], Losses | Iterator[Losses]]
"""(batch, 0-based step, generator on the batch's device) -> scalar losses by name, differentiable; or an iterator over micro-batches
whose losses add up to those of the batch. Gradients of a micro-batch are taken before the next one is computed."""


@dataclass(frozen=True)
class Step:
    """One finished step of the loop.

    Attributes:
        step: number of steps taken, this one included.
        losses: the losses by name, before weighting.
        loss: their weighted sum, which was minimised.
        lr: learning rate.
        seconds: wall-clock time; on a GPU the mean over the steps read back together.
        images_per_second: `batch_size / seconds`.
    """

    step: int
    losses: dict[str, float]
    loss: float
    lr: float
    images_per_second: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The numbers of one run of the loop.

    Attributes:
        stop: the run ends when this many steps are taken, those before a resume counted.
        seed: of every generator, together with the step.
        weights: of each loss, by name.
        lr_at: 0-based step -> learning rate.
        save_every: steps from one checkpoint to the next; the last step is saved in any case.
        read_every: steps between two readings of the losses on the host; more than 1 avoids a GPU synchronisation at every step.
        batch_size: images of one batch, over all processes; for the throughput.
        precision: `bf16` computes the losses under autocast, with float32 weights.
        clip_norm: largest norm of the gradient; None: no clipping.
        ahead: batches loaded ahead of time.
    """

    stop: int
    seed: int
    weights: Mapping[str, float]
    lr_at: Callable[[int], float]
    save_every: int
    read_every: int = 1
    batch_size: int = 1
    precision: str = "fp32"
    clip_norm: float | None = None
    ahead: int = 2


def train(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses_of: LossesOf,
    batch_at: Callable[[int], Batch],
    plan: Plan,
    checkpoints: Checkpoints | None = None,
    *,
    start: int = 0,
    parallel_module: ParallelModule | None = None,
) -> Generator[Step | Saved, None, None]:
    """Take steps `start` to `plan.stop - 1`; yield each step and each checkpoint.

    A run that is stopped (the iterator is closed, SIGINT, SIGTERM) first saves the steps that are finished.

    Args:
        parallel_module: the module on several processes, each of which runs this loop; None: on this process alone.

    Raises:
        NotFinite: a loss is NaN or infinite; the message names the first such step and loss. The last good checkpoint is kept.
        OutputError: a checkpoint cannot be written; earlier ones are untouched.
        ConfigError: a step has no loss, or one without a weight.
    """
    device = next(module.parameters()).device
    parallel_module = parallel_module or ParallelModule(module)
    ranks = parallel_module.ranks
    finished, saved, is_whole = start, start, True
    unread: list[tuple[int, dict[str, Tensor]]] = []
    module.train()
    batches = batches_ahead(batch_at, start, plan.stop, device, ahead=plan.ahead)
    clock = time.perf_counter()
    try:
        for step, batch in enumerate(batches, start):
            ranks.check_signals()
            is_due = (step + 1) % plan.save_every == 0 or step + 1 == plan.stop
            lr = plan.lr_at(step)
            set_learning_rate(optimizer, lr)

            optimizer.zero_grad(set_to_none=True)
            generator = generator_at(plan.seed, step, "losses", device)
            unread.append((step, _backward(losses_of, batch, step, generator, plan)))
            read: list[tuple[int, dict[str, float]]] = []
            if is_due or len(unread) >= plan.read_every:
                read = _read(unread, ranks)  # before the update: on a CPU a NaN never reaches the weights
                unread.clear()

            parallel_module.finish_gradients(plan.clip_norm)
            is_whole = False
            optimizer.step()
            finished, is_whole = step + 1, True

            if read:
                seconds = (time.perf_counter() - clock) / len(read)
                for read_step, values in read:
                    loss = values.pop("loss")
                    yield Step(read_step + 1, values, loss, plan.lr_at(read_step), plan.batch_size / max(seconds, 1e-9), seconds)
            if is_due and checkpoints is not None:
                written = checkpoints.save(finished, module, optimizer)
                saved = finished
                yield written
            if read:
                clock = time.perf_counter()
    except BaseException as error:
        if ranks.may_save(error) and checkpoints is not None and is_whole and finished > saved:  # closed, or a signal
            _read(unread, ranks)  # raises where a loss is not finite: there is nothing to save
            checkpoints.save(finished, module, optimizer)
        raise
    finally:
        batches.close()


def _backward(losses_of: LossesOf, batch: Batch, step: int, generator: torch.Generator, plan: Plan) -> dict[str, Tensor]:
    """Compute the gradients of a step; return its losses by name, and as `loss` their weighted sum."""
    sums: dict[str, Tensor] = {}
    for losses in _micro_batch_losses(losses_of, batch, step, generator, plan.precision):
        total = _weighted_sum(losses, plan.weights, step)
        with _attention(generator.device, plan.precision):  # recomputed blocks must use the same attention kernel
            total.backward()  # type: ignore[no-untyped-call]
        for name, loss in {**losses, "loss": total}.items():
            sums[name] = sums[name] + loss.detach() if name in sums else loss.detach()
    return sums


def _micro_batch_losses(losses_of: LossesOf, batch: Batch, step: int, generator: torch.Generator, precision: str) -> Iterator[Losses]:
    """The losses of a batch, by micro-batch; autocast covers their computation alone, not what the caller does between them."""
    with arithmetic(generator.device, precision):
        found = losses_of(batch, step, generator)
    if isinstance(found, Mapping):
        yield found
        return
    while True:
        with arithmetic(generator.device, precision):
            losses = next(found, None)
        if losses is None:
            return
        yield losses


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """How losses are computed: bf16 autocast over float32 weights, or float32 throughout.

    On a CPU, bf16 goes with plain attention: the backward of torch's fused one is slow there. One core of an AMD Zen 5, a step of 64 images
    at 112 pixels and the size of `tiny`: 2.0 s with the fused kernel, 1.5 s without; in float32 the two are equal.
    """
    with _attention(device, precision), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


def _attention(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    return sdpa_kernel(SDPBackend.MATH) if precision == "bf16" and device.type == "cpu" else nullcontext()


def _weighted_sum(losses: Losses, weights: Mapping[str, float], step: int) -> Tensor:
    """The total loss: each loss times its weight, added up (eq 16)."""
    if not losses:
        raise ConfigError(f"step {step + 1} has no loss to train on", hint="objectives and batches that fit each other")
    if unweighted := sorted(set(losses) - set(weights)):
        raise ConfigError(f"no weight is given for the loss {unweighted[0]}", hint=f"one of {', '.join(sorted(weights))}")
    return torch.stack([loss.float() * weights[name] for name, loss in losses.items()]).sum()


def _read(unread: Sequence[tuple[int, Mapping[str, Tensor]]], ranks: Ranks) -> list[tuple[int, dict[str, float]]]:
    """Losses of the unread steps on the host, in one copy, summed over all processes.

    Raises:
        NotFinite: names the first step, and its first loss, that is NaN or infinite.
    """
    if not unread:
        return []
    flat = torch.stack([value.float() for _, losses in unread for value in losses.values()]).tolist()
    numbers = iter(ranks.summed_on_host(flat))
    read = [(step, {name: float(next(numbers)) for name in losses}) for step, losses in unread]
    for step, losses in read:
        for name, value in losses.items():
            if not math.isfinite(value):
                raise NotFinite(
                    f"the loss {name} is {value} at step {step + 1}",
                    why="the run has diverged, or an image or weight is not finite",
                    hint="a lower optimizer.lr or an optimizer.clip_norm, in another --out; the checkpoints saved before are good",
                )
    return read
