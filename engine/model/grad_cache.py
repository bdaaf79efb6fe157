"""One batch in parts, on one process or many: the parts' losses and gradients add up to those of the whole batch.

What makes that exact:

    masks    are drawn with uniform numbers that belong to each row (`with_noise`), whatever part the row comes to stand in
    mim, mlm are sums over the part divided by the hidden patches and target words of the whole batch, over all processes
    align    needs every pair at once. Pooled features of all parts are made without gradient, InfoNCE is taken on all of them, and each
             part then carries the gradient of its own features back through the towers (gradient caching, Gao et al. 2021, arXiv
             2101.06983). Each process answers for its own rows among the features of all (open_clip's local loss with gathered features),
             and what other processes' rows ask of its features is added up: nothing of the global loss's gradient is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from engine.model.losses import Whole, align_loss

if TYPE_CHECKING:
    from engine.model.mmclip import MMCLIP
    from engine.recipe.pretraining import MaskStrategy, Objective, PretrainRecipe

Batch = Mapping[str, Tensor]
UNPAIRED = ("unpaired_images", "unpaired_patch_noise")
"""Names of what belongs to images without a report; everything else of a batch belongs to the pairs."""


class Peers(Protocol):
    """The processes that hold the other rows of a batch, `engine.training.distributed.Ranks` for one."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def world(self) -> int:
        """How many there are."""

    def gathered(self, rows: Tensor) -> Tensor:
        """(B, ...) of every process -> (world * B, ...), in order of rank, without gradient."""

    def summed(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, without gradient."""


class Run(Protocol):
    """The model's forward, as its processes run it together."""

    def __call__(self, batch: Batch, *, is_last: bool, **arguments: Any) -> dict[str, Tensor]:
        """`is_last`: gradients are exchanged on the way back from this one."""


@dataclass(frozen=True)
class Aligned:
    """InfoNCE of a process's rows among those of all: its share of the loss, and the whole loss's gradient for what it holds.

    Attributes:
        loss: scalar; the shares of all processes add up to the loss of the whole batch.
        image, text: (B, C) gradients for this process's features.
        scale: scalar, the gradient of this process's share for the logit scale.
    """

    loss: Tensor
    image: Tensor
    text: Tensor
    scale: Tensor


def parts_of_step(recipe: PretrainRecipe, world: int = 1) -> int:
    """In how many parts each of `world` processes takes its images of a step: as `compute.micro_batch` asks, a pair in each at least."""
    paired, unpaired = recipe.batch.paired // world, recipe.batch.unpaired // world
    most = recipe.compute.micro_batch or paired + unpaired
    return max(1, min(-(-(paired + unpaired) // most), paired or unpaired))


def with_noise(batch: Batch, patches: int, uniform: Callable[[int, int], Tensor]) -> dict[str, Tensor]:
    """The batch with the numbers that its masks are drawn with.

    Adds `patch_noise` (B, N), `unpaired_patch_noise` (U, N) and `word_noise` (B, T + 1).

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


def split(batch: Batch, parts: int) -> list[tuple[dict[str, Tensor], slice]]:
    """The batch in so many parts, each with the rows of its pairs in the batch; sizes differ by one at most.

    No part is larger than the last, which so has every kind of row that the batch has: DDP exchanges gradients on the way back from it,
    and leaves out what has none there.
    """
    pairs, singles = (len(batch[name]) if name in batch else 0 for name in ("images", "unpaired_images"))
    pieces = []
    for index in range(parts):
        rows = {False: _piece(pairs, index, parts), True: _piece(singles, index, parts)}
        piece = {name: tensor[rows[name in UNPAIRED]] for name, tensor in batch.items()}
        pieces.append(({name: tensor for name, tensor in piece.items() if len(tensor)}, rows[False]))
    return pieces


def _piece(rows: int, index: int, parts: int) -> slice:
    return slice(rows * index // parts, rows * (index + 1) // parts)


def losses_in_parts(
    model: MMCLIP,
    run: Run,
    batch: Batch,
    parts: int,
    peers: Peers,
    *,
    prompts: tuple[Tensor, Tensor],
    objectives: Collection[Objective],
    mask: MaskStrategy | None = None,
) -> Iterator[dict[str, Tensor]]:
    """The losses of this process's rows of a batch, part by part, as shares of the whole batch's, over all processes.

    Args:
        run: the model's forward, as its processes run it together.
        batch: with the numbers of `with_noise`.
        parts: at most as many as the batch has pairs, or images where it has no pairs.
        prompts, objectives, mask: as `MMCLIP.losses` takes them.

    Each part must be differentiated before the next one is asked for.
    """
    pieces = split(batch, parts)
    asked: dict[str, Any] = {"prompts": prompts, "objectives": objectives, "mask": mask}
    by_union = model.recipe.attmim.ratio_of == "union" and (mask or model.recipe.attmim.strategy) not in ("random", "none")
    is_aligned = "align" in objectives and "images" in batch
    looked: list[dict[str, Tensor]] = []
    if by_union or (is_aligned and parts > 1):
        looked = [model.look(piece, **asked) for piece, _ in pieces]

    hidden = _hidden_in_all(model, batch, pieces, looked if by_union else [], peers)
    targets = peers.summed(model.targets(batch)) if "images" in batch else None
    group = batch.get("report_group") if model.recipe.objective.positives == "group" else None

    def aligned_by(image: Tensor, text: Tensor, logit_scale: Tensor) -> Aligned:
        return aligned(image, text, logit_scale, peers, half=model.recipe.objective.half, group=group)

    cached = None
    if is_aligned and parts > 1:
        image, text = (torch.cat([seen[name] for seen in looked if name in seen]) for name in ("image", "text"))
        cached = aligned_by(image, text, model.logit_scale())
    for index, (piece, rows) in enumerate(pieces):
        align = None
        if is_aligned:
            align = _share(aligned_by, cached, rows)
        yield run(piece, is_last=index == parts - 1, whole=Whole(hidden, targets, align), **asked)


def _share(
    aligned_by: Callable[[Tensor, Tensor, Tensor], Aligned], cached: Aligned | None, rows: slice
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A part's share of `align`, whose gradient is the cached one, or where the part is all this process has, taken now."""

    def share(image: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
        found, mine = (aligned_by(image, text, logit_scale), slice(None)) if cached is None else (cached, rows)
        part = len(image) / len(found.image)
        pull = (image.float() * found.image[mine]).sum() + (text.float() * found.text[mine]).sum() + part * found.scale * logit_scale
        return pull - pull.detach() + part * found.loss

    return share


def aligned(image: Tensor, text: Tensor, logit_scale: Tensor, peers: Peers, *, half: bool, group: Tensor | None = None) -> Aligned:
    """InfoNCE on the features of all processes, and its gradients; what `image`, `text` and `logit_scale` came from is left alone.

    Args:
        image, text: (B, C), this process's rows, not yet normalised.
        group: (B,), as `align_loss` takes it.
    """
    rows = slice(peers.rank * len(image), (peers.rank + 1) * len(image))
    both = torch.stack([image.detach().float(), text.detach().float()], dim=1)  # (B, 2, C): one exchange each way
    with torch.enable_grad():
        everything, scale = peers.gathered(both).requires_grad_(), logit_scale.detach().clone().requires_grad_()
        groups = None if group is None else peers.gathered(group)
        loss = align_loss(everything[:, 0], everything[:, 1], scale, half=half, group=groups, rows=rows)
        of_features, of_scale = torch.autograd.grad(loss, [everything, scale])
    mine = peers.summed(of_features)[rows]
    return Aligned(loss.detach(), mine[:, 0], mine[:, 1], of_scale)


def _hidden_in_all(
    model: MMCLIP, batch: Batch, pieces: list[tuple[dict[str, Tensor], slice]], looked: list[dict[str, Tensor]], peers: Peers
) -> dict[str, Tensor | int]:
    """How many patches are hidden in the whole batch, over all processes: counted where masks were looked at, else known beforehand."""
    if looked and "hidden" in looked[0]:
        paired = sum(seen["hidden"][: len(piece.get("images", ()))].sum() for (piece, _), seen in zip(pieces, looked, strict=True))
        everything = sum(seen["hidden"].sum() for seen in looked)
        counts = peers.summed(torch.stack([torch.as_tensor(paired), torch.as_tensor(everything)]))
        return {"mim": counts[0], "mim_unpaired": counts[1] - counts[0]}
    names = {"mim": "images", "mim_unpaired": "unpaired_images"}
    of_one = round(model.recipe.attmim.ratio * model.patches)
    return {name: peers.world * of_one * len(batch[images]) for name, images in names.items() if images in batch}
