"""The events of a loop, and between them how the run does and figures of what it sees."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.training.checkpoint import Saved
from engine.training.loop import Step
from engine.training.vitals import Meter, Vitals

FOLDER = "pictures"


@dataclass(frozen=True)
class Pictured:
    """Figures were drawn after `step`; `file` is where in the run's folder, and None where the disk would not take them."""

    step: int
    file: str | None


class Eyes(Protocol):
    """Whoever knows the model: `engine.model.watch.Watch` for one. Steps are counted from 0."""

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
