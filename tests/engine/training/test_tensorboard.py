"""TensorBoard gets the numbers of a run, and is asked for only where it is wanted."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.training.loop import Step
from engine.training.monitor import Vitals
from engine.training.tensorboard import TensorBoardWriter

needs_tensorboard = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="the extra [tensorboard] is not installed")


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, value) of every scalar written there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read: Any = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    return {name: [(each.step, pytest.approx(each.value)) for each in read.Scalars(name)] for name in read.Tags()["scalars"]}


@needs_tensorboard
def test_numbers_of_a_run_become_curves(tmp_path: Path) -> None:
    board = TensorBoardWriter(tmp_path)
    for number in (1, 2):
        board.write(Step(number, {"mim": 1.0 / number, "align": 2.0}, 3.0, 0.5, 8.0, 0.25))
    board.write(Vitals(2, 16.0, 0.4, 1.5, {"paired": {"hidden": 0.75}}))
    board.write("an event without numbers")
    board.close()
    assert curves(tmp_path) == {
        "loss/mim": [(1, 1.0), (2, 0.5)],
        "loss/align": [(1, 2.0), (2, 2.0)],
        "loss/total": [(1, 3.0), (2, 3.0)],
        "lr": [(1, 0.5), (2, 0.5)],
        "speed/seconds_per_step": [(1, 0.25), (2, 0.25)],
        "speed/images_per_second": [(2, 16.0)],
        "speed/mfu": [(2, pytest.approx(0.4))],
        "memory_gib": [(2, 1.5)],
        "masks_paired/hidden": [(2, 0.75)],
    }


@needs_tensorboard
def test_vitals_without_utilisation_leave_its_curve_out(tmp_path: Path) -> None:
    board = TensorBoardWriter(tmp_path)
    board.write(Vitals(2, 16.0, None, 1.5, {}))
    board.close()
    assert set(curves(tmp_path)) == {"speed/images_per_second", "memory_gib"}


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path) -> None:
    """In a process that cannot find it, as on a machine without it; and nothing asks for it before a board is wanted."""
    code = f"""
import sys
from pathlib import Path
from engine.errors import ConfigError
from engine.training.tensorboard import TensorBoardWriter
assert not {{"tensorboard", "torch.utils.tensorboard"}} & set(sys.modules)
sys.modules["tensorboard"] = None
try:
    TensorBoardWriter(Path({str(tmp_path)!r}))
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.startswith("logging.tensorboard needs the package tensorboard: it is not installed. Try: "), done.stderr
    assert "mmclip[tensorboard]" in done.stdout
