"""Fine-tuning as the loop and run.json see it: the plan of its steps, the hash of its recipe, and whose checkpoints it may go on with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.training.checkpoint import Checkpoints
from engine.training.loop import Plan
from engine.training.optimizer import learning_rate
from engine.training.provenance import training_facts

if TYPE_CHECKING:
    from engine.recipe.finetuning import FinetuneRecipe

READ_EVERY = 20
"""Steps between two readings of the loss on a GPU, each of which waits for it."""


def finetuning_plan(recipe: FinetuneRecipe, steps: int, device: torch.device) -> Plan:
    """The plan of a run of that many steps; it saves at looks alone."""
    return Plan(
        stop=steps,
        seed=recipe.seed,
        weights={"bce": 1.0},
        lr_at=lambda step: learning_rate(recipe.optimizer, step, steps),
        save_every=steps + 1,  # at every look
        read_every=READ_EVERY if device.type == "cuda" else 1,
        batch_size=recipe.batch,
        precision=recipe.precision,
        clip_norm=recipe.optimizer.clip_norm,
    )


def finetuning_facts(recipe: FinetuneRecipe, fractions: Sequence[float], device: torch.device) -> dict[str, Any]:
    """What run.json says before anything is done."""
    return training_facts(recipe, device) | {"fractions": list(fractions)}


def check_checkpoints(folders: Iterable[Path], identity: Mapping[str, str]) -> None:
    """Refuse, before any training, to go on with checkpoints of another recipe, model, data or code.

    Raises:
        ModelError: names what differs.
    """
    for folder in folders:
        checkpoints = Checkpoints(folder, identity)
        for step in checkpoints.steps():
            checkpoints.check_identity(step)
