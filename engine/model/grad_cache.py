"""Gradient caching: a batch in micro-batches, on one process or many, whose losses and gradients add up to those of the whole batch.

What makes this exact:

    masks    are drawn with uniform numbers per row (`with_mask_noise`), so that they do not depend on the micro-batch of the row
    mim, mlm are sums over the micro-batch divided by the hidden patches and target words of the whole batch, over all processes
    align    needs all pairs at once. Pooled features of all micro-batches are computed without gradient, InfoNCE is taken on all of them,
             and each micro-batch then back-propagates the gradient of its own features (gradient caching, Gao et al. 2021, arXiv
             2101.06983). Each process computes the loss of its own rows among the features of all (open_clip's local loss with gathered
             features), and gradients for features of other processes are summed: the result is the gradient of the global loss.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from engine.model.losses import BatchContext, align_loss

if TYPE_CHECKING:
    from engine.model.mmclip import MMCLIP
    from engine.recipe.pretraining import MaskStrategy, Objective, PretrainRecipe

Batch = Mapping[str, Tensor]
UNPAIRED = ("unpaired_images", "unpaired_patch_noise")
"""Names of a batch's tensors for images without a report; all others are of the pairs."""


class ProcessGroup(Protocol):
    """The processes that hold the other rows of a batch; `engine.training.distributed.Ranks` is one."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def world(self) -> int:
        """Number of processes."""

    def gathered(self, rows: Tensor) -> Tensor:
        """(B, ...) of every process -> (world * B, ...), in order of rank, without gradient."""

    def summed(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, without gradient."""


class Forward(Protocol):
    """The model's forward pass, wrapped for its processes; `engine.training.parallel.ParallelModule` is one."""

    def __call__(self, batch: Batch, *, is_last: bool, **arguments: Any) -> dict[str, Tensor]:
        """`is_last`: gradients are exchanged in the backward pass of this call."""


@dataclass(frozen=True)
class AlignShare:
    """InfoNCE of a process's rows among those of all processes, with the gradients of the whole loss for its features.

    Attributes:
        loss: scalar; the shares of all processes add up to the loss of the whole batch.
        image, text: (B, C) gradients for this process's features.
        scale: scalar, the gradient of this process's share for the logit scale.
    """

    loss: Tensor
    image: Tensor
    text: Tensor
    scale: Tensor


def micro_batches_per_step(recipe: PretrainRecipe, world: int = 1) -> int:
    """Number of micro-batches of each of `world` processes in a step, by `compute.micro_batch`; each holds at least one pair."""
    paired, unpaired = recipe.batch.paired // world, recipe.batch.unpaired // world
    most = recipe.compute.micro_batch or paired + unpaired
    return max(1, min(-(-(paired + unpaired) // most), paired or unpaired))


def with_mask_noise(batch: Batch, patches: int, uniform: Callable[[int, int], Tensor]) -> dict[str, Tensor]:
    """The batch with the random numbers of its masks: `patch_noise` (B, N), `unpaired_patch_noise` (U, N), `word_noise` (B, T + 1).

    Args:
        patches: N, of one image.
        uniform: (rows, columns) -> numbers in [0, 1).
    """
    noisy = dict(batch)
    if "images" in batch:
        noisy["patch_noise"] = uniform(len(batch["images"]), patches)
    if "unpaired_images" in batch:
        noisy["unpaired_patch_noise"] = uniform(len(batch["unpaired_images"]), patches)
    if "images" in batch:
        noisy["word_noise"] = uniform(len(batch["images"]), batch["input_ids"].shape[1] + 1)
    return noisy


def split_batch(batch: Batch, count: int) -> list[tuple[dict[str, Tensor], slice]]:
    """The batch in `count` micro-batches, each with the rows of its pairs in the batch; sizes differ by one at most.

    The last one is the largest and has every kind of row of the batch: DDP exchanges gradients in its backward pass, and leaves out
    parameters that have none there.
    """
    pairs, singles = (len(batch[name]) if name in batch else 0 for name in ("images", "unpaired_images"))
    micro_batches = []
    for index in range(count):
        rows = {False: _rows_of(pairs, index, count), True: _rows_of(singles, index, count)}
        cut = {name: tensor[rows[name in UNPAIRED]] for name, tensor in batch.items()}
        micro_batches.append(({name: tensor for name, tensor in cut.items() if len(tensor)}, rows[False]))
    return micro_batches


def _rows_of(rows: int, index: int, count: int) -> slice:
    return slice(rows * index // count, rows * (index + 1) // count)


def micro_batch_losses(
    model: MMCLIP,
    forward: Forward,
    batch: Batch,
    count: int,
    processes: ProcessGroup,
    *,
    prompts: tuple[Tensor, Tensor],
    objectives: Collection[Objective],
    mask: MaskStrategy | None = None,
) -> Iterator[dict[str, Tensor]]:
    """The losses of this process's rows of a batch, by micro-batch; they add up to the losses of the whole batch over all processes.

    Args:
        forward: the model's forward pass, wrapped for its processes.
        batch: with the numbers of `with_mask_noise`.
        count: number of micro-batches: at most the number of pairs, or of images where there are no pairs.
        prompts, objectives, mask: as `MMCLIP.losses` takes them.

    Each micro-batch must be differentiated before the next one is requested.
    """
    micro_batches = split_batch(batch, count)
    arguments: dict[str, Any] = {"prompts": prompts, "objectives": objectives, "mask": mask}
    by_union = model.recipe.attmim.ratio_of == "union" and (mask or model.recipe.attmim.strategy) not in ("random", "none")
    is_aligned = "align" in objectives and "images" in batch
    features: list[dict[str, Tensor]] = []
    if by_union or (is_aligned and count > 1):
        features = [model.cached_features(each, **arguments) for each, _ in micro_batches]

    hidden = _hidden_in_all(model, batch, micro_batches, features if by_union else [], processes)
    targets = processes.summed(model.targets(batch)) if "images" in batch else None
    group = batch.get("report_group") if model.recipe.objective.positives == "group" else None

    def share_of(image: Tensor, text: Tensor, logit_scale: Tensor) -> AlignShare:
        return align_share(image, text, logit_scale, processes, half=model.recipe.objective.half, group=group)

    cached = None
    if is_aligned and count > 1:
        image, text = (torch.cat([each[name] for each in features if name in each]) for name in ("image", "text"))
        cached = share_of(image, text, model.logit_scale())
    for index, (each, rows) in enumerate(micro_batches):
        align = _align_of_rows(share_of, cached, rows) if is_aligned else None
        yield forward(each, is_last=index == count - 1, batch_context=BatchContext(hidden, targets, align), **arguments)


def _align_of_rows(
    share_of: Callable[[Tensor, Tensor, Tensor], AlignShare], cached: AlignShare | None, rows: slice
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The `align` loss of a micro-batch, with the cached gradient; None: the micro-batch is all that this process has."""

    def align(image: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
        share, mine = (share_of(image, text, logit_scale), slice(None)) if cached is None else (cached, rows)
        part = len(image) / len(share.image)
        surrogate = (image.float() * share.image[mine]).sum() + (text.float() * share.text[mine]).sum() + part * share.scale * logit_scale
        return surrogate - surrogate.detach() + part * share.loss

    return align


def align_share(
    image: Tensor, text: Tensor, logit_scale: Tensor, processes: ProcessGroup, *, half: bool, group: Tensor | None = None
) -> AlignShare:
    """InfoNCE on the features of all processes, and its gradients; nothing is back-propagated into the arguments.

    Args:
        image, text: (B, C), this process's rows, not yet normalised.
        group: (B,), as `align_loss` takes it.
    """
    rows = slice(processes.rank * len(image), (processes.rank + 1) * len(image))
    both = torch.stack([image.detach().float(), text.detach().float()], dim=1)  # (B, 2, C): one exchange each way
    with torch.enable_grad():
        gathered, scale = processes.gathered(both).requires_grad_(), logit_scale.detach().clone().requires_grad_()
        groups = None if group is None else processes.gathered(group)
        loss = align_loss(gathered[:, 0], gathered[:, 1], scale, half=half, group=groups, rows=rows)
        of_features, of_scale = torch.autograd.grad(loss, [gathered, scale])
    mine = processes.summed(of_features)[rows]
    return AlignShare(loss.detach(), mine[:, 0], mine[:, 1], of_scale)


def _hidden_in_all(
    model: MMCLIP,
    batch: Batch,
    micro_batches: list[tuple[dict[str, Tensor], slice]],
    features: list[dict[str, Tensor]],
    processes: ProcessGroup,
) -> dict[str, Tensor | int]:
    """Number of hidden patches of the whole batch, over all processes: counted from the masks in `features`, else known beforehand."""
    if features and "hidden" in features[0]:
        paired = sum(each["hidden"][: len(rows.get("images", ()))].sum() for (rows, _), each in zip(micro_batches, features, strict=True))
        everything = sum(each["hidden"].sum() for each in features)
        counts = processes.summed(torch.stack([torch.as_tensor(paired), torch.as_tensor(everything)]))
        return {"mim": counts[0], "mim_unpaired": counts[1] - counts[0]}
    names = {"mim": "images", "mim_unpaired": "unpaired_images"}
    of_one = round(model.recipe.attmim.ratio * model.patches)
    return {name: processes.world * of_one * len(batch[images]) for name, images in names.items() if images in batch}
