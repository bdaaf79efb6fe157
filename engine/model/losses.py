"""The three losses (MMCLIP, eqs 12-15): means over hidden patches, target words and pairs, always in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class BatchContext:
    """Totals of the whole batch that the losses of a micro-batch need, so that they add up.

    Attributes:
        hidden: number of hidden patches, for `mim` and `mim_unpaired`.
        targets: number of target words of `mlm`.
        align: (image (b, C), text (b, C), logit scale) of the micro-batch -> its share of `align`; None where that is not trained.
    """

    hidden: Mapping[str, Tensor | int]
    targets: Tensor | None
    align: Callable[[Tensor, Tensor, Tensor], Tensor] | None


def patchify(images: Tensor, patch: int) -> Tensor:
    """The grey patches of (B, 3, S, S) images: (B, N, patch * patch), row by row as CLIP's ViT numbers them.

    A radiograph's three channels are copies of one another, so their mean loses nothing, and the decoder predicts a third of the values.
    """
    grey = images.float().mean(dim=1)
    batch, side, _ = grey.shape
    grid = side // patch
    return grey.reshape(batch, grid, patch, grid, patch).permute(0, 1, 3, 2, 4).reshape(batch, grid * grid, patch * patch)


def mim_loss(predicted: Tensor, images: Tensor, hidden: Tensor, *, norm_pix: bool, total: Tensor | int | None = None) -> Tensor:
    """Mean squared error on hidden patches only (eq 12).

    Args:
        predicted: (B, N, patch * patch).
        images: (B, 3, S, S), as given to the encoder.
        hidden: (B, N), True = hidden.
        norm_pix: compare with patches normalised by their own mean and deviation.
        total: hidden patches of the whole batch, where this is a micro-batch of it: their losses then add up to the batch's.
    """
    target = patchify(images, round(predicted.shape[-1] ** 0.5))
    if norm_pix:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    error = (predicted.float() - target).square().mean(-1)
    return (error * hidden).sum() / _at_least_one(hidden.sum() if total is None else total)


def _at_least_one(count: Tensor | int) -> Tensor | int:
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)


def mlm_loss(logits: Tensor, input_ids: Tensor, counted: Tensor, total: Tensor | None = None) -> Tensor:
    """Next-token cross-entropy (eq 13): position t predicts token t + 1.

    Args:
        logits: (B, T, V).
        input_ids: (B, T).
        counted: (B, T), True for tokens that are targets; the first never is.
        total: targets of the whole batch, where this is a micro-batch of it.
    """
    ignored = -100
    targets = torch.where(counted, input_ids, ignored)[:, 1:]
    summed = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=ignored, reduction="sum")
    return summed / _at_least_one((targets != ignored).sum() if total is None else total)


def align_loss(
    image: Tensor, text: Tensor, logit_scale: Tensor, *, half: bool, group: Tensor | None = None, rows: slice | None = None
) -> Tensor:
    """Symmetric InfoNCE (eqs 14, 15).

    Args:
        image, text: (B, C) pooled embeddings, not yet normalised; row i of one belongs to row i of the other.
        logit_scale: the multiplier of the cosines, already exponentiated and clamped.
        half: halve the sum of both directions, as CLIP does.
        group: (B,) int64; rows of the same group say the same, and all of them are positives with equal weight. None: row i alone.
        rows: the loss of these rows alone, among all; the losses of slices of the batch add up to the batch's.
    """
    rows = rows or slice(None)
    image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    with torch.autocast(image.device.type, enabled=False):  # a bfloat16 logit near 100 moves in steps of a half
        of_images, of_texts = logit_scale.float() * (image[rows] @ text.T), logit_scale.float() * (text[rows] @ image.T)
    if group is None:
        target = torch.arange(len(image), device=image.device)[rows]
    else:
        same = (group[rows, None] == group[None, :]).float()
        target = same / same.sum(1, keepdim=True)
    loss = F.cross_entropy(of_images, target, reduction="sum") + F.cross_entropy(of_texts, target, reduction="sum")
    return loss / len(image) / (2 if half else 1)
