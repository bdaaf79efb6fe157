"""Batch prefetching: one thread loads the next batches and copies them to the device while the current one is computed.

Random numbers are a function of (seed, step, purpose), so that a resumed run draws what an unbroken run draws.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Batch = Mapping[str, Tensor]


def derived_seed(seed: int, step: int, purpose: str) -> int:
    """A 63-bit seed for one purpose in one step; other steps, seeds and purposes give unrelated ones."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_at(seed: int, step: int, purpose: str, device: torch.device) -> torch.Generator:
    """A new generator on `device` for one purpose in one step. Seeding happens on the host: no device synchronisation."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, step, purpose))


def batches_ahead(
    batch_at: Callable[[int], Batch], start: int, stop: int, device: torch.device, *, ahead: int = 2
) -> Generator[dict[str, Tensor], None, None]:
    """The batches of steps `start` to `stop - 1`, in order, on `device`.

    Args:
        batch_at: step (0-based) -> tensors by name, on the host; called from another thread when `ahead` > 0.
        ahead: largest number of waiting batches; 0 makes each batch on demand, in the caller's thread.

    An exception of `batch_at` is raised here, at its own step. Closing the iterator ends the thread.
    """
    copies = _DeviceCopies(device)
    if ahead == 0:
        for step in range(start, stop):
            yield copies.finish(copies.start(batch_at(step)))
        return
    waiting: queue.Queue[_Transfer | BaseException] = queue.Queue(maxsize=ahead)
    closed = threading.Event()

    def put(item: _Transfer | BaseException) -> None:
        while not closed.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def make() -> None:
        try:
            for step in range(start, stop):
                put(copies.start(batch_at(step)))
                if closed.is_set():
                    return
        except BaseException as error:  # raised again in the consumer's thread
            put(error)

    thread = threading.Thread(target=make, name="mmclip-batches", daemon=True)
    thread.start()
    try:
        for _ in range(start, stop):
            item = waiting.get()
            if isinstance(item, BaseException):
                raise item
            yield copies.finish(item)
    finally:
        closed.set()
        thread.join()


@dataclass(frozen=True)
class _Transfer:
    """A batch that is being copied to the device; `arrived` is None on a CPU."""

    batch: dict[str, Tensor]
    arrived: torch.cuda.Event | None = None


class _DeviceCopies:
    """Copies to one device. To a GPU: from pinned memory on a separate stream, so that neither the host nor a running step waits."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def start(self, batch: Batch) -> _Transfer:
        """Start a copy; called from one thread only."""
        if self.stream is None:
            return _Transfer({name: tensor.to(self.device) for name, tensor in batch.items()})
        # a new thread starts on GPU 0, where pinning would open a context of half a gigabyte for every process of the machine
        torch.cuda.set_device(self.stream.device)
        with torch.cuda.stream(self.stream):
            moved = {name: tensor.pin_memory().to(self.device, non_blocking=True) for name, tensor in batch.items()}
            return _Transfer(moved, self.stream.record_event())

    def finish(self, transfer: _Transfer) -> dict[str, Tensor]:
        """The batch, usable on the current stream of the calling thread."""
        if transfer.arrived is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(transfer.arrived)
            for tensor in transfer.batch.values():
                tensor.record_stream(current)  # the copy stream owns the memory and must not reuse it before the step is done
        return transfer.batch
