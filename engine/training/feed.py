"""Batches made ahead of time: one thread reads the next ones while the device works on this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Mapping

import torch
from torch import Tensor

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
    if ahead == 0:
        for step in range(start, stop):
            yield _on_device(batch_at(step), device)
        return
    waiting: queue.Queue[dict[str, Tensor] | BaseException] = queue.Queue(maxsize=ahead)
    closed = threading.Event()

    def put(item: dict[str, Tensor] | BaseException) -> None:
        while not closed.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def make() -> None:
        try:
            for step in range(start, stop):
                put(_on_device(batch_at(step), device))
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
            yield item
    finally:
        closed.set()
        thread.join()


def _on_device(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """The same tensors on `device`; through pinned memory and without waiting when that is a GPU."""
    if device.type != "cuda":
        return {name: tensor.to(device) for name, tensor in batch.items()}
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()}
