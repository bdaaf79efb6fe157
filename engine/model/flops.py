"""Floating-point operations of one training step, by formula, for model FLOPs utilisation (MFU).

Counted are products of matrices, two operations for each multiply and add, as torch.utils.flop_counter counts them (the tests hold
both equal). A backward pass costs twice the forward pass, except for the patch embedding, whose input needs no gradient. Not counted:
norms, activations, softmax, the optimizer, and recomputation (activation checkpointing, cached features). Attention counts in full,
also where a causal mask leaves half of it unused.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.model.mmclip import MMCLIP
    from engine.recipe.pretraining import MaskStrategy, Objective

BACK = 2
"""Operations of the backward pass per operation of the forward pass."""


@dataclass(frozen=True)
class StepFlops:
    """Floating-point operations of one step, backward pass included, by component of the model; `total` is their sum."""

    image_tower: int = 0
    text_tower: int = 0
    image_decoder: int = 0
    text_decoder: int = 0
    masks: int = 0
    """Attention maps and prompts: forward pass only, since they have no gradient."""
    align: int = 0

    @property
    def total(self) -> int:
        """Of the whole step."""
        return self.image_tower + self.text_tower + self.image_decoder + self.text_decoder + self.masks + self.align


def linear(rows: int, source: int, width: int) -> int:
    """(rows, source) times (source, width)."""
    return 2 * rows * source * width


def attention(batch: int, queries: int, keys: int, width: int) -> int:
    """Queries times keys, and weights times values; the heads share the width."""
    return 2 * linear(batch * queries, width, keys)


def block(batch: int, length: int, width: int, mlp: int, source: tuple[int, int] | None = None) -> int:
    """Forward pass of a transformer block; `source`: (tokens, width) of its cross-attention."""
    rows = batch * length
    flops = 4 * linear(rows, width, width) + attention(batch, length, length, width) + 2 * linear(rows, width, mlp)
    if source is not None:
        tokens, source_width = source
        flops += 2 * linear(rows, width, width) + linear(batch * tokens, source_width, 2 * width) + attention(batch, length, tokens, width)
    return flops


def step_flops(
    model: MMCLIP,
    *,
    paired: int,
    unpaired: int,
    text: int,
    prompts: tuple[int, int] = (1, 1),
    objectives: Collection[Objective] = ("align", "mim", "mlm"),
    mask: MaskStrategy | None = None,
) -> StepFlops:
    """Operations of `model.losses` and its gradients for such a batch.

    Args:
        paired, unpaired: images with and without a report.
        text: T, the length that reports are padded to.
        prompts: (P, T) of the disease prompts.
        objectives, mask: as `MMCLIP.losses` takes them.
    """
    recipe, vision, words = model.recipe, model.clip.config.vision_config, model.clip.config.text_config
    channels = model.clip.config.projection_dim
    strategy = mask or recipe.attmim.strategy
    with_mim = "mim" in objectives and strategy != "none"
    with_mlm = "mlm" in objectives and recipe.entmlm.strategy != "none" and paired > 0
    with_align = "align" in objectives and paired > 0
    if not (with_mim or with_mlm or with_align):
        return StepFlops()
    images = paired + (unpaired if with_mim else 0)
    patches = (vision.image_size // vision.patch_size) ** 2
    width, trained = vision.hidden_size, 1 + BACK

    embedding = linear(images * patches, 3 * vision.patch_size**2, width)

    def tower(batch: int, length: int) -> int:
        return int(vision.num_hidden_layers * block(batch, length, width, vision.intermediate_size))

    def texts(batch: int, length: int) -> int:
        return int(words.num_hidden_layers * block(batch, length, words.hidden_size, words.intermediate_size))

    # with `input`, MIM or MLM learns from a second pass: the first one has a gradient only where another objective uses it
    is_read = with_align or with_mlm or recipe.attmim.mask_level == "feature"
    image_tower = trained * tower(images, 1 + patches) + (1 + BACK // 2) * embedding
    if not is_read:
        image_tower = tower(images, 1 + patches) + embedding
    report_masks = with_mim and strategy in ("attmim", "report")
    text_tower = 0
    if paired and (with_align or with_mlm):
        text_tower = (trained if with_align or recipe.entmlm.mode == "decoder_attention" else 1) * texts(paired, text)
    align = 0
    if with_align:
        cosines = 2 * linear(paired, channels, paired)  # images among texts, and texts among images
        align = trained * (linear(paired, width, channels) + linear(paired, words.hidden_size, channels) + cosines)

    image_decoder = masks = 0
    if with_mim:
        decoder = recipe.model.image_decoder
        source = width
        if recipe.attmim.mask_level == "input":  # a second pass over what the mask leaves visible
            visible = patches - round(recipe.attmim.ratio * patches)
            image_tower += trained * tower(images, 1 + visible) + (1 + BACK // 2) * embedding
        if decoder.input == "proj":
            image_tower += trained * linear(images * patches, width, channels)
            source = channels
        rows = images * patches
        image_decoder = trained * (
            linear(rows, source, decoder.width)
            + decoder.layers * block(images, patches, decoder.width, 4 * decoder.width)
            + linear(rows, decoder.width, vision.patch_size**2)
        )
        masks = linear(rows, width, channels)
        if report_masks and paired:
            masks += linear(paired * text, words.hidden_size, channels) + attention(paired, patches, text, channels)
            masks += 0 if with_align or with_mlm else texts(paired, text)
        elif paired and text_tower:
            masks += linear(paired * text, words.hidden_size, channels)
        if strategy in ("attmim", "prompt"):
            count, length = prompts
            masks += texts(count, length) + linear(count * length, words.hidden_size, channels)
            masks += attention(images, patches, count * length, channels)
        if strategy in ("attmim", "self"):
            masks += attention(images, patches, patches, channels)
        elif strategy == "report":
            masks += attention(unpaired, patches, patches, channels)  # an image without a report attends to itself

    text_decoder = 0
    if with_mlm:
        layers = recipe.model.text_decoder.layers
        size = words.hidden_size
        forward = layers * block(paired, text, size, 4 * size, (1 + patches, width)) + linear(paired * text, size, words.vocab_size)
        text_decoder = trained * forward
        if recipe.entmlm.mode == "input":
            text_tower += trained * texts(paired, text)
    return StepFlops(image_tower, text_tower, image_decoder, text_decoder, masks, align)
