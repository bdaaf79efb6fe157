import hashlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.errors import ConfigError, NotFinite
from engine.training.checkpoint import Saved
from engine.training.loop import Step, arithmetic, train


def sha256_of(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def told(events: list[Step | Saved]) -> list[tuple[int, dict[str, float], float]]:
    return [(event.step, event.losses, event.lr) for event in events if isinstance(event, Step)]


@pytest.mark.parametrize(("precision", "name"), [("fp32", "adamw"), ("bf16", "adamw"), ("fp32", "sgd")])
def test_a_resumed_run_repeats_the_unbroken_one_to_the_bit(new_toy, batch_at, plan, checkpoints, precision, name):
    unbroken, optimizer = new_toy(name=name)
    whole = told(list(train(unbroken, optimizer, unbroken.losses, batch_at, plan(6, precision=precision))))

    first, optimizer = new_toy(name=name)
    begun = told(list(train(first, optimizer, first.losses, batch_at, plan(3, precision=precision), checkpoints)))
    torch.rand(3)  # another process would not stand where this one stands
    second, optimizer = new_toy(name=name)
    step, _ = checkpoints.last_good()
    checkpoints.load(step, second, optimizer)
    ended = told(list(train(second, optimizer, second.losses, batch_at, plan(6, precision=precision), checkpoints, start=step)))

    assert step == 3
    assert begun + ended == whole
    assert sha256_of(second) == sha256_of(unbroken)
    assert sha256_of(first) != sha256_of(unbroken)


def test_a_loss_is_the_weighted_sum_and_falls(new_toy, batch_at, plan):
    module, optimizer = new_toy()
    constant = plan(60, lr_at=lambda step: 0.05)
    steps = [event for event in train(module, optimizer, module.losses, batch_at, constant) if isinstance(event, Step)]
    assert steps[0].loss == pytest.approx(steps[0].losses["mim"] + 0.5 * steps[0].losses["align"])
    assert sum(step.loss for step in steps[-5:]) < 0.7 * sum(step.loss for step in steps[:5])
    assert all(step.images_per_second == pytest.approx(8 / step.seconds) for step in steps)


def test_reading_losses_rarely_changes_nothing_but_when_they_are_told(new_toy, batch_at, plan):
    each, optimizer = new_toy()
    one_by_one = told(list(train(each, optimizer, each.losses, batch_at, plan(7, save_every=4))))
    rare, optimizer = new_toy()
    together = told(list(train(rare, optimizer, rare.losses, batch_at, plan(7, save_every=4, read_every=3))))
    assert together == one_by_one
    assert sha256_of(rare) == sha256_of(each)


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_batches_made_ahead_are_the_same_batches(new_toy, batch_at, plan, ahead):
    module, optimizer = new_toy()
    list(train(module, optimizer, module.losses, batch_at, plan(5, ahead=ahead)))
    plain, optimizer = new_toy()
    list(train(plain, optimizer, plain.losses, batch_at, plan(5)))
    assert sha256_of(module) == sha256_of(plain)


@pytest.mark.parametrize("read_every", [1, 4])
def test_a_nan_stops_the_run_naming_step_and_loss_and_keeps_the_last_good_checkpoint(new_toy, batch_at, plan, checkpoints, read_every):
    module, optimizer = new_toy()

    def losses_of(batch: dict[str, Tensor], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        losses = module.losses(batch, step, generator)
        return losses | {"align": losses["align"] / (0.0 if step == 4 else 1.0)}

    events: list[Step | Saved] = []
    with pytest.raises(NotFinite, match="the loss align is inf at step 5"):
        for event in train(module, optimizer, losses_of, batch_at, plan(8, read_every=read_every), checkpoints):
            events.append(event)  # noqa: PERF402 - what came before the error is wanted
    assert [step for step, _, _ in told(events)] == [1, 2, 3, 4]
    assert checkpoints.last_good() == (4, [])


def test_on_a_cpu_a_nan_never_reaches_the_weights(new_toy, batch_at, plan):
    module, optimizer = new_toy()
    before = sha256_of(module)
    with pytest.raises(NotFinite, match="the loss mim is nan at step 1"):
        list(train(module, optimizer, module.losses, lambda step: {"x": torch.full((8, 4), torch.nan)}, plan(2)))
    assert sha256_of(module) == before


def test_closing_the_run_saves_its_last_finished_step(new_toy, batch_at, plan, checkpoints):
    module, optimizer = new_toy()
    run = train(module, optimizer, module.losses, batch_at, plan(100, save_every=50), checkpoints)
    for _ in range(3):
        next(run)
    run.close()
    assert checkpoints.steps() == [3]
    again, optimizer = new_toy()
    checkpoints.load(3, again, optimizer)
    assert sha256_of(again) == sha256_of(module)


def test_an_interrupt_inside_a_step_saves_the_step_before(new_toy, batch_at, plan, checkpoints):
    module, optimizer = new_toy()

    def interrupted(batch: dict[str, Tensor], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        if step == 5:
            raise KeyboardInterrupt
        return module.losses(batch, step, generator)

    with pytest.raises(KeyboardInterrupt):
        list(train(module, optimizer, interrupted, batch_at, plan(100, save_every=50), checkpoints))
    assert checkpoints.last_good() == (5, [])


def test_the_end_is_saved_wherever_it_falls(new_toy, batch_at, plan, checkpoints):
    module, optimizer = new_toy()
    events = list(train(module, optimizer, module.losses, batch_at, plan(5, save_every=2), checkpoints))
    assert [event.step for event in events if isinstance(event, Saved)] == [2, 4, 5]
    assert checkpoints.steps() == [4, 5]


def test_a_gradient_is_clipped_to_its_norm(new_toy, batch_at, plan):
    module, _ = new_toy()
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    list(train(module, optimizer, module.losses, batch_at, plan(1, clip_norm=0.01, lr_at=lambda step: 1.0)))
    moved = torch.cat([(parameter.detach() - before[name]).flatten() for name, parameter in module.named_parameters()])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_a_step_without_a_loss_and_a_loss_without_a_weight_are_refused(new_toy, batch_at, plan):
    module, optimizer = new_toy()
    with pytest.raises(ConfigError, match="step 1 has no loss"):
        list(train(module, optimizer, lambda *_: {}, batch_at, plan(1)))
    with pytest.raises(ConfigError, match="no weight is given for the loss align"):
        list(train(module, optimizer, module.losses, batch_at, plan(1, weights={"mim": 1.0})))


def test_an_error_of_the_batch_source_arrives_at_its_step(new_toy, batch_at, plan):
    module, optimizer = new_toy()

    def failing(step: int) -> dict[str, Tensor]:
        if step == 2:
            raise ConfigError("the store is gone")
        made: Callable[[int], dict[str, Tensor]] = batch_at
        return made(step)

    steps: list[Step | Saved] = []
    with pytest.raises(ConfigError, match="the store is gone"):
        for event in train(module, optimizer, module.losses, failing, plan(5)):
            steps.append(event)  # noqa: PERF402
    assert len(steps) == 2


def test_the_toy_draws_other_masks_in_every_step(new_toy, batch_at, plan):
    module, optimizer = new_toy()
    frozen = plan(3, lr_at=lambda step: 0.0)
    same = {"x": torch.ones(8, 4)}
    losses = [step.losses["mim"] for step in train(module, optimizer, module.losses, lambda step: same, frozen) if isinstance(step, Step)]
    assert len(set(losses)) == 3


def test_checkpoints_are_told_only_where_there_is_a_folder(new_toy, batch_at, plan):
    module, optimizer = new_toy()
    events = list(train(module, optimizer, module.losses, batch_at, plan(4), None))
    assert all(isinstance(event, Step) for event in events)


def test_bf16_computes_in_bf16_and_keeps_weights_and_gradients_in_float32(new_toy, batch_at, plan):
    module, optimizer = new_toy()
    seen: list[torch.dtype] = []

    def losses_of(batch: dict[str, Tensor], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        seen.append(module.linear(batch["x"]).dtype)
        return module.losses(batch, step, generator)

    for precision in ("bf16", "fp32"):
        list(train(module, optimizer, losses_of, batch_at, plan(1, precision=precision)))
    assert seen == [torch.bfloat16, torch.float32]
    assert {(parameter.dtype, parameter.grad.dtype) for parameter in module.parameters()} == {(torch.float32, torch.float32)}


def test_plain_attention_in_bf16_agrees_with_float32():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, 9, 16) for _ in range(3))
    with arithmetic(torch.device("cpu"), "bf16"):
        half = nn.functional.scaled_dot_product_attention(query.bfloat16(), key.bfloat16(), value.bfloat16())
    with arithmetic(torch.device("cpu"), "fp32"):
        full = nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(half.float(), full, atol=0.02, rtol=0.02)


def test_a_batch_in_parts_takes_the_step_of_the_whole_batch(new_toy, batch_at, plan):
    """Shares that add up: half of each loss twice."""
    whole, optimizer = new_toy()
    expected = told(list(train(whole, optimizer, whole.losses, batch_at, plan(3))))
    halves, optimizer = new_toy()

    def in_parts(batch, step, generator):
        begun = generator.get_state()
        for _ in range(2):
            generator.set_state(begun)
            yield {name: loss / 2 for name, loss in halves.losses(batch, step, generator).items()}

    found = told(list(train(halves, optimizer, in_parts, batch_at, plan(3))))
    for (_, mine, _), (_, theirs, _) in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)
    for mine, theirs in zip(halves.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
