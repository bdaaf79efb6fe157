"""TensorBoard curves of a run, for `tensorboard --logdir runs`. An optional extra: `pip install 'mmclip[tensorboard]'`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ConfigError
from engine.training.loop import Step
from engine.training.monitor import Vitals

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


def check_tensorboard() -> None:
    """Check before any work that the curves can be written.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "logging.tensorboard needs the package tensorboard",
            why="it is not installed",
            hint="pip install 'mmclip[tensorboard]', or logging.tensorboard=false",
        )


class TensorBoardWriter:
    """Writes the curves of a run to `out/tensorboard`. No images: they show patients, and TensorBoards are shared.

    After a resume, steps that are taken again replace those written before.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    def __init__(self, out: Path, start: int = 0) -> None:
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer: SummaryWriter = SummaryWriter(str(out / FOLDER), purge_step=start + 1 if start else None)

    def write(self, event: object) -> None:
        """Write the numbers of an event; events without numbers are ignored."""
        if isinstance(event, Step):
            self._curves(event.step, {f"loss/{name}": value for name, value in event.losses.items()})
            self._curves(event.step, {"loss/total": event.loss, "lr": event.lr, "speed/seconds_per_step": event.seconds})
        elif isinstance(event, Vitals):
            self._curves(event.step, {"speed/images_per_second": event.images_per_second, "memory_gib": event.memory_gib})
            if event.mfu is not None:
                self._curves(event.step, {"speed/mfu": event.mfu})
            for half, facts in event.masks.items():
                self._curves(event.step, {f"masks_{half}/{name}": value for name, value in facts.items()})

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()

    def _curves(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
