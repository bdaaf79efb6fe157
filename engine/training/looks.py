"""Looks at the validation part: which was the best, how long ago, and a file of them that a resumed run goes on with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import ReadError
from engine.tables.publish import publish


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
