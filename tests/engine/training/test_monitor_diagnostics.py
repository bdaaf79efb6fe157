"""What is shown between the steps, when, and what it leaves alone."""

from collections.abc import Generator
from pathlib import Path

import pytest
import torch

from engine.training.checkpoint import Saved
from engine.training.loop import Step
from engine.training.monitor import FigureWritten, Meter, Peak, Vitals, with_diagnostics


class Diagnostics:
    """Tells which steps it was asked for; its disk is full from step 5 on."""

    def masks(self, step: int) -> dict[str, dict[str, float]]:
        return {"paired": {"asked": float(step)}}

    def draw(self, step: int, path: Path) -> bool:
        if step >= 5:
            return False
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(step))
        return True


def loop(start: int, stop: int, closed: list[bool]) -> Generator[Step | Saved, None, None]:
    try:
        for step in range(start, stop):
            yield Step(step + 1, {"mim": 1.0}, 1.0, 0.1, 8.0, 1.0)
        yield Saved(stop, 0.1)
    finally:
        closed.append(True)


def events(out: Path, *, start: int = 0, stop: int = 6, vitals_every: int = 2, pictures_every: int = 3) -> list[object]:
    meter = Meter(torch.device("cpu"), Peak(1_000.0, "told"))
    seen = with_diagnostics(
        loop(start, stop, []), Diagnostics(), meter, (100, 500), out, warmup=2, vitals_every=vitals_every, pictures_every=pictures_every
    )
    return list(seen)


def test_everything_comes_after_the_step_it_speaks_of(tmp_path: Path) -> None:
    order = [(type(event).__name__, getattr(event, "step", None)) for event in events(tmp_path)]
    assert order == [
        *(("Step", 1), ("Step", 2), ("Vitals", 2), ("Step", 3), ("FigureWritten", 3), ("Step", 4), ("Vitals", 4)),
        *(("Step", 5), ("Step", 6), ("Vitals", 6), ("FigureWritten", 6), ("Saved", 6)),
    ]


def test_a_resumed_run_shows_the_same_steps(tmp_path: Path) -> None:
    assert [event.step for event in events(tmp_path, start=3) if isinstance(event, Vitals | FigureWritten)] == [4, 6, 6]


def test_the_model_is_asked_about_the_step_that_was_taken(tmp_path: Path) -> None:
    assert [event.masks["paired"]["asked"] for event in events(tmp_path) if isinstance(event, Vitals)] == [1, 3, 5]


def test_steps_of_the_warm_up_cost_less(tmp_path: Path) -> None:
    assert [event.mfu for event in events(tmp_path) if isinstance(event, Vitals)] == pytest.approx([0.1, 0.5, 0.5])


def test_a_picture_that_the_disk_does_not_take_is_told_and_ends_nothing(tmp_path: Path) -> None:
    assert [event.file for event in events(tmp_path) if isinstance(event, FigureWritten)] == ["pictures/step-00000003.png", None]
    assert (tmp_path / "pictures" / "step-00000003.png").read_text() == "2"


def test_no_pictures_where_none_are_asked_for(tmp_path: Path) -> None:
    assert not [event for event in events(tmp_path, pictures_every=0) if isinstance(event, FigureWritten)]


def test_closing_closes_the_loop(tmp_path: Path) -> None:
    closed: list[bool] = []
    meter = Meter(torch.device("cpu"))
    seen = with_diagnostics(loop(0, 6, closed), Diagnostics(), meter, (1, 1), tmp_path, vitals_every=2, pictures_every=0)
    next(seen)
    seen.close()
    assert closed == [True]
