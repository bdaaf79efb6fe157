"""A batch in parts has the losses and the gradients of the whole, and so has one that several processes share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.model.grad_cache import align_share, micro_batch_losses, micro_batches_per_step, split_batch, with_mask_noise
from engine.model.losses import align_loss
from engine.model.mmclip import ALL_OBJECTIVES, MMCLIP
from engine.training.distributed import SINGLE_PROCESS
from engine.training.parallel import compile_blocks, compiled, recompute_blocks

MakeModel = Callable[..., MMCLIP]
Prompts = tuple[Tensor, Tensor]
Batch = dict[str, Tensor]


@pytest.fixture
def large(reports: Batch) -> Batch:
    """Six pairs of unlike lengths, five images alone, two reports that say the same."""
    generator = torch.Generator().manual_seed(6)
    batch = {name: torch.cat([tensor, tensor]) for name, tensor in reports.items()}
    batch["input_ids"][3:, 1] = torch.tensor([7, 8, 9])
    batch["report_group"] = torch.tensor([4, 0, 4, 1, 2, 3])
    batch["images"] = torch.randn(6, 3, 32, 32, generator=generator)
    batch["unpaired_images"] = torch.randn(5, 3, 32, 32, generator=generator)
    draws = torch.Generator().manual_seed(3)
    return with_mask_noise(batch, 16, lambda rows, columns: torch.rand(rows, columns, generator=draws))


def learned(model: MMCLIP, parts: Iterator[dict[str, Tensor]]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Losses summed over the parts, and the gradients they leave."""
    model.zero_grad(set_to_none=True)
    sums: dict[str, float] = {}
    for losses in parts:
        torch.stack(list(losses.values())).sum().backward()
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.item()
    return sums, {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=tolerance, atol=tolerance * largest, msg=lambda told, name=name: f"{name}: {told}"
        )


SWITCHES: dict[str, dict[str, Any]] = {
    "the paper's": {},
    "union": {"attmim": {"ratio_of": "union", "top": 0.3}},
    "input": {"attmim": {"mask_level": "input"}, "entmlm": {"mode": "input", "targets": "entities"}},
    "group": {"objective": {"positives": "group", "half": True}},
    "random": {"attmim": {"strategy": "random"}, "entmlm": {"strategy": "random"}},
    "contrastive": {"attmim": {"strategy": "none"}, "entmlm": {"strategy": "none"}},
}


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_parts_have_the_losses_and_gradients_of_the_whole_batch(
    make_model: MakeModel, large: Batch, prompts: Prompts, name: str, parts: int
) -> None:
    """In float64, so that only a wrong gradient can differ."""
    model = make_model(**SWITCHES[name]).double()
    batch = {key: tensor.double() if tensor.is_floating_point() else tensor for key, tensor in large.items()}
    expected, gradients = learned(model, iter([model.losses(batch, prompts=prompts)]))
    found, of_parts = learned(
        model,
        micro_batch_losses(
            model, lambda piece, is_last, **k: model(piece, **k), batch, parts, SINGLE_PROCESS, prompts=prompts, objectives=ALL_OBJECTIVES
        ),
    )
    assert found == pytest.approx(expected, rel=1e-6)
    same(of_parts, gradients, 1e-6)  # losses themselves are taken in float32


def test_one_part_of_one_process_is_the_batch_itself(make_model: MakeModel, large: Batch, prompts: Prompts) -> None:
    model = make_model()
    expected, gradients = learned(model, iter([model.losses(large, prompts=prompts)]))
    run = micro_batch_losses(
        model, lambda piece, is_last, **k: model(piece, **k), large, 1, SINGLE_PROCESS, prompts=prompts, objectives=ALL_OBJECTIVES
    )
    found, of_parts = learned(model, run)
    assert found == pytest.approx(expected, rel=1e-6)
    same(of_parts, gradients, 2e-6)


def test_gradients_are_exchanged_with_the_last_part_alone(make_model: MakeModel, large: Batch, prompts: Prompts) -> None:
    model = make_model()
    told: list[tuple[bool, int, int]] = []

    def run(piece: Batch, is_last: bool, **arguments: Any) -> dict[str, Tensor]:
        told.append((is_last, len(piece["images"]), len(piece.get("unpaired_images", ()))))
        return model(piece, **arguments)

    list(micro_batch_losses(model, run, large, 4, SINGLE_PROCESS, prompts=prompts, objectives=["mim"]))
    assert told == [(False, 1, 1), (False, 2, 1), (False, 1, 1), (True, 2, 2)]


def test_every_row_comes_once_with_its_own_numbers(large: Batch) -> None:
    pieces = split_batch(large, 4)
    for name, tensor in large.items():
        assert torch.equal(torch.cat([piece[name] for piece, _ in pieces if name in piece]), tensor)
    assert [(rows.start, rows.stop) for _, rows in pieces] == [(0, 1), (1, 3), (3, 4), (4, 6)]


def test_a_part_may_hold_pairs_alone(large: Batch) -> None:
    few = large | {name: large[name][:1] for name in ("unpaired_images", "unpaired_patch_noise")}
    held = ["unpaired_images" in piece for piece, _ in split_batch(few, 3)]
    assert held == [False, False, True], "the last part has every kind of row"


def test_masks_do_not_depend_on_the_part(make_model: MakeModel, large: Batch, prompts: Prompts) -> None:
    model = make_model()
    everything = model.cached_features(large, prompts=prompts)["hidden"]
    pieces = [(piece, model.cached_features(piece, prompts=prompts)["hidden"]) for piece, _ in split_batch(large, 3)]
    paired = torch.cat([hidden[: len(piece["images"])] for piece, hidden in pieces])
    unpaired = torch.cat([hidden[len(piece["images"]) :] for piece, hidden in pieces])
    assert torch.equal(torch.cat([paired, unpaired]), everything)


class OneOfTwo:
    """A process that has been told what the other one holds."""

    world = 2

    def __init__(self, rank: int, theirs: Tensor, of_features: list[Tensor]) -> None:
        self.rank, self.theirs, self.of_features = rank, theirs, of_features

    def gathered(self, rows: Tensor) -> Tensor:
        theirs = self.theirs[: len(rows)] if rows.ndim == 3 else torch.arange(len(rows)) + 100 * (1 - self.rank)
        return torch.cat([rows, theirs] if self.rank == 0 else [theirs, rows])

    def summed(self, numbers: Tensor) -> Tensor:
        self.of_features.append(numbers)
        return numbers


@pytest.mark.parametrize("half", [True, False])
def test_local_losses_on_gathered_features_are_the_global_loss(half: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(6, 5, generator=generator, requires_grad=True) for _ in range(2))
    scale = torch.tensor(7.0, requires_grad=True)
    loss = align_loss(image, text, scale, half=half)
    of_image, of_text, of_scale = torch.autograd.grad(loss, [image, text, scale])
    both = torch.stack([image, text], dim=1).detach()
    asked: list[Tensor] = []
    found = [
        align_share(both[mine, 0], both[mine, 1], scale, OneOfTwo(rank, both[theirs], asked), half=half)
        for rank, (mine, theirs) in enumerate([(slice(0, 3), slice(3, 6)), (slice(3, 6), slice(0, 3))])
    ]
    torch.testing.assert_close(found[0].loss + found[1].loss, loss.detach())
    torch.testing.assert_close(found[0].scale + found[1].scale, of_scale)
    torch.testing.assert_close(sum(asked), torch.stack([of_image, of_text], dim=1))
    assert not torch.allclose(asked[0][:3, 0], of_image[:3]), "without the other process's share the gradient would be another"


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo asks each tensor for it, and hides the warning in its own way
def test_compiled_blocks_and_masks_have_no_break_and_change_nothing(make_model: MakeModel, large: Batch, prompts: Prompts) -> None:
    """Traced as on a GPU, without the compiler itself, which takes minutes on a CPU; a break would raise."""
    plain, fast = make_model(), make_model()
    compile_blocks(fast.blocks(), backend="eager", whole=True)
    recompute_blocks(fast.blocks())
    fast.hidden_patches = compiled(fast.hidden_patches, backend="eager", whole=True)
    expected, gradients = learned(plain, iter([plain.losses(large, prompts=prompts)]))
    found, of_fast = learned(fast, iter([fast.losses(large, prompts=prompts)]))
    assert found == pytest.approx(expected, rel=1e-6)
    same(of_fast, gradients, 1e-5)


@pytest.mark.parametrize(
    ("paired", "unpaired", "most", "world", "parts"),
    [
        (4, 2, None, 1, 1),
        (4, 2, 2, 1, 3),
        (4, 2, 2, 2, 2),  # three images each, two in the larger part
        (4, 2, 100, 1, 1),
        (2, 10, 1, 1, 2),  # a pair in each
        (0, 6, 2, 1, 3),
    ],
)
def test_a_step_is_taken_in_parts_of_the_size_that_was_asked_for(make_recipe, paired, unpaired, most, world, parts):
    recipe = make_recipe(batch={"paired": paired, "unpaired": unpaired}, compute={"micro_batch": most})
    assert micro_batches_per_step(recipe, world) == parts
