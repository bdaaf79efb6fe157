"""Batches made ahead of time: one thread reads the next ones while the device works on this one."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# Random numbers as a function of (seed, step, purpose), so that a resumed run draws what the unbroken one drew.


def derived_seed(seed: int, step: int, purpose: str) -> int:
    """A 63-bit seed for one purpose in one step; other steps, seeds and purposes give unrelated ones."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_at(seed: int, step: int, purpose: str, device: torch.device) -> torch.Generator:
    """A fresh generator on `device` for one purpose in one step (no device sync: seeding happens on the host)."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, step, purpose))


Batch = Mapping[str, Tensor]


def batches_ahead(
    batch_at: Callable[[int], Batch], start: int, stop: int, device: torch.device, *, ahead: int = 2
) -> Generator[dict[str, Tensor], None, None]:
    """The batches of steps `start` to `stop - 1`, in order, on `device`.

    Args:
        batch_at: step (0-based) -> tensors by name, on the host; called from another thread when `ahead` > 0.
        ahead: how many batches may wait; 0 makes each one when it is asked for, in the caller's thread.

    An exception of `batch_at` is raised here, at the step it belongs to. Closing the iterator ends the thread.
    """
    copies = _Copies(device)
    if ahead == 0:
        for step in range(start, stop):
            yield copies.taken(copies.sent(batch_at(step)))
        return
    waiting: queue.Queue[_Sent | BaseException] = queue.Queue(maxsize=ahead)
    closed = threading.Event()

    def put(item: _Sent | BaseException) -> None:
        while not closed.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def make() -> None:
        try:
            for step in range(start, stop):
                put(copies.sent(batch_at(step)))
                if closed.is_set():
                    return
        except BaseException as error:  # it belongs to the consumer, who raises it in its own thread
            put(error)

    thread = threading.Thread(target=make, name="mmclip-batches", daemon=True)
    thread.start()
    try:
        for _ in range(start, stop):
            item = waiting.get()
            if isinstance(item, BaseException):
                raise item
            yield copies.taken(item)
    finally:
        closed.set()
        thread.join()


@dataclass(frozen=True)
class _Sent:
    """A batch on its way to the device; `arrived` on a GPU alone."""

    batch: dict[str, Tensor]
    arrived: torch.cuda.Event | None = None


class _Copies:
    """Copies to one device; to a GPU from pinned memory on a stream of their own, so that neither the host nor a running step waits."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def sent(self, batch: Batch) -> _Sent:
        """Start copying; called from any one thread."""
        if self.stream is None:
            return _Sent({name: tensor.to(self.device) for name, tensor in batch.items()})
        # a thread begins on GPU 0, where pinning would open a context of half a gigabyte for every process of the machine
        torch.cuda.set_device(self.stream.device)
        with torch.cuda.stream(self.stream):
            moved = {name: tensor.pin_memory().to(self.device, non_blocking=True) for name, tensor in batch.items()}
            return _Sent(moved, self.stream.record_event())

    def taken(self, sent: _Sent) -> dict[str, Tensor]:
        """The batch, for what the calling thread queues on its current stream from now on."""
        if sent.arrived is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(sent.arrived)
            for tensor in sent.batch.values():
                tensor.record_stream(current)  # the copying stream, whose memory it is, must not use it again before the step is done
        return sent.batch
