"""Fine-tuning: the plan of its steps, its facts for run.json, and a check of the checkpoints it may resume from."""

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
"""Steps between two readings of the loss on a GPU; each one is a synchronisation."""


def finetuning_plan(recipe: FinetuneRecipe, steps: int, device: torch.device) -> Plan:
    """The plan of a run of that many steps; checkpoints are saved at validations alone."""
    return Plan(
        stop=steps,
        seed=recipe.seed,
        weights={"bce": 1.0},
        lr_at=lambda step: learning_rate(recipe.optimizer, step, steps),
        save_every=steps + 1,  # `train_with_early_stopping` saves
        read_every=READ_EVERY if device.type == "cuda" else 1,
        batch_size=recipe.batch,
        precision=recipe.precision,
        clip_norm=recipe.optimizer.clip_norm,
    )


def finetuning_facts(recipe: FinetuneRecipe, fractions: Sequence[float], device: torch.device) -> dict[str, Any]:
    """What is known of a run before its first step."""
    return training_facts(recipe, device) | {"fractions": list(fractions)}


def check_checkpoints(folders: Iterable[Path], identity: Mapping[str, str], changed: Sequence[str] = ()) -> None:
    """Check before any training that checkpoints belong to this recipe, model, data and code.

    Args:
        changed: keys of the recipe that differ from those of the run in the folder.

    Raises:
        ModelError: names what differs.
    """
    for folder in folders:
        checkpoints = Checkpoints(folder, identity, changed=tuple(changed))
        for step in checkpoints.steps():
            checkpoints.check_identity(step)
