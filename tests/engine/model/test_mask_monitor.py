"""Looking at a model tells what its masks do, and changes nothing."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from engine.model.flops import step_flops
from engine.model.mask_monitor import MaskMonitor
from engine.model.mmclip import MMCLIP
from engine.model.preprocessing import Preprocessing

MakeModel = Callable[..., MMCLIP]
MakeWatch = Callable[..., MaskMonitor]


@pytest.fixture
def make_watch(make_model: MakeModel, batch: dict[str, Tensor], prompts: tuple[Tensor, Tensor]) -> MakeWatch:
    def make(writes: bool = True, halves: tuple[str, ...] = ("images", "unpaired_images"), **sections: Any) -> MaskMonitor:
        rows = {name: tensor for name, tensor in batch.items() if name in halves or "images" not in name}
        if "images" not in halves:
            rows = {"unpaired_images": rows["unpaired_images"]}
        sections = {"warmup": {"iterations": 2, "mask": "random"}, "batch": {"paired": 6, "unpaired": 4}} | sections
        return MaskMonitor(
            make_model(**sections),
            Preprocessing(32, "squash", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
            prompts,
            rows,
            lambda step: rows,
            lambda step, purpose: torch.Generator().manual_seed(step),
            lambda: nullcontext(),
            writes,
        )

    return make


def test_numbers_of_both_halves_and_of_the_words(make_watch: MakeWatch) -> None:
    facts = make_watch().masks(2)
    assert facts.keys() == {"paired", "unpaired", "words"}
    assert facts["paired"].keys() == {"hidden", "overlap", "union", "topped_up"}
    assert facts["paired"]["hidden"] == facts["unpaired"]["hidden"] == 0.75
    assert all(isinstance(value, float) and 0 <= value <= 1 for half in ("paired", "unpaired") for value in facts[half].values())
    assert facts["words"]["entities"] == 1.0


def test_warm_up_is_told_with_its_own_masks(make_watch: MakeWatch) -> None:
    assert "union" not in make_watch().masks(1)["paired"]  # random masks read no map


@pytest.mark.parametrize(
    ("sections", "halves"),
    [
        ({"attmim": {"strategy": "none"}}, {"words"}),
        ({"entmlm": {"strategy": "none"}}, {"paired", "unpaired"}),
        ({"attmim": {"strategy": "none"}, "entmlm": {"strategy": "none"}}, set()),
    ],
)
def test_what_a_recipe_does_not_do_is_not_told(sections: dict[str, Any], halves: set[str], make_watch: MakeWatch) -> None:
    assert make_watch(**sections).masks(2).keys() == halves


def test_a_run_without_reports_has_no_words(make_watch: MakeWatch) -> None:
    assert make_watch(halves=("unpaired_images",)).masks(2).keys() == {"unpaired"}


def test_figures_show_both_halves_of_the_sample(make_watch: MakeWatch, tmp_path: Path) -> None:
    assert make_watch().draw(2, tmp_path / "pictures" / "one.png")
    assert make_watch(halves=("images",)).draw(2, tmp_path / "pictures" / "two.png")
    with Image.open(tmp_path / "pictures" / "one.png") as one, Image.open(tmp_path / "pictures" / "two.png") as two:
        assert one.width == two.width
        assert one.height > two.height


def test_the_same_model_draws_the_same_figure_after_any_step(make_watch: MakeWatch, tmp_path: Path) -> None:
    watch = make_watch()
    for step in (2, 9):
        watch.draw(step, tmp_path / f"{step}.png")
    assert (tmp_path / "2.png").read_bytes() == (tmp_path / "9.png").read_bytes()


def test_processes_beside_the_first_write_nothing(make_watch: MakeWatch, tmp_path: Path) -> None:
    assert not make_watch(writes=False).draw(2, tmp_path / "one.png")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_takes_no_picture_is_told(make_watch: MakeWatch, tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("a file where the folder should be")
    assert not make_watch().draw(2, tmp_path / "pictures" / "one.png")


def test_looking_leaves_weights_and_torch_s_dice_alone(make_watch: MakeWatch, tmp_path: Path) -> None:
    watch = make_watch()
    before = {name: tensor.clone() for name, tensor in watch.module.state_dict().items()}
    dice = torch.get_rng_state()
    watch.masks(2)
    watch.draw(2, tmp_path / "one.png")
    assert torch.equal(torch.get_rng_state(), dice)
    assert all(torch.equal(before[name], tensor) for name, tensor in watch.module.state_dict().items())
    assert all(parameter.grad is None for parameter in watch.module.parameters())


def test_a_step_costs_what_the_recipe_s_batch_costs(make_watch: MakeWatch) -> None:
    watch = make_watch()
    size = {"paired": 6, "unpaired": 4, "text": 12, "prompts": tuple(watch.prompts[0].shape)}
    assert watch.flops(2) == step_flops(watch.module, **size)
    assert watch.flops(0) == step_flops(watch.module, **size, objectives=("mim", "mlm"), mask="random")


def test_nothing_is_compiled_for_the_few_rows_that_are_looked_at(make_watch: MakeWatch, tmp_path: Path) -> None:
    watch = make_watch()
    expected = watch.masks(2)
    for block in watch.module.blocks():
        block.forward = torch.compile(block.forward, backend=_refused)
    assert watch.masks(2) == expected
    assert watch.draw(2, tmp_path / "one.png")


def _refused(graph: Any, inputs: Any) -> Any:
    raise AssertionError("a block was compiled")
