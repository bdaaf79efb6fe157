"""Numbers about masks say what the masks are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.model.mask_diagnostics import MaskSnapshot, mask_statistics, word_statistics
from engine.model.mmclip import MMCLIP
from engine.recipe.pretraining import EntMLM

MakeModel = Callable[..., MMCLIP]
Prompts = tuple[Tensor, Tensor]
Batch = dict[str, Tensor]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_both_halves_are_seen_and_one_without_reports_has_no_map_of_them(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    seen = make_model().inspect_masks(batch, prompts=prompts, generator=seeded(), predict=True)
    assert set(seen["paired"].maps) == {"report", "prompt", "self"}
    assert set(seen["unpaired"].maps) == {"prompt", "self"}
    for half, count in (("paired", 3), ("unpaired", 2)):
        assert seen[half].hidden.shape == (count, 16)
        assert seen[half].hidden.sum(1).tolist() == [12] * count  # 0.75 of 16
        assert seen[half].predicted is not None
        assert seen[half].predicted.shape == (count, 16, 64)
    del batch["images"]
    assert set(make_model().inspect_masks(batch, prompts=prompts)) == {"unpaired"}


def test_what_is_seen_is_what_the_losses_hide(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model()
    del batch["unpaired_images"]
    looked: list[Tensor] = []
    handle = model.image_decoder.register_forward_pre_hook(lambda module, inputs: looked.append(inputs[1]))
    model.losses(batch, prompts=prompts, objectives=("mim",), generator=seeded())
    handle.remove()
    assert torch.equal(model.inspect_masks(batch, prompts=prompts, generator=seeded())["paired"].hidden, looked[0])


def test_seeing_leaves_no_gradient_and_changes_no_weight(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen = model.inspect_masks(batch, prompts=prompts, predict=True)["paired"]
    assert not any(tensor.requires_grad for tensor in (*seen.maps.values(), seen.predicted) if tensor is not None)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("strategy", "paired", "unpaired"),
    [
        ("attmim", ["report", "prompt", "self"], ["prompt", "self"]),
        ("report", ["report"], ["self"]),
        ("prompt", ["prompt"], ["prompt"]),
        ("self", ["self"], ["self"]),
    ],
)
def test_the_union_is_of_the_maps_that_the_strategy_reads(
    strategy: str, paired: list[str], unpaired: list[str], make_model: MakeModel, batch: Batch, prompts: Prompts
) -> None:
    seen = make_model().inspect_masks(batch, prompts=prompts, mask=strategy)
    for half, names in (("paired", paired), ("unpaired", unpaired)):
        union = seen[half].union
        assert union is not None
        assert torch.equal(union, torch.stack([seen[half].proposed[name] for name in names]).any(0))
        # hidden patches come from the union first
        assert ((seen[half].hidden & union).sum(1) == torch.minimum(union.sum(1), seen[half].hidden.sum(1))).all()


def test_strategies_that_read_no_map_have_no_union(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    random = make_model().inspect_masks(batch, prompts=prompts, mask="random")["paired"]
    assert random.union is None
    assert mask_statistics(random).keys() == {"hidden", "overlap"}
    nothing = make_model().inspect_masks(batch, prompts=prompts, mask="none", predict=True)["paired"]
    assert not nothing.hidden.any()
    assert nothing.predicted is None


def rows(*patches: str) -> Tensor:
    return torch.tensor([[patch == "x" for patch in row] for row in patches])


def test_numbers_about_masks_by_hand() -> None:
    proposed = {"report": rows("xx..", "xxxx"), "prompt": rows(".xx.", "xxxx"), "self": rows("xx..", "xxxx")}
    union = rows("xxx.", "xxxx")
    seen = MaskSnapshot(torch.zeros(2, 3, 4, 4), {}, proposed, union, rows(".xxx", "xxx."), None)
    facts = {name: float(value) for name, value in mask_statistics(seen).items()}
    # first image: pairs share 1 of 3, 2 of 2, 1 of 3; second: all of all
    assert facts == pytest.approx({"hidden": 0.75, "overlap": ((1 / 3 + 1 + 1 / 3) / 3 + 1) / 2, "union": 7 / 8, "topped_up": 1 / 6})


def test_maps_of_chance_overlap_as_the_docstring_says() -> None:
    generator = torch.Generator().manual_seed(1)
    proposed = {name: torch.rand(200, 196, generator=generator).argsort(1).argsort(1) < 137 for name in ("report", "prompt", "self")}
    union = torch.stack(list(proposed.values())).any(0)
    facts = mask_statistics(MaskSnapshot(torch.zeros(200, 3, 4, 4), {}, proposed, union, union, None))
    assert float(facts["overlap"]) == pytest.approx(0.54, abs=0.01)
    assert float(facts["union"]) == pytest.approx(0.97, abs=0.01)


def test_numbers_about_words(reports: dict[str, Tensor]) -> None:
    """Reports of 4, 7 and 10 words, with two, one and no entity, of 3, 3 and no words."""
    whole = {name: float(value) for name, value in word_statistics(reports, EntMLM(ratio=1.0)).items()}
    assert whole == pytest.approx({"words": 7, "hidden": (3 / 4 + 3 / 7) / 3, "entities": 1, "entities_hidden": 1, "without_entity": 1 / 3})
    fifth = word_statistics(reports, EntMLM(ratio=0.2), seeded())  # at least one entity of a report that has any
    assert float(fifth["entities_hidden"]) == pytest.approx(2 / 3)
    assert float(word_statistics(reports, EntMLM(strategy="full"))["hidden"]) == 0
