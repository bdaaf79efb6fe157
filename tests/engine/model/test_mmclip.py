"""The towers are CLIP's; the losses of a batch need what they should, and teach what they should."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import ModelError
from engine.model import attmim
from engine.model.losses import mim_loss
from engine.model.mmclip import MMCLIP

MakeModel = Callable[..., MMCLIP]
Prompts = tuple[Tensor, Tensor]
Batch = dict[str, Tensor]
EOT = 1


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def losses(model: MMCLIP, batch: Batch, prompts: Prompts, **arguments: Any) -> dict[str, Tensor]:
    return model.losses(batch, prompts=prompts, generator=seeded(), **arguments)


@pytest.mark.parametrize("decoder", ["text_decoder", "image_decoder"])
def test_heads_that_do_not_divide_the_width_are_refused(make_model: MakeModel, decoder: str) -> None:
    clip, recipe = make_model().clip, make_model().recipe
    section = getattr(recipe.model, decoder).model_copy(update={"heads": 5})
    with pytest.raises(ModelError, match=f"{decoder}'s width 16 is no multiple of its 5 heads"):
        MMCLIP(clip, recipe.model_copy(update={"model": recipe.model.model_copy(update={decoder: section})}))


# ---- which losses ----------------------------------------------------------------------------------------------------------


def test_a_mixed_batch_has_every_loss(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    found = losses(make_model(), batch, prompts)
    assert list(found) == ["align", "mim", "mim_unpaired", "mlm"]
    assert all(loss.ndim == 0 and loss.isfinite() and loss > 0 for loss in found.values())


@pytest.mark.parametrize(
    ("objectives", "names"),
    [({"align"}, ["align"]), ({"mlm"}, ["mlm"]), ({"mim"}, ["mim", "mim_unpaired"]), ({"mim", "mlm"}, ["mim", "mim_unpaired", "mlm"])],
)
def test_objectives_choose_the_losses_and_change_none(
    make_model: MakeModel, batch: Batch, prompts: Prompts, objectives: set[str], names: list[str]
) -> None:
    model = make_model()
    some, everything = losses(model, batch, prompts, objectives=objectives), losses(model, batch, prompts)
    assert list(some) == names
    for name in set(names) - {"mlm"}:  # the draw of entities comes after the draw of patches
        torch.testing.assert_close(some[name], everything[name])


def test_an_unpaired_batch_trains_without_text(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model()
    found = losses(model, {"unpaired_images": batch["unpaired_images"]}, prompts)
    assert list(found) == ["mim_unpaired"]
    found["mim_unpaired"].backward()
    assert reached(model) == {"image tower", "image decoder"}


def test_a_paired_batch_needs_no_unpaired_images(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model()
    with_, without = losses(model, batch, prompts), losses(model, {k: v for k, v in batch.items() if k != "unpaired_images"}, prompts)
    assert list(without) == ["align", "mim", "mlm"]
    torch.testing.assert_close(without["align"], with_["align"])
    torch.testing.assert_close(without["mim"], with_["mim"])


def test_images_alone_teach_nothing_to_align_and_mlm(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    unpaired = {"unpaired_images": batch["unpaired_images"]}
    assert losses(make_model(), unpaired, prompts, objectives={"align", "mlm"}) == {}


def test_an_empty_batch_is_refused(make_model: MakeModel, prompts: Prompts) -> None:
    with pytest.raises(ModelError, match="neither images nor unpaired_images"):
        losses(make_model(), {}, prompts)


@pytest.mark.parametrize(
    ("sections", "gone"),
    [({"attmim": {"strategy": "none"}}, {"mim", "mim_unpaired"}), ({"entmlm": {"strategy": "none"}}, {"mlm"})],
)
def test_the_strategy_none_leaves_its_loss_out(
    make_model: MakeModel, batch: Batch, prompts: Prompts, sections: dict[str, Any], gone: set[str]
) -> None:
    assert set(losses(make_model(**sections), batch, prompts)) == {"align", "mim", "mim_unpaired", "mlm"} - gone


def test_warm_up_may_mask_at_random(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    guided, random = make_model(), make_model(attmim={"strategy": "random"})
    expected = losses(random, batch, prompts)
    found = losses(guided, batch, prompts, mask="random")
    assert found["mim"] == expected["mim"]
    assert found["mim"] != losses(guided, batch, prompts)["mim"]
    assert set(losses(guided, batch, prompts, mask="none")) == {"align", "mlm"}


# ---- what a loss may depend on ---------------------------------------------------------------------------------------------


def test_losses_repeat_with_the_generator(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model(attmim={"top": 0.9, "ratio": 0.5}, entmlm={"ratio": 0.5})
    before = torch.get_rng_state()
    first, again = losses(model, batch, prompts), losses(model, batch, prompts)
    other = model.losses(batch, prompts=prompts, generator=seeded(1))
    assert first == again
    assert first["mim"] != other["mim"]
    assert first["align"] == other["align"]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", ["decoder_attention", "input"])
@pytest.mark.parametrize("targets", ["all", "entities"])
def test_padding_changes_no_loss(make_model: MakeModel, batch: Batch, prompts: Prompts, mode: str, targets: str) -> None:
    model = make_model(entmlm={"mode": mode, "targets": targets})
    # a token after EOT that is not EOT: whatever stands there is padding
    garbage = batch | {"input_ids": torch.where(batch["padding_mask"], 17, batch["input_ids"])}
    garbage_prompts = torch.where(prompts[1], 23, prompts[0]), prompts[1]
    for name, loss in losses(model, batch, prompts).items():
        torch.testing.assert_close(losses(model, garbage, garbage_prompts)[name], loss)


def test_prompts_may_be_longer_than_they_need_be(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model()
    longer = torch.nn.functional.pad(prompts[0], (0, 4), value=EOT), torch.nn.functional.pad(prompts[1], (0, 4), value=True)
    torch.testing.assert_close(losses(model, batch, longer), losses(model, batch, prompts))


def test_masks_come_from_the_projected_tokens_of_both_towers(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model(attmim={"top": 0.4, "ratio": 0.5})
    count, generator = len(batch["images"]), seeded()
    with torch.no_grad():
        image = model.clip.visual_projection(model.encode_images(torch.cat([batch["images"], batch["unpaired_images"]]))[:, 1:])
        report = model.clip.text_projection(model.encode_texts(batch["input_ids"]))
        rows = [model.clip.text_projection(model.encode_texts(ids[None]))[0][~padding] for ids, padding in zip(*prompts, strict=True)]
    prompt = torch.cat(rows)[None]
    paired = attmim.hidden_patches(
        image[:count], prompt, model.recipe.attmim, report=report, padding_mask=batch["padding_mask"], generator=generator
    )
    unpaired = attmim.hidden_patches(image[count:], prompt, model.recipe.attmim, generator=generator)
    found = model._hidden_patches(
        model.encode_images(torch.cat([batch["images"], batch["unpaired_images"]])),
        model.encode_texts(batch["input_ids"]),
        batch,
        prompts,
        "attmim",
        seeded(),
    )
    assert torch.equal(found, torch.cat([paired, unpaired]))


def repaint(images: Tensor, hidden: Tensor) -> Tensor:
    """Other pixels in every hidden patch."""
    where = hidden.reshape(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return torch.where(where, torch.randn(images.shape, generator=seeded(8)), images)


@pytest.fixture
def hidden() -> Tensor:
    """12 of 16 patches, others in each row."""
    return torch.rand(3, 16, generator=seeded(2)).argsort(1) < 12


@pytest.mark.parametrize("source", ["pre_proj", "proj"])
def test_masked_input_keeps_hidden_pixels_from_the_reconstruction(make_model: MakeModel, batch: Batch, hidden: Tensor, source: str) -> None:
    decoder = {"width": 16, "layers": 1, "heads": 2, "input": source}
    model = make_model(attmim={"mask_level": "input"}, model={"image_decoder": decoder})
    images, other = batch["images"], repaint(batch["images"], hidden)
    expected = model._reconstruct(images, model.encode_images(images), hidden)
    assert torch.equal(model._reconstruct(other, model.encode_images(other), hidden), expected)
    visible = model._reconstruct(repaint(images, ~hidden), model.encode_images(images), hidden)
    assert not torch.allclose(visible, expected)


def test_masked_features_have_seen_the_hidden_pixels(make_model: MakeModel, batch: Batch, hidden: Tensor) -> None:
    """Eq 9 to the letter: the encoder sees the whole image before its outputs are hidden. That is why `mask_level: input` exists."""
    model = make_model(attmim={"mask_level": "feature"})
    images, other = batch["images"], repaint(batch["images"], hidden)
    expected = model._reconstruct(images, model.encode_images(images), hidden)
    assert not torch.allclose(model._reconstruct(other, model.encode_images(other), hidden), expected)


def test_visible_patches_keep_their_places(make_model: MakeModel, batch: Batch, hidden: Tensor) -> None:
    model = make_model(attmim={"mask_level": "input"})
    images = batch["images"]
    tokens = torch.zeros(3, 16, 16)
    for row in range(3):
        kept = (~hidden[row]).nonzero().flatten()
        tokens[row, kept] = model.encode_images(images[row : row + 1], kept[None])[0, 1:]
    torch.testing.assert_close(model._reconstruct(images, model.encode_images(images), hidden), model.image_decoder(tokens, hidden))


def test_a_mask_token_stands_in_for_hidden_words_at_the_input(make_model: MakeModel, batch: Batch) -> None:
    model = make_model(entmlm={"mode": "input"})
    ids = batch["input_ids"]
    hidden = torch.zeros_like(ids, dtype=torch.bool)
    hidden[:, 2:4] = True
    tokens = model.encode_texts(ids, hidden)
    assert torch.equal(model.encode_texts(torch.where(hidden, 9, ids), hidden), tokens)
    assert not torch.allclose(model.encode_texts(ids), tokens)


def test_targets_may_be_the_hidden_entities_alone(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model(entmlm={"targets": "entities", "ratio": 1.0, "strategy": "entity"})
    found = losses(model, batch, prompts, objectives={"mlm"})["mlm"]
    last = batch["input_ids"].clone()
    last[2, 5] = (last[2, 5] + 1) % 37 + 2  # the third report names no entity: none of its words is a target
    assert losses(model, batch | {"input_ids": last}, prompts, objectives={"mlm"})["mlm"] == found
    last[0, 4] = (last[0, 4] + 1) % 37 + 2
    assert losses(model, batch | {"input_ids": last}, prompts, objectives={"mlm"})["mlm"] != found


def test_equal_reports_are_right_answers_where_the_recipe_says_so(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    batch = batch | {"report_group": torch.tensor([4, 4, 2])}
    pair, group = make_model(), make_model(objective={"positives": "group"})
    without = {key: value for key, value in batch.items() if key != "report_group"}
    assert losses(pair, batch, prompts)["align"] == losses(pair, without, prompts)["align"] == losses(group, without, prompts)["align"]
    assert losses(group, batch, prompts)["align"] != losses(pair, batch, prompts)["align"]


# ---- gradients -------------------------------------------------------------------------------------------------------------


def reached(model: MMCLIP) -> set[str]:
    """The parts of the model that have a gradient other than zero somewhere."""
    parts = {
        "clip.vision_model": "image tower",
        "clip.text_model": "text tower",
        "clip.visual_projection": "image projection",
        "clip.text_projection": "text projection",
        "clip.logit_scale": "logit scale",
        "image_decoder": "image decoder",
        "text_decoder": "text decoder",
        "text_mask_token": "text mask token",
    }
    found = set()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.grad.abs().max() > 0:
            found.add(next(part for prefix, part in parts.items() if name.startswith(prefix)))
    return found


ALIGN = {"image tower", "text tower", "image projection", "text projection", "logit scale"}


@pytest.mark.parametrize("level", ["feature", "input"])
@pytest.mark.parametrize(
    ("objective", "parts"),
    [
        ("align", ALIGN),
        ("mim", {"image tower", "image decoder"}),
        ("mlm", {"image tower", "text tower", "text decoder"}),
    ],
)
def test_gradients_reach_what_they_should_and_nothing_else(
    make_model: MakeModel, batch: Batch, prompts: Prompts, level: str, objective: str, parts: set[str]
) -> None:
    model = make_model(attmim={"mask_level": level})
    sum(losses(model, batch, prompts, objectives={objective}).values(), torch.zeros(())).backward()
    assert reached(model) == parts


def test_a_decoder_of_projected_tokens_teaches_the_projection(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model(model={"image_decoder": {"width": 16, "layers": 1, "heads": 2, "input": "proj"}})
    losses(model, batch, prompts, objectives={"mim"})["mim"].backward()
    assert reached(model) == {"image tower", "image projection", "image decoder"}


def test_words_hidden_at_the_input_teach_their_mask_token(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model(entmlm={"mode": "input"})
    losses(model, batch, prompts, objectives={"mlm"})["mlm"].backward()
    assert reached(model) == {"image tower", "text tower", "text decoder", "text mask token"}


def test_with_all_objectives_every_parameter_learns(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model()
    sum(losses(model, batch, prompts).values(), torch.zeros(())).backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.abs().max() > 0}
    # a softmax does not feel a number added to every key
    assert {name for name in idle if not name.endswith("k_proj.bias")} == set()


def test_attention_maps_teach_nothing(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    """The image tower learns from the reconstruction alone: the gradient is that of the same mask given from outside."""
    model = make_model(attmim={"mask_level": "input"})
    unpaired = {"unpaired_images": batch["unpaired_images"]}
    losses(model, unpaired, prompts)["mim_unpaired"].backward()
    guided = [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    images = batch["unpaired_images"]
    with torch.no_grad():
        hidden = model._hidden_patches(model.encode_images(images), None, unpaired, prompts, "attmim", seeded())
    mim_loss(model._reconstruct(images, images.new_zeros(2, 17, 16), hidden), images, hidden, norm_pix=True).backward()
    for parameter, gradient in zip(model.parameters(), guided, strict=True):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient)


def test_the_logit_scale_stops_at_its_limit_and_can_come_back(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model(objective={"max_logit_scale": 20.0})
    with torch.no_grad():
        model.clip.logit_scale.fill_(5.0)
    losses(model, batch, prompts, objectives={"align"})["align"].backward()
    assert model.clip.logit_scale.exp().item() == pytest.approx(20.0)
    assert model.clip.logit_scale.grad is not None
    assert model.clip.logit_scale.grad != 0


# ---- training --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["feature", "input"])
def test_bfloat16_autocast_computes_nearly_the_same_losses(make_model: MakeModel, batch: Batch, prompts: Prompts, level: str) -> None:
    model = make_model(attmim={"mask_level": level, "strategy": "random"})
    exact = losses(model, batch, prompts)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = losses(model, batch, prompts)
    assert all(loss.dtype == torch.float32 for loss in coarse.values())
    torch.testing.assert_close(coarse, exact, rtol=0.03, atol=0.03)
    sum(coarse.values(), torch.zeros(())).backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_few_steps_on_one_batch_lower_every_loss(make_model: MakeModel, batch: Batch, prompts: Prompts) -> None:
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = {name: loss.item() for name, loss in losses(model, batch, prompts).items()}
    for _ in range(15):
        optimizer.zero_grad()
        found = losses(model, batch, prompts)
        sum(found.values(), torch.zeros(())).backward()
        optimizer.step()
    assert all(found[name] < 0.97 * first[name] for name in first)
