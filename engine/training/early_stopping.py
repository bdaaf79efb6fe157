"""Looks at the validation part: which was the best, how long ago, and a file of them that a resumed run goes on with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from engine.errors import ReadError
from engine.tables.atomic import publish
from engine.training.checkpoint import Checkpoints, Saved
from engine.training.loop import LossesOf, Plan, Step, train
from engine.training.prefetch import Batch


@dataclass(frozen=True)
class Look:
    """The validation part after `step` steps: macro AUROC (None where no finding has both classes) and mean loss."""

    step: int
    auroc: float | None
    loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better: AUROC first, of equal ones the lower loss."""
        return (-1.0 if self.auroc is None else self.auroc, -self.loss)


class Looks:
    """The looks of one run, kept in a file.

    Args:
        file: JSON; absent for a new run.
        step: where the run goes on: later looks belong to steps that are taken again, and are forgotten.

    Raises:
        ReadError: the file is not what this class writes.
    """

    def __init__(self, file: Path, step: int) -> None:
        self._file = file
        try:
            told = json.loads(file.read_text("utf-8")) if file.is_file() else []
            looks = [Look(int(each["step"]), None if each["auroc"] is None else float(each["auroc"]), float(each["loss"])) for each in told]
        except (OSError, ValueError, KeyError, TypeError):
            raise ReadError("the looks at the validation part cannot be read", hint="another --out") from None
        self._looks = [look for look in looks if look.step <= step]

    def holds(self, step: int) -> bool:
        """Whether there was a look after that step."""
        return any(look.step == step for look in self._looks)

    def is_best(self, look: Look) -> bool:
        """Whether no earlier look was as good."""
        return all(look.rank > earlier.rank for earlier in self._looks)

    def best(self) -> Look:
        """The best look so far; of equal ones the first. IndexError where there was none."""
        return max(self._looks, key=lambda look: (look.rank, -look.step))

    def since_best(self) -> int:
        """Looks since the best one; 0 before the first."""
        return sum(look.step > self.best().step for look in self._looks) if self._looks else 0

    def add(self, look: Look) -> None:
        """Keep a look; on the disk when this returns. Raises OutputError."""
        self._looks.append(look)
        text = json.dumps([asdict(each) for each in self._looks], indent=1) + "\n"
        publish(self._file, lambda stream: stream.write(text.encode()))


# Training with looks at the validation part: in stretches, until the steps or the patience end; the best look's weights are kept.


def train_with_looks(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses_of: LossesOf,
    batch_at: Callable[[int], Batch],
    plan: Plan,
    checkpoints: Checkpoints,
    *,
    start: int,
    looks: Looks,
    look_after: Callable[[int], Look],
    best: Checkpoints,
    times: int,
    patience: int,
) -> Generator[Step | Saved | Look, None, Look]:
    """Take steps `start` to `plan.stop - 1`, or fewer; the module then holds the weights of the best look, which is returned.

    Looks stand before the first step and `times` more, evenly over all steps; a checkpoint is saved at each of these, for a run that is
    broken off. A look that a resumed run finds in `looks` is not taken again.

    Args:
        plan: of the whole run; with `save_every` above its steps, looks alone decide when to save.
        look_after: steps taken so far -> how the module does on the validation part.
        best: folder of the best look's weights.
        patience: stop after so many looks without a better one.

    Raises:
        EngineError: as `train`; ModelError: the best weights cannot be read again.
    """
    for stop in sorted({-(-plan.stop * look // times) for look in range(times + 1)}):
        if looks.since_best() >= patience:
            break
        if stop > start:
            yield from train(module, optimizer, losses_of, batch_at, dataclasses.replace(plan, stop=stop), checkpoints, start=start)
            start = stop
        if stop == start and not looks.holds(stop):
            look = look_after(stop)
            if looks.is_best(look):
                best.save(stop, module, optimizer)
            looks.add(look)
            yield look
    chosen = looks.best()
    best.load(chosen.step, module, optimizer)
    return chosen
