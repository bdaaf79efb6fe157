"""Which validation result is the best, when results end a run, and which weights are kept."""

import pytest
import torch

from engine.errors import ReadError
from engine.training.checkpoint import Checkpoints, Saved
from engine.training.early_stopping import ValidationHistory, ValidationResult, train_with_early_stopping
from engine.training.loop import Step

STEPS = 6


def history_of(tmp_path, *results, step=100):
    history = ValidationHistory(tmp_path / "validation.json", step)
    for result in results:
        history.add(result)
    return history


def test_the_best_is_the_highest_auroc_then_the_lowest_loss_then_the_first(tmp_path):
    history = history_of(
        tmp_path,
        ValidationResult(1, None, 0.1),
        ValidationResult(2, 0.8, 0.5),
        ValidationResult(3, 0.8, 0.4),
        ValidationResult(4, 0.8, 0.4),
    )
    assert history.best() == ValidationResult(3, 0.8, 0.4)
    assert history.since_best() == 1
    assert not history.is_best(ValidationResult(5, 0.8, 0.4))
    assert history.is_best(ValidationResult(5, 0.81, 0.9))


def test_a_resumed_run_finds_them_again_and_drops_those_of_later_steps(tmp_path):
    history_of(tmp_path, ValidationResult(1, 0.5, 0.7), ValidationResult(2, None, 0.6), ValidationResult(3, 0.9, 0.5))
    again = ValidationHistory(tmp_path / "validation.json", 2)
    assert (again.holds(2), again.holds(3)) == (True, False)
    assert again.best() == ValidationResult(1, 0.5, 0.7)
    assert again.since_best() == 1
    assert ValidationHistory(tmp_path / "validation.json", 0).since_best() == 0


@pytest.mark.parametrize("text", ["{", '[{"step": 1}]', "[3]"])
def test_a_file_of_another_format_is_refused(tmp_path, text):
    (tmp_path / "validation.json").write_text(text)
    with pytest.raises(ReadError, match="validation results"):
        ValidationHistory(tmp_path / "validation.json", 9)


@pytest.fixture
def run(tmp_path, new_toy, batch_at, plan):
    """Trains the toy; `areas`: AUROC after each step. Gives the events, the chosen result, the module, its weights by step."""

    def run(areas, *, times=3, patience=9, start=0, until=None):
        module, optimizer = new_toy()
        identity = {"recipe": "a"}
        checkpoints, best = (Checkpoints(tmp_path / name, identity, keep=2) for name in ("checkpoints", "best"))
        if start:
            checkpoints.load(start, module, optimizer)
        weights = {}

        def validate(step):
            weights[step] = module.linear.weight.detach().clone()
            return ValidationResult(step, areas[step], 0.5)

        history = ValidationHistory(tmp_path / "validation.json", start)
        events = train_with_early_stopping(
            module, optimizer, module.losses, batch_at, plan(STEPS, save_every=STEPS + 1), checkpoints,
            start=start, history=history, validate=validate, best=best, times=times, patience=patience,
        )  # fmt: skip
        seen, chosen = [], None
        while True:
            try:
                seen.append(next(events))
            except StopIteration as ended:
                chosen = ended.value
                break
            if until is not None and until(seen[-1]):
                events.close()
                break
        return seen, chosen, module, weights

    return run


def of(events, kind):
    return [event.step for event in events if isinstance(event, kind)]


def test_validation_is_spaced_evenly_and_the_module_ends_with_the_best_weights(run):
    events, chosen, module, weights = run({0: 0.5, 2: 0.9, 4: 0.7, 6: 0.8})
    assert of(events, ValidationResult) == [0, 2, 4, 6]
    assert of(events, Saved) == [2, 4, 6]
    assert of(events, Step) == [1, 2, 3, 4, 5, 6]
    assert chosen == ValidationResult(2, 0.9, 0.5)
    assert torch.equal(module.linear.weight, weights[2])
    assert not torch.equal(weights[2], weights[6])


def test_patience_ends_the_run_after_that_many_results_without_a_better_one(run):
    events, chosen, _, _ = run({0: 0.9, 2: 0.8, 4: 0.8, 6: 1.0}, patience=2)
    assert of(events, Step) == [1, 2, 3, 4]
    assert chosen.step == 0


def test_more_validations_than_steps_are_one_a_step(run):
    events, _, _, _ = run(dict.fromkeys(range(STEPS + 1), 0.5), times=50, patience=99)
    assert of(events, ValidationResult) == list(range(STEPS + 1))


def test_a_run_stopped_between_validations_takes_the_rest_and_chooses_alike(run):
    areas = {0: 0.5, 2: 0.9, 4: 0.7, 6: 0.8}
    begun, nothing, _, _ = run(areas, until=lambda event: isinstance(event, Step) and event.step == 3)
    assert nothing is None
    events, chosen, _, _ = run(areas, start=3)
    assert (of(begun, ValidationResult), of(events, ValidationResult)) == ([0, 2], [4, 6])
    assert of(events, Step) == [4, 5, 6]
    assert chosen == ValidationResult(2, 0.9, 0.5)
