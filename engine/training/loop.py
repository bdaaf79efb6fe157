"""The training loop: a page of plain steps.

What is learned stands in the callables it is given: `batch_at` makes the batch of a step, `losses_of` turns it into losses by
name. Nothing random has a state: every generator comes from (seed, step).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.errors import ConfigError, NotFinite
from engine.training.checkpoint import Checkpoints, Saved
from engine.training.feed import Batch, batches_ahead
from engine.training.optimizer import set_learning_rate
from engine.training.seeds import generator_at

LossesOf = Callable[[Batch, int, torch.Generator], Mapping[str, Tensor]]
"""(batch, 0-based step, generator on the batch's device) -> scalar losses by name, differentiable."""


@dataclass(frozen=True)
class Step:
    """One finished step.

    Attributes:
        step: how many steps the run has taken, this one counted.
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
        read_every: steps from one reading of the losses to the next; more than 1 keeps a GPU from waiting for the host.
        batch_size: pictures in one batch, for the throughput.
        precision: `bf16` computes the losses under autocast, with float32 weights.
        clip_norm: largest norm of the gradient; None leaves it alone.
        ahead: batches made ahead of time.
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
) -> Generator[Step | Saved, None, None]:
    """Take steps `start` to `plan.stop - 1`; tell each one, and each checkpoint.

    A run that is stopped from outside (the iterator is closed, SIGINT, SIGTERM) saves what it has finished before it leaves.

    Raises:
        NotFinite: a loss is NaN or infinite; names the first such step and loss. The last good checkpoint is kept.
        OutputError: a checkpoint cannot be written; those before are untouched.
        ConfigError: a step has no loss, or one without a weight.
    """
    device = next(module.parameters()).device
    finished, saved, is_whole = start, start, True
    unread: list[tuple[int, dict[str, Tensor]]] = []
    module.train()
    batches = batches_ahead(batch_at, start, plan.stop, device, ahead=plan.ahead)
    clock = time.perf_counter()
    try:
        for step, batch in enumerate(batches, start):
            is_due = (step + 1) % plan.save_every == 0 or step + 1 == plan.stop
            lr = plan.lr_at(step)
            set_learning_rate(optimizer, lr)
            with arithmetic(device, plan.precision):
                losses = losses_of(batch, step, generator_at(plan.seed, step, "losses", device))
            total = _weighted_sum(losses, plan.weights, step)
            unread.append((step, {**{name: loss.detach() for name, loss in losses.items()}, "loss": total.detach()}))
            told: list[tuple[int, dict[str, float]]] = []
            if is_due or len(unread) >= plan.read_every:
                told = _read(unread)  # before the weights learn from it: on a CPU a NaN never reaches them
                unread.clear()

            optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            if plan.clip_norm is not None:
                nn.utils.clip_grad_norm_(module.parameters(), plan.clip_norm)
            is_whole = False
            optimizer.step()
            finished, is_whole = step + 1, True

            if told:
                seconds = (time.perf_counter() - clock) / len(told)
                for told_step, values in told:
                    loss = values.pop("loss")
                    yield Step(told_step + 1, values, loss, plan.lr_at(told_step), plan.batch_size / max(seconds, 1e-9), seconds)
            if is_due and checkpoints is not None:
                written = checkpoints.save(finished, module, optimizer)
                saved = finished
                yield written
            if told:
                clock = time.perf_counter()
    except BaseException as error:
        was_stopped = not isinstance(error, Exception)  # closed, or a signal: nothing is wrong with the run itself
        if was_stopped and checkpoints is not None and is_whole and finished > saved:
            _read(unread)  # not finite: nothing to keep, and the error says so
            checkpoints.save(finished, module, optimizer)
        raise
    finally:
        batches.close()


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """How losses are computed: bf16 autocast over float32 weights, or float32 throughout.

    On a CPU, bf16 goes with plain attention: the backward of torch's fused one is slow there. One core of an AMD Zen 5, a step of 64 images
    at 112 pixels and the size of `tiny`: 2.0 s with the fused kernel, 1.5 s without; in float32 the two are equal.
    """
    is_half = precision == "bf16"
    with ExitStack() as stack:
        if is_half and device.type == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=is_half))
        yield


def _weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float], step: int) -> Tensor:
    """What is minimised: the losses, each by its weight (eq 16)."""
    if not losses:
        raise ConfigError(f"step {step + 1} has no loss to learn from", hint="objectives and batches that fit each other")
    if unweighted := sorted(set(losses) - set(weights)):
        raise ConfigError(f"no weight is given for the loss {unweighted[0]}", hint=f"one of {', '.join(sorted(weights))}")
    return torch.stack([loss.float() * weights[name] for name, loss in losses.items()]).sum()


def _read(unread: Sequence[tuple[int, Mapping[str, Tensor]]]) -> list[tuple[int, dict[str, float]]]:
    """Bring the losses of some steps to the host in one copy.

    Raises:
        NotFinite: names the first step, and its first loss, that is NaN or infinite.
    """
    if not unread:
        return []
    flat = torch.stack([value.float() for _, losses in unread for value in losses.values()]).tolist()
    numbers = iter(flat)
    told = [(step, {name: float(next(numbers)) for name in losses}) for step, losses in unread]
    for step, losses in told:
        for name, value in losses.items():
            if not math.isfinite(value):
                raise NotFinite(
                    f"the loss {name} is {value} at step {step + 1}",
                    why="the run has diverged, or a picture or weight is not finite",
                    hint="a lower optimizer.lr or an optimizer.clip_norm, in another --out; the checkpoints saved before are good",
                )
    return told
