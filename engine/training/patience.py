"""Training with looks at the validation part: in stretches, until the steps or the patience end; the best look's weights are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator

import torch
from torch import nn

from engine.training.checkpoint import Checkpoints, Saved
from engine.training.feed import Batch
from engine.training.looks import Look, Looks
from engine.training.loop import LossesOf, Plan, Step, train


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
