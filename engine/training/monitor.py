"""Training monitor: throughput, utilisation (MFU), memory, mask statistics and figures of the model, every N steps.

MFU = FLOPs of a step / seconds of a step / peak FLOP/s of the devices. The FLOPs are computed from the model (engine/model/flops.py);
the peak comes from the recipe, a table of GPUs or a measurement (`Peak.source`).
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from engine.training.checkpoint import Saved
from engine.training.loop import Step

TERA = 1e12
GPU_PEAKS = (
    ("B200", 2250.0),
    ("GH200", 989.4),
    ("H200", 989.4),
    ("H100 NVL", 835.5),
    ("H100 PCIe", 756.0),
    ("H100", 989.4),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("L4", 121.0),
)
"""Word in the device's name -> TFLOP/s of dense bf16 products on tensor cores, from the vendor's data sheets; the first match counts.
A large product reaches 70 to 85 % of these figures, so that MFU against the table is lower than against a measured peak."""
_SIDE, _PRODUCTS = 4096, 20
FOLDER = "pictures"


@dataclass(frozen=True)
class Peak:
    """Peak floating-point operations per second of one device, and the source of the number."""

    flops_per_second: float
    source: str


@dataclass(frozen=True)
class Vitals:
    """Throughput, utilisation, memory and mask statistics after a number of steps.

    Attributes:
        step: steps taken so far.
        images_per_second: of all processes, since the previous vitals.
        mfu: share of the devices' peak FLOP/s since then; None where the peak is unknown.
        memory_gib: peak memory in GiB: of tensors on a GPU, of the process on a CPU.
        masks: `paired`, `unpaired`, `words` -> statistics by name, as in engine/model/mask_diagnostics.py.
    """

    step: int
    images_per_second: float
    mfu: float | None
    memory_gib: float
    masks: dict[str, dict[str, float]]


class Meter:
    """Accumulates steps; `vitals` reports those since its last call.

    Args:
        peak: of one device; None: no utilisation.
        world: number of devices.
    """

    def __init__(self, device: torch.device, peak: Peak | None = None, world: int = 1) -> None:
        self.device, self.peak, self.world = device, peak, world
        self._flops = 0
        self._seconds = self._images = 0.0

    def add(self, step: Step, flops: int) -> None:
        """Add a step with its floating-point operations over all processes."""
        self._flops += flops
        self._seconds += step.seconds
        self._images += step.seconds * step.images_per_second

    def vitals(self, step: int, masks: Mapping[str, Mapping[str, float]]) -> Vitals:
        """The vitals of the steps since the last call."""
        seconds = max(self._seconds, 1e-9)
        mfu = None if self.peak is None else self._flops / seconds / (self.peak.flops_per_second * self.world)
        vitals = Vitals(step, self._images / seconds, mfu, memory_gib(self.device), {name: dict(facts) for name, facts in masks.items()})
        self._flops, self._seconds, self._images = 0, 0.0, 0.0
        return vitals


def memory_gib(device: torch.device) -> float:
    """Peak memory so far in GiB: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**30 if sys.platform == "darwin" else 2**20)  # kilobytes, but bytes on a Mac


def peak_of(device: torch.device, *, tflops: float | None = None, precision: str = "bf16") -> Peak | None:
    """Peak of one device; None on a CPU without a number in the recipe, where other processes make a measurement meaningless.

    Args:
        tflops: the recipe's number; it takes precedence.
        precision: bf16 | fp32, as the run computes.
    """
    if tflops is not None:
        return Peak(tflops * TERA, "the recipe's logging.peak_tflops")
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    known = next(((word, peak) for word, peak in GPU_PEAKS if word in name), None)
    if known is not None and precision == "bf16":
        return Peak(known[1] * TERA, f"data sheet of {known[0]}, dense bf16")
    return measured_peak(device, torch.bfloat16 if precision == "bf16" else torch.float32)


def measured_peak(device: torch.device, dtype: torch.dtype = torch.bfloat16, *, side: int = _SIDE, products: int = _PRODUCTS) -> Peak:
    """The best of three timings of a large square product."""
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    made = left @ right  # the first product also initialises the kernels
    best = float("inf")
    for _ in range(3):
        _wait(device)
        begun = time.perf_counter()
        for _ in range(products):
            torch.matmul(left, right, out=made)
        _wait(device)
        best = min(best, (time.perf_counter() - begun) / products)
    return Peak(2 * side**3 / best, f"measured: products of {side} x {side}, {str(dtype).removeprefix('torch.')}")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class FigureWritten:
    """Figures after `step`, in `file` of the run's folder; None where they could not be written."""

    step: int
    file: str | None


class Diagnostics(Protocol):
    """Protocol: mask statistics and figures of the model. Steps are counted from 0."""

    def masks(self, step: int) -> dict[str, dict[str, float]]:
        """Mask statistics of a step, by half of its batch."""

    def draw(self, step: int, path: Path) -> bool:
        """Write figures of the model after that step; True where they were written."""


def with_diagnostics(
    events: Generator[Step | Saved, None, None],
    diagnostics: Diagnostics,
    meter: Meter,
    flops: tuple[int, int],
    out: Path,
    *,
    warmup: int = 0,
    vitals_every: int,
    pictures_every: int,
) -> Generator[Step | Saved | Vitals | FigureWritten, None, None]:
    """The events of the loop, with `Vitals` and `FigureWritten` every so many steps. The time that these take counts for no step.

    Args:
        flops: of a warm-up step, and of a later step.
        out: the run's folder.
        warmup: number of warm-up steps.
        pictures_every: 0: no figures.

    Every process of a run calls this: diagnostics gather sharded weights.
    """
    with contextlib.closing(events):
        for event in events:
            yield event
            if not isinstance(event, Step):
                continue
            meter.add(event, flops[event.step > warmup])
            if event.step % vitals_every == 0:
                yield meter.vitals(event.step, diagnostics.masks(event.step - 1))
            if pictures_every and event.step % pictures_every == 0:
                file = f"{FOLDER}/step-{event.step:08}.png"
                yield FigureWritten(event.step, file if diagnostics.draw(event.step - 1, out / file) else None)
