"""A toy MMCLIP and a toy batch: 16 patches, 12 tokens, everything the real one has."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.model.mmclip import MMCLIP
from engine.recipe.pretraining import PretrainRecipe

VOCABULARY, SOT, EOT = 40, 0, 1
MakeRecipe = Callable[..., PretrainRecipe]
MakeModel = Callable[..., MMCLIP]


def _recipe(**sections: Any) -> PretrainRecipe:
    model = {
        "image": {"width": 16, "layers": 2, "heads": 2, "size": 32, "patch": 8},
        "text": {"width": 16, "layers": 2, "heads": 2, "context": 12},
        "projection": 8,
        "image_decoder": {"width": 16, "layers": 1, "heads": 2},
        "text_decoder": {"layers": 2, "heads": 2},
    }
    model = model | sections.pop("model", {})
    tokenizer = {"vocab": 300}
    return PretrainRecipe.model_validate(
        {"version": 1, "steps": 1, "sources": [{"kind": "table", "file": "none"}], "tokenizer": tokenizer, "model": model, **sections}
    )


@pytest.fixture
def make_recipe() -> MakeRecipe:
    return _recipe


@pytest.fixture
def make_model() -> MakeModel:
    """A toy model whose towers are far enough from their small initial weights that everything depends on everything."""

    def make(seed: int = 0, **sections: Any) -> MMCLIP:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = MMCLIP.from_recipe(_recipe(**sections), vocab_size=VOCABULARY, sot=SOT, eot=EOT)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim:
                        parameter.add_(torch.randn_like(parameter), alpha=0.1)
        return model

    return make


@pytest.fixture
def reports() -> dict[str, Tensor]:
    """Three reports of 6, 9 and 12 tokens, with two, one and no entity."""
    generator = torch.Generator().manual_seed(5)
    input_ids = torch.randint(2, VOCABULARY, (3, 12), generator=generator)
    padding_mask = torch.zeros(3, 12, dtype=torch.bool)
    for row, length in enumerate((6, 9, 12)):
        input_ids[row, length - 1 :] = EOT
        padding_mask[row, length:] = True
    input_ids[:, 0] = SOT
    entity_ids = torch.zeros(3, 12, dtype=torch.int64)
    entity_ids[0, 1:3], entity_ids[0, 4], entity_ids[1, 2:5] = 1, 2, 1
    return {"input_ids": input_ids, "padding_mask": padding_mask, "entity_ids": entity_ids}


@pytest.fixture
def batch(reports: dict[str, Tensor]) -> dict[str, Tensor]:
    """Three pairs and two images alone."""
    generator = torch.Generator().manual_seed(6)
    return {
        **reports,
        "images": torch.randn(3, 3, 32, 32, generator=generator),
        "unpaired_images": torch.randn(2, 3, 32, 32, generator=generator),
    }


@pytest.fixture
def prompts() -> tuple[Tensor, Tensor]:
    """Two prompts of 5 and 8 tokens: ids, padding mask."""
    input_ids = torch.randint(2, VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(7))
    padding_mask = torch.zeros(2, 8, dtype=torch.bool)
    input_ids[:, 0], input_ids[0, 4:], input_ids[1, 7], padding_mask[0, 5:] = SOT, EOT, EOT, True
    return input_ids, padding_mask
