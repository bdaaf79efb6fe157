"""A toy with everything the loop meets: a matrix, a bias, a scale, a position table, and a loss that draws at random."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.recipe.pretraining import Optimizer
from engine.training.checkpoint import Checkpoints
from engine.training.loop import Plan
from engine.training.optimizer import learning_rate, make_optimizer

SECTION = Optimizer(name="adamw", lr=0.05, weight_decay=0.1, schedule="cosine", lr_warmup=2)
NewToy = Callable[..., tuple["Toy", torch.optim.Optimizer]]


class Toy(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.linear = nn.Linear(width, width)
            self.position_embedding = nn.Embedding(width, width)
            self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def losses(self, batch: Mapping[str, Tensor], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        hidden = torch.rand(batch["x"].shape, generator=generator) < 0.5
        seen = self.linear(batch["x"].masked_fill(hidden, 0.0)) + self.position_embedding.weight.mean(dim=0)
        return {"mim": (seen - batch["x"])[hidden].square().mean(), "align": (seen * self.logit_scale - 1).square().mean()}


@pytest.fixture
def new_toy() -> NewToy:
    def new(width: int = 4, name: str = "adamw") -> tuple[Toy, torch.optim.Optimizer]:
        module = Toy(width)
        return module, make_optimizer(module, SECTION.model_copy(update={"name": name}))

    return new


@pytest.fixture
def batch_at() -> Callable[[int], dict[str, Tensor]]:
    return lambda step: {"x": torch.randn(8, 4, generator=torch.Generator().manual_seed(step))}


@pytest.fixture
def plan() -> Callable[..., Plan]:
    def planned(stop: int, **changes: object) -> Plan:
        settings: dict[str, object] = {
            "stop": stop,
            "seed": 7,
            "weights": {"mim": 1.0, "align": 0.5},
            "lr_at": lambda step: learning_rate(SECTION, step, 6),
            "save_every": 2,
            "batch_size": 8,
        }
        return Plan(**(settings | changes))

    return planned


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", {"recipe": "a" * 64, "data": "d" * 64, "code": "0.1.0"}, keep=2)
