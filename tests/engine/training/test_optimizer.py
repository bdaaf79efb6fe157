import pytest
import torch
from torch import nn

from engine.errors import ConfigError
from engine.recipe.pretraining import Optimizer
from engine.training.optimizer import learning_rate, make_optimizer, parameter_groups, set_learning_rate


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(3, 3)
        self.convolution = nn.Conv2d(1, 3, 2)
        self.norm = nn.LayerNorm(3)
        self.position_embedding = nn.Embedding(5, 3)
        self.token_embedding = nn.Embedding(5, 3)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 3))
        self.frozen = nn.Parameter(torch.zeros(3, 3), requires_grad=False)


def test_matrices_decay_and_norms_biases_scales_tokens_and_positions_do_not():
    module = Parts()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in parameter_groups(module, 0.2)}
    assert groups == {
        0.2: {"projection.weight", "convolution.weight", "token_embedding.weight"},
        0.0: {
            "projection.bias",
            "convolution.bias",
            "norm.weight",
            "norm.bias",
            "position_embedding.weight",
            "logit_scale",
            "mask_token",
        },
    }


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_fused_optimizer_takes_the_steps_of_the_plain_one(name):
    section = Optimizer(name=name, lr=0.1, momentum=0.8, weight_decay=0.3)
    torch.manual_seed(0)
    fused, plain = nn.Linear(4, 4), nn.Linear(4, 4)
    plain.load_state_dict(fused.state_dict())
    ours = make_optimizer(fused, section)
    groups = parameter_groups(plain, 0.3)
    theirs = torch.optim.SGD(groups, lr=0.1, momentum=0.8) if name == "sgd" else torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.98))
    assert ours.defaults["fused"]
    for _ in range(3):
        for module, optimizer in ((fused, ours), (plain, theirs)):
            optimizer.zero_grad()
            module(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(fused.weight, plain.weight)


def test_the_learning_rate_climbs_then_stays():
    section = Optimizer(lr=2.0, lr_warmup=4)
    assert [learning_rate(section, step, 10) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_the_cosine_falls_from_the_full_rate_to_almost_nothing():
    section = Optimizer(lr=1.0, schedule="cosine", lr_warmup=2)
    rates = [learning_rate(section, step, 102) for step in range(102)]
    assert rates[2] == 1.0
    assert rates[52] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-3
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_a_rate_that_is_set_reaches_every_group():
    optimizer = make_optimizer(Parts(), Optimizer())
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


def test_a_frozen_model_is_refused():
    with pytest.raises(ConfigError, match="nothing to train"):
        make_optimizer(nn.Linear(2, 2).requires_grad_(False), Optimizer())


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_part_that_learns_only_after_warm_up_takes_the_steps_it_would_take_alone(name):
    section = Optimizer(name=name, lr=0.1, momentum=0.8)
    torch.manual_seed(0)
    parts, alone = nn.ModuleDict({"early": nn.Linear(4, 4), "late": nn.Linear(4, 4)}), nn.Linear(4, 4)
    alone.load_state_dict(parts["late"].state_dict())
    both, single = make_optimizer(parts, section), make_optimizer(alone, section)
    for step in range(5):
        x = torch.randn(2, 4)
        both.zero_grad(set_to_none=True)
        loss = parts["early"](x).square().sum()
        if step >= 2:
            loss = loss + parts["late"](x).square().sum()
            single.zero_grad(set_to_none=True)
            alone(x).square().sum().backward()
            single.step()
        loss.backward()
        both.step()
    torch.testing.assert_close(parts["late"].weight, alone.weight)


def test_layers_may_learn_at_a_share_of_the_rate_and_every_parameter_is_in_one_group():
    module = Parts()
    scales = {"projection": 1.0, "norm": 0.5}
    groups = parameter_groups(module, 0.2, lambda name: scales.get(name.partition(".")[0], 0.25))
    optimizer = make_optimizer(module, Optimizer(name="adamw"), groups)
    set_learning_rate(optimizer, 0.8)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(rates)
    assert len(rates) == sum(p.requires_grad for p in module.parameters())
    assert rates[id(module.projection.weight)] == (0.8, 0.2)
    assert rates[id(module.projection.bias)] == (0.8, 0.0)
    assert rates[id(module.norm.weight)] == (0.4, 0.0)
    assert rates[id(module.convolution.weight)] == (0.2, 0.2)


def test_groups_of_the_callers_own_learn_at_their_own_pace():
    module = Parts()
    groups = [
        {"params": list(module.projection.parameters()), "lr_scale": 0.5, "weight_decay": 0.1},
        {"params": list(module.norm.parameters())},
    ]
    optimizer = make_optimizer(module, Optimizer(name="adamw", lr=0.2), groups)
    set_learning_rate(optimizer, 0.1)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.05, 0.1), (0.1, 0.01)]
