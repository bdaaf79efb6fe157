"""Looks at the validation part."""

import pytest

from engine.errors import ReadError
from engine.training.early_stopping import Look, Looks


def looks_of(tmp_path, *looks, step=100):
    looks_file = Looks(tmp_path / "looks.json", step)
    for look in looks:
        looks_file.add(look)
    return looks_file


def test_the_best_is_the_highest_auroc_then_the_lowest_loss_then_the_first(tmp_path):
    looks = looks_of(tmp_path, Look(1, None, 0.1), Look(2, 0.8, 0.5), Look(3, 0.8, 0.4), Look(4, 0.8, 0.4))
    assert looks.best() == Look(3, 0.8, 0.4)
    assert looks.since_best() == 1
    assert not looks.is_best(Look(5, 0.8, 0.4))
    assert looks.is_best(Look(5, 0.81, 0.9))


def test_a_resumed_run_finds_them_again_and_forgets_what_lies_ahead(tmp_path):
    looks_of(tmp_path, Look(1, 0.5, 0.7), Look(2, None, 0.6), Look(3, 0.9, 0.5))
    again = Looks(tmp_path / "looks.json", 2)
    assert (again.holds(2), again.holds(3)) == (True, False)
    assert again.best() == Look(1, 0.5, 0.7)
    assert again.since_best() == 1
    assert Looks(tmp_path / "looks.json", 0).since_best() == 0


@pytest.mark.parametrize("text", ["{", '[{"step": 1}]', "[3]"])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path, text):
    (tmp_path / "looks.json").write_text(text)
    with pytest.raises(ReadError, match="looks at the validation part"):
        Looks(tmp_path / "looks.json", 9)
