import threading

import pytest
import torch

from engine.training.prefetch import batches_ahead

CPU = torch.device("cpu")


def made(step: int) -> dict[str, torch.Tensor]:
    return {"step": torch.tensor(step)}


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_batches_come_in_order(ahead):
    assert [int(batch["step"]) for batch in batches_ahead(made, 3, 9, CPU, ahead=ahead)] == [3, 4, 5, 6, 7, 8]


def test_closing_ends_the_thread():
    before = threading.active_count()
    batches = batches_ahead(made, 0, 1_000_000, CPU)
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before


def test_no_more_batches_are_made_than_may_wait():
    asked: list[int] = []

    def counted(step: int) -> dict[str, torch.Tensor]:
        asked.append(step)
        return made(step)

    batches = batches_ahead(counted, 0, 100, CPU, ahead=2)
    next(batches)
    batches.close()
    assert len(asked) <= 4


def test_an_error_is_raised_at_its_step():
    def failing(step: int) -> dict[str, torch.Tensor]:
        if step == 2:
            raise ValueError("no such picture")
        return made(step)

    batches = batches_ahead(failing, 0, 5, CPU)
    assert [int(next(batches)["step"]) for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="no such picture"):
        next(batches)
