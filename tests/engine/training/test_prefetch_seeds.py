import torch

from engine.training.prefetch import derived_seed, generator_at


def test_every_seed_step_and_purpose_draws_for_itself():
    seeds = {derived_seed(seed, step, purpose) for seed in range(5) for step in range(50) for purpose in ("losses", "views")}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_same_step_draws_the_same_again():
    first, again = (torch.rand(9, generator=generator_at(3, 17, "views", torch.device("cpu"))) for _ in range(2))
    assert torch.equal(first, again)
