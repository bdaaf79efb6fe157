"""The training loop: a page of plain steps.

What is learned stands in the callables it is given: `batch_at` makes the batch of a step, `losses_of` turns it into losses by
name, whole or part by part. Nothing random has a state: every generator comes from (seed, step).
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
from engine.training.parallel import Spread
from engine.training.prefetch import Batch, batches_ahead, generator_at

Losses = Mapping[str, Tensor]
LossesOf = Callable[[Batch, int, torch.Generator], Losses | Iterator[Losses]]
"""(batch, 0-based step, generator on the batch's device) -> scalar losses by name, differentiable; or an iterator that makes them part by
part, each part's losses being its shares of the batch's: they add up to them. Gradients of a part are taken before the next is made."""


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
        batch_size: pictures in one batch, of all processes together, for the throughput.
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
    spread: Spread | None = None,
) -> Generator[Step | Saved, None, None]:
    """Take steps `start` to `plan.stop - 1`; tell each one, and each checkpoint.

    A run that is stopped from outside (the iterator is closed, SIGINT, SIGTERM) saves what it has finished before it leaves.

    Args:
        spread: the module on several processes, each of which runs this loop and is told the same; None: on this one alone.

    Raises:
        NotFinite: a loss is NaN or infinite; names the first such step and loss. The last good checkpoint is kept.
        OutputError: a checkpoint cannot be written; those before are untouched.
        ConfigError: a step has no loss, or one without a weight.
    """
    device = next(module.parameters()).device
    spread = spread or Spread(module)
    ranks = spread.ranks
    finished, saved, is_whole = start, start, True
    unread: list[tuple[int, dict[str, Tensor]]] = []
    module.train()
    batches = batches_ahead(batch_at, start, plan.stop, device, ahead=plan.ahead)
    clock = time.perf_counter()
    try:
        for step, batch in enumerate(batches, start):
            ranks.heed_signals()
            is_due = (step + 1) % plan.save_every == 0 or step + 1 == plan.stop
            lr = plan.lr_at(step)
            set_learning_rate(optimizer, lr)

            optimizer.zero_grad(set_to_none=True)
            generator = generator_at(plan.seed, step, "losses", device)
            unread.append((step, _learned(losses_of, batch, step, generator, plan)))
            told: list[tuple[int, dict[str, float]]] = []
            if is_due or len(unread) >= plan.read_every:
                told = _read(unread, ranks)  # before the weights learn from it: on a CPU a NaN never reaches them
                unread.clear()

            spread.finish_gradients(plan.clip_norm)
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
        if ranks.may_save(error) and checkpoints is not None and is_whole and finished > saved:  # closed, or a signal
            _read(unread, ranks)  # not finite: nothing to keep, and the error says so
            checkpoints.save(finished, module, optimizer)
        raise
    finally:
        batches.close()


def _learned(losses_of: LossesOf, batch: Batch, step: int, generator: torch.Generator, plan: Plan) -> dict[str, Tensor]:
    """Leave a step's gradients in the parameters; return its losses by name, and as `loss` their weighted sum."""
    sums: dict[str, Tensor] = {}
    for part in _parts(losses_of, batch, step, generator, plan.precision):
        total = _weighted_sum(part, plan.weights, step)
        with _attention(generator.device, plan.precision):  # blocks that are computed again must be computed alike
            total.backward()  # type: ignore[no-untyped-call]
        for name, loss in {**part, "loss": total}.items():
            sums[name] = sums[name] + loss.detach() if name in sums else loss.detach()
    return sums


def _parts(losses_of: LossesOf, batch: Batch, step: int, generator: torch.Generator, precision: str) -> Iterator[Losses]:
    """The losses of a batch, part by part; only making them is under autocast, not what is done between them."""
    with arithmetic(generator.device, precision):
        found = losses_of(batch, step, generator)
    if isinstance(found, Mapping):
        yield found
        return
    while True:
        with arithmetic(generator.device, precision):
            part = next(found, None)
        if part is None:
            return
        yield part


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
    """What is minimised: the losses, each by its weight (eq 16)."""
    if not losses:
        raise ConfigError(f"step {step + 1} has no loss to learn from", hint="objectives and batches that fit each other")
    if unweighted := sorted(set(losses) - set(weights)):
        raise ConfigError(f"no weight is given for the loss {unweighted[0]}", hint=f"one of {', '.join(sorted(weights))}")
    return torch.stack([loss.float() * weights[name] for name, loss in losses.items()]).sum()


def _read(unread: Sequence[tuple[int, Mapping[str, Tensor]]], ranks: Ranks) -> list[tuple[int, dict[str, float]]]:
    """Bring the losses of some steps to the host in one copy, and add up the shares of all processes.

    Raises:
        NotFinite: names the first step, and its first loss, that is NaN or infinite.
    """
    if not unread:
        return []
    flat = torch.stack([value.float() for _, losses in unread for value in losses.values()]).tolist()
    numbers = iter(ranks.summed_on_host(flat))
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
