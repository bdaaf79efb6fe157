"""How a run is doing as a machine sees it: throughput, utilisation (MFU), memory, and what the masks do.

Utilisation is useful work over what the device could do at best: MFU = FLOPs of a step / seconds of a step / peak of the devices. The
FLOPs come from whoever knows the model (engine/model/flops.py); the peak from the recipe, a table of GPUs, or a measurement: `Peak` says.
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
"""Word in the device's name -> TFLOP/s of dense bf16 products on tensor cores, by the vendor's data sheets; the first that fits counts.
No GPU reaches its sheet's figure: a large product measures 70 to 85 % of it, so that utilisation against the table looks lower."""
_SIDE, _PRODUCTS = 4096, 20


@dataclass(frozen=True)
class Peak:
    """What one device could do at best: floating-point operations a second, and where that number is from."""

    flops_per_second: float
    source: str


@dataclass(frozen=True)
class Vitals:
    """How the run does, now and then.

    Attributes:
        step: steps taken so far.
        images_per_second: of all processes, since the vitals before.
        mfu: share of the devices' peak that useful work took since then; None where there is no peak to compare with.
        memory_gib: the most memory so far: on a GPU what tensors took of it, on a CPU what the process held.
        masks: `paired`, `unpaired`, `words` -> numbers by name (`mask_facts` and `word_facts` of engine/model/masks.py).
    """

    step: int
    images_per_second: float
    mfu: float | None
    memory_gib: float
    masks: dict[str, dict[str, float]]


class Meter:
    """Adds up steps, and tells the vitals of those since it was last asked.

    Args:
        peak: of one device; None: utilisation is not told.
        world: how many devices work.
    """

    def __init__(self, device: torch.device, peak: Peak | None = None, world: int = 1) -> None:
        self.device, self.peak, self.world = device, peak, world
        self._flops = 0
        self._seconds = self._images = 0.0

    def add(self, step: Step, flops: int) -> None:
        """One more step, and its floating-point operations over all processes."""
        self._flops += flops
        self._seconds += step.seconds
        self._images += step.seconds * step.images_per_second

    def vitals(self, step: int, masks: Mapping[str, Mapping[str, float]]) -> Vitals:
        """Of the steps since the last time."""
        seconds = max(self._seconds, 1e-9)
        mfu = None if self.peak is None else self._flops / seconds / (self.peak.flops_per_second * self.world)
        told = Vitals(step, self._images / seconds, mfu, memory_gib(self.device), {name: dict(facts) for name, facts in masks.items()})
        self._flops, self._seconds, self._images = 0, 0.0, 0.0
        return told


def memory_gib(device: torch.device) -> float:
    """The most memory taken so far, in GiB: by tensors on a GPU, by the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**30 if sys.platform == "darwin" else 2**20)  # kilobytes, but bytes on a Mac


def peak_of(device: torch.device, *, tflops: float | None = None, precision: str = "bf16") -> Peak | None:
    """What one device could do at best; None on a CPU whose peak the recipe does not tell: a busy one has none worth the name.

    Args:
        tflops: the recipe's own number; it counts before all others.
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
    made = left @ right  # the first product also sets kernels up
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


# The events of a loop, and between them how the run does and figures of what it sees.

FOLDER = "pictures"


@dataclass(frozen=True)
class Pictured:
    """Figures were drawn after `step`; `file` is where in the run's folder, and None where the disk would not take them."""

    step: int
    file: str | None


class Eyes(Protocol):
    """Whoever knows the model: `engine.model.mask_monitor.Watch` for one. Steps are counted from 0."""

    def masks(self, step: int) -> dict[str, dict[str, float]]:
        """Numbers about the masks of a step, by half of its batch."""

    def draw(self, step: int, path: Path) -> bool:
        """Write figures of the model after that step; returns whether they were written."""


def watched(
    events: Generator[Step | Saved, None, None],
    eyes: Eyes,
    meter: Meter,
    flops: tuple[int, int],
    out: Path,
    *,
    warmup: int = 0,
    vitals_every: int,
    pictures_every: int,
) -> Generator[Step | Saved | Vitals | Pictured, None, None]:
    """The loop's own events; after every so many steps `Vitals` and `Pictured`. The time that looking takes is no step's.

    Args:
        flops: of a step of the warm-up, and of a later one.
        out: the run's folder.
        warmup: steps of it.
        pictures_every: 0 draws nothing.

    Every process of a run goes through this: looking gathers what they share.
    """
    with contextlib.closing(events):
        for event in events:
            yield event
            if not isinstance(event, Step):
                continue
            meter.add(event, flops[event.step > warmup])
            if event.step % vitals_every == 0:
                yield meter.vitals(event.step, eyes.masks(event.step - 1))
            if pictures_every and event.step % pictures_every == 0:
                file = f"{FOLDER}/step-{event.step:08}.png"
                yield Pictured(event.step, file if eyes.draw(event.step - 1, out / file) else None)
