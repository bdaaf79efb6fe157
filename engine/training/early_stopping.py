"""Early stopping: training that stops when the validation result no longer improves, and keeps the weights of the best result.

The results are kept in a file, so that a resumed run compares with those of the steps before.
"""

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
class ValidationResult:
    """Macro AUROC (None where no finding has both classes) and mean loss on the validation split after `step` steps."""

    step: int
    auroc: float | None
    loss: float

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better: AUROC first, the lower loss where it is equal."""
        return (-1.0 if self.auroc is None else self.auroc, -self.loss)


class ValidationHistory:
    """The validation results of one run, kept in a file.

    Args:
        file: JSON; absent for a new run.
        step: where the run goes on; results of later steps are dropped, since these steps are taken again.

    Raises:
        ReadError: the file is not what this class writes.
    """

    def __init__(self, file: Path, step: int) -> None:
        self._file = file
        try:
            stored = json.loads(file.read_text("utf-8")) if file.is_file() else []
            results = [
                ValidationResult(int(each["step"]), None if each["auroc"] is None else float(each["auroc"]), float(each["loss"]))
                for each in stored
            ]
        except (OSError, ValueError, KeyError, TypeError):
            raise ReadError("the validation results of the run cannot be read", hint="another --out") from None
        self._results = [result for result in results if result.step <= step]

    def holds(self, step: int) -> bool:
        """Whether there is a result after that step."""
        return any(result.step == step for result in self._results)

    def is_best(self, result: ValidationResult) -> bool:
        """Whether no earlier result is as good."""
        return all(result.rank > earlier.rank for earlier in self._results)

    def best(self) -> ValidationResult:
        """The best result so far, the first of equal ones. IndexError where there is none."""
        return max(self._results, key=lambda result: (result.rank, -result.step))

    def since_best(self) -> int:
        """Number of results after the best one; 0 before the first."""
        return sum(result.step > self.best().step for result in self._results) if self._results else 0

    def add(self, result: ValidationResult) -> None:
        """Keep a result; it is on the disk when this returns. Raises OutputError."""
        self._results.append(result)
        text = json.dumps([asdict(each) for each in self._results], indent=1) + "\n"
        publish(self._file, lambda stream: stream.write(text.encode()))


def train_with_early_stopping(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses_of: LossesOf,
    batch_at: Callable[[int], Batch],
    plan: Plan,
    checkpoints: Checkpoints,
    *,
    start: int,
    history: ValidationHistory,
    validate: Callable[[int], ValidationResult],
    best: Checkpoints,
    times: int,
    patience: int,
) -> Generator[Step | Saved | ValidationResult, None, ValidationResult]:
    """Take steps `start` to `plan.stop - 1`, or fewer; the module then holds the weights of the best result, which is returned.

    The model is validated before the first step and `times` more, evenly over all steps, and a checkpoint is saved each time. A result
    that a resumed run finds in `history` is not computed again.

    Args:
        plan: of the whole run; with `save_every` above its steps, a checkpoint is saved at validations alone.
        validate: steps taken so far -> the result on the validation split.
        best: folder of the best result's weights.
        patience: stop after this many results without a better one.

    Raises:
        EngineError: as `train`; ModelError: the best weights cannot be read again.
    """
    for stop in sorted({-(-plan.stop * number // times) for number in range(times + 1)}):
        if history.since_best() >= patience:
            break
        if stop > start:
            yield from train(module, optimizer, losses_of, batch_at, dataclasses.replace(plan, stop=stop), checkpoints, start=start)
            start = stop
        if stop == start and not history.holds(stop):
            result = validate(stop)
            if history.is_best(result):
                best.save(stop, module, optimizer)
            history.add(result)
            yield result
    chosen = history.best()
    best.load(chosen.step, module, optimizer)
    return chosen
