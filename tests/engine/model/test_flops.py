"""The formula counts what torch counts on a real step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from engine.model.flops import block, linear, step_flops
from engine.model.mmclip import MMCLIP

MakeModel = Callable[..., MMCLIP]


class Counter(TorchDispatchMode):
    """Adds up what torch's own table says of each operation. (FlopCounterMode also follows modules, and trips over those called without
    gradient, as the masks call them.)"""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=made)
        return made


def counted(model: MMCLIP, batch: dict[str, Tensor], prompts: tuple[Tensor, Tensor], **arguments: Any) -> int:
    """By torch, with attention as the products it is made of."""
    with Counter() as counter, sdpa_kernel(SDPBackend.MATH):
        losses = model.losses(batch, prompts=prompts, generator=torch.Generator().manual_seed(0), **arguments)
        torch.stack(list(losses.values())).sum().backward()
    return counter.total


CASES: list[dict[str, Any]] = [
    {},
    {"attmim": {"mask_level": "input"}},
    {"attmim": {"mask_level": "input", "ratio": 0.5}},
    *({"attmim": {"strategy": strategy}} for strategy in ("none", "random", "report", "prompt", "self")),
    *({"entmlm": {"strategy": strategy}} for strategy in ("none", "full", "random")),
    {"entmlm": {"mode": "input"}},
    {"model": {"image_decoder": {"width": 16, "layers": 2, "heads": 2, "input": "proj"}}},
]


@pytest.mark.parametrize("sections", CASES, ids=str)
@pytest.mark.parametrize("objectives", [("align", "mim", "mlm"), ("mim", "mlm"), ("align",), ("mim",)], ids="+".join)
def test_the_formula_agrees_with_the_counter_of_torch(
    sections: dict[str, Any],
    objectives: tuple[str, ...],
    make_model: MakeModel,
    batch: dict[str, Tensor],
    prompts: tuple[Tensor, Tensor],
) -> None:
    model = make_model(**sections)
    shape = tuple(prompts[0].shape)
    found = step_flops(model, paired=3, unpaired=2, text=12, prompts=shape, objectives=objectives)
    if not found.total:
        assert model.losses(batch, prompts=prompts, objectives=objectives) == {}
        return
    assert found.total == counted(model, batch, prompts, objectives=objectives)


@pytest.mark.parametrize("half", ["images", "unpaired_images"])
def test_either_half_of_a_batch_may_be_absent(
    half: str, make_model: MakeModel, batch: dict[str, Tensor], prompts: tuple[Tensor, Tensor]
) -> None:
    model = make_model()
    del batch[half]
    paired, unpaired = (len(batch[name]) if name in batch else 0 for name in ("images", "unpaired_images"))
    found = step_flops(model, paired=paired, unpaired=unpaired, text=12, prompts=tuple(prompts[0].shape))
    assert found.total == counted(model, batch, prompts)


def test_vit_b16_costs_what_is_known_of_it() -> None:
    """17.5 billion multiply-adds an image at 224 (Touvron et al. 2021, DeiT): 35 GFLOP forward."""
    forward = 12 * block(1, 197, 768, 3072) + linear(196, 768, 768)
    assert forward / 1e9 == pytest.approx(35.1, abs=0.1)
