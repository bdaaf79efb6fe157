"""Training with looks: when they are taken, when they end the run, and whose weights are left."""

import pytest
import torch

from engine.training.checkpoint import Checkpoints, Saved
from engine.training.early_stopping import Look, Looks, train_with_looks
from engine.training.loop import Step

STEPS = 6


@pytest.fixture
def run(tmp_path, new_toy, batch_at, plan):
    """Trains the toy; `areas`: AUROC of the look after each step. Gives the events, the chosen look, the module, its weights by step."""

    def run(areas, *, times=3, patience=9, start=0, until=None):
        module, optimizer = new_toy()
        identity = {"recipe": "a"}
        checkpoints, best = (Checkpoints(tmp_path / name, identity, keep=2) for name in ("checkpoints", "best"))
        if start:
            checkpoints.load(start, module, optimizer)
        weights = {}

        def look_after(step):
            weights[step] = module.linear.weight.detach().clone()
            return Look(step, areas[step], 0.5)

        looks = Looks(tmp_path / "looks.json", start)
        events = train_with_looks(
            module, optimizer, module.losses, batch_at, plan(STEPS, save_every=STEPS + 1), checkpoints,
            start=start, looks=looks, look_after=look_after, best=best, times=times, patience=patience,
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


def test_looks_stand_evenly_and_the_module_ends_with_the_best_one_s_weights(run):
    events, chosen, module, weights = run({0: 0.5, 2: 0.9, 4: 0.7, 6: 0.8})
    assert of(events, Look) == [0, 2, 4, 6]
    assert of(events, Saved) == [2, 4, 6]
    assert of(events, Step) == [1, 2, 3, 4, 5, 6]
    assert chosen == Look(2, 0.9, 0.5)
    assert torch.equal(module.linear.weight, weights[2])
    assert not torch.equal(weights[2], weights[6])


def test_patience_ends_the_run_after_so_many_looks_without_a_better_one(run):
    events, chosen, _, _ = run({0: 0.9, 2: 0.8, 4: 0.8, 6: 1.0}, patience=2)
    assert of(events, Step) == [1, 2, 3, 4]
    assert chosen.step == 0


def test_more_looks_than_steps_are_one_a_step(run):
    events, _, _, _ = run(dict.fromkeys(range(STEPS + 1), 0.5), times=50, patience=99)
    assert of(events, Look) == list(range(STEPS + 1))


def test_a_run_that_is_broken_off_between_looks_takes_the_rest_and_chooses_alike(run):
    areas = {0: 0.5, 2: 0.9, 4: 0.7, 6: 0.8}
    begun, nothing, _, _ = run(areas, until=lambda event: isinstance(event, Step) and event.step == 3)
    assert nothing is None
    events, chosen, _, _ = run(areas, start=3)
    assert (of(begun, Look), of(events, Look)) == ([0, 2], [4, 6])
    assert of(events, Step) == [4, 5, 6]
    assert chosen == Look(2, 0.9, 0.5)
