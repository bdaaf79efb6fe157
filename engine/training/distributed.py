"""The processes of one run under torchrun: their ranks, messages between them, and how they stop together.

Rules, in this order:

    1. Process 0 alone prepares data and writes; the others wait for it, and get its error where it fails.
    2. Every process draws the random numbers of the whole step and keeps its own rows: the number of processes changes no mask.
    3. SIGINT and SIGTERM are recorded during steps, and all processes stop after the same step.
    4. A process that dies breaks its connections; the others notice at the next step at the latest, and stop.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from engine.errors import ConfigError, EngineError, UsageError

PATIENCE = timedelta(hours=24)
"""Longest wait of the others while process 0 prepares data; its death is noticed at once."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LOST = ("connection closed", "connection reset", "broken pipe", "timed out", "gloo", "nccl", "socket")
"""Words in a bare RuntimeError of torch that mean a lost connection to another process."""


class Signals:
    """SIGINT and SIGTERM, deferred from `defer` to `restore`. No effect outside the main thread."""

    def __init__(self) -> None:
        self.pending = 0
        self._before: dict[int, Any] = {}

    def defer(self) -> None:
        """Record signals from now on instead of raising."""
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._before = {number: signal.signal(number, self._record) for number in _SIGNALS}

    def raise_signal(self, number: int) -> None:
        """Raise as that signal would have; later signals are still deferred while the run saves its last checkpoint."""
        before = self._before.get(number)
        try:
            if callable(before):
                before(number, None)
            raise SystemExit(128 + number)
        finally:
            for each in self._before:
                signal.signal(each, self._record)

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.pending = number


@dataclass(frozen=True)
class Ranks:
    """The rank of this process in its run; by default one process alone, for which every method is the identity.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes.
        control: process group for small messages between hosts, never through a GPU.
        waiting: the same with the timeout `PATIENCE`.
    """

    rank: int = 0
    world: int = 1
    control: dist.ProcessGroup | None = None
    waiting: dist.ProcessGroup | None = None
    signals: Signals = field(default_factory=Signals, compare=False)

    @property
    def is_first(self) -> bool:
        """True for the process that prepares and writes."""
        return self.rank == 0

    def share(self, count: int, key: str) -> int:
        """Number of images of a step for this process, of `count` in all.

        Raises:
            ConfigError: `count` is no multiple of the number of processes.
        """
        if count % self.world:
            nearest = f"{count // self.world * self.world or self.world} or {-(-count // self.world) * self.world}"
            raise ConfigError(f"{key}={count} images cannot be shared by {self.world} processes", hint=f"{key}={nearest}")
        return count // self.world

    def uniform(self, rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """(rows, columns) numbers in [0, 1) for this process's rows of a step, drawn for the rows of all: (world * rows, columns)."""
        drawn = torch.rand(self.world * rows, columns, generator=generator, device=generator.device)
        return drawn[self.rank * rows : (self.rank + 1) * rows]

    def gathered(self, rows: Tensor) -> Tensor:
        """(B, ...) of every process -> (world * B, ...), in order of rank, without gradient."""
        if self.world == 1:
            return rows.detach()
        parts = [torch.empty_like(rows) for _ in range(self.world)]
        dist.all_gather(parts, rows.detach().contiguous())
        return torch.cat(parts)

    def summed(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, without gradient."""
        total = numbers.detach().clone()
        if self.world > 1:
            dist.all_reduce(total)
        return total

    def summed_on_host(self, numbers: list[float]) -> list[float]:
        """The sum over all processes of numbers that are on the host already."""
        if self.world == 1 or not numbers:
            return numbers
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        return [float(number) for number in total]

    def check_signals(self) -> None:
        """Raise in every process the signal that any of them has received (rule 3); also detects dead processes (rule 4)."""
        if self.world == 1:
            return
        noted = torch.tensor(self.signals.pending)
        dist.all_reduce(noted, op=dist.ReduceOp.MAX, group=self.control)
        if number := int(noted):
            self.signals.raise_signal(number)

    def may_save(self, error: BaseException) -> bool:
        """Whether a run ended by `error` is sound and after the same step in all processes, so that it can be saved."""
        return not isinstance(error, Exception) and (self.world == 1 or not isinstance(error, GeneratorExit))

    @contextmanager
    def after_first(self) -> Iterator[None]:
        """Process 0 runs the block while the others wait; then they run it.

        Raises:
            EngineError: in the others, where process 0 failed: its message and exit code.
        """
        if not self.is_first:
            self._wait_for_first()
        try:
            yield
        except BaseException as error:
            if self.is_first:
                with suppress(RuntimeError):
                    self._announce(_failure(error))
            raise
        if self.is_first:
            self._announce(None)

    def first(self, action: Callable[[], None]) -> None:
        """Process 0 runs `action`; the others wait and return or raise with it (`after_first`)."""
        with self.after_first():
            if self.is_first:
                action()

    def agreed(self, value: Any) -> Any:
        """The value of process 0, a number or text, in every process."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.waiting)
        return box[0]

    def _announce(self, failure: tuple[int, str] | None) -> None:
        self.agreed(failure)

    def _wait_for_first(self) -> None:
        failure = self.agreed(None)
        if failure is not None:
            error = EngineError("process 0 of this run has stopped", why=str(failure[1]).rstrip("."))
            error.exit_code = int(failure[0])
            raise error


SINGLE_PROCESS = Ranks()
_JOINS = itertools.count()
"""Prefix of each run in torchrun's store, which still holds the addresses of earlier runs of the same processes."""


def _failure(error: BaseException) -> tuple[int, str]:
    """Exit code and message of an error; of a library's error only its type, since its message may quote anything."""
    code = getattr(error, "exit_code", 70)
    return (code if isinstance(code, int) else 70), str(error) if isinstance(error, EngineError) else type(error).__name__


def resolved_device(device: str) -> torch.device:
    """auto: the GPU where there is one, else the CPU.

    Raises:
        UsageError: there is no such device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"no device is called {device}", hint="auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("this machine has no GPU that torch can use", hint="--device cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process on its machine (torchrun's LOCAL_RANK); CPUs are shared.

    Raises:
        ConfigError: more processes than GPUs.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type != "cuda":
        return device
    if local >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local} of this machine has no GPU",
            why=f"there are {torch.cuda.device_count()}",
            hint=f"torchrun --nproc-per-node {torch.cuda.device_count()}",
        )
    return torch.device("cuda", local)


@contextmanager
def joined(device: torch.device, timeout: timedelta) -> Iterator[Ranks]:
    """Join the processes that torchrun started (RANK, WORLD_SIZE); without it, a single process.

    Args:
        device: of this process: GPUs communicate by NCCL, CPUs by gloo.
        timeout: longest wait for the others in a step.

    Raises:
        EngineError: another process has died, or no longer answers.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    signals = Signals()
    try:
        store, rank, world = next(rendezvous("env://", timeout=timeout))
        place: dict[str, Any] = {"store": PrefixStore(f"mmclip-{next(_JOINS)}", store), "rank": rank, "world_size": world}
        if device.type == "cuda":
            torch.cuda.set_device(device)
            dist.init_process_group("nccl", timeout=timeout, device_id=device, **place)
        else:
            dist.init_process_group("gloo", timeout=timeout, **place)
        control = dist.new_group(backend="gloo", timeout=timeout)
        waiting = dist.new_group(backend="gloo", timeout=PATIENCE)
        ranks = Ranks(rank, world, control, waiting, signals)
        try:
            yield ranks
        except BaseException as error:
            if ranks.may_save(error):
                _leave_together(ranks)
            raise
        _leave_together(ranks)
        dist.destroy_process_group()
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        raise EngineError(
            "another process of this run has died or no longer answers",
            why="its own message has the details",
            hint="the same command with --resume; checkpoints already saved are untouched",
        ) from error
    finally:
        signals.restore()


def _leave_together(ranks: Ranks) -> None:
    """Wait for the others: torchrun ends the rest as soon as one process exits with a code other than 0."""
    with suppress(RuntimeError):
        dist.barrier(group=ranks.control)


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether an error of torch says that another process no longer answers."""
    if isinstance(error, dist.DistError):
        return True
    message = str(error).lower()
    return type(error) is RuntimeError and any(word in message for word in _LOST)
