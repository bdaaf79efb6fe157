"""Diagnostics of the masks of a batch: attention maps, proposals, masks and reconstructions, as statistics and figures.

Figures follow the paper's Figure 3: one row per image, drawn with Pillow alone. Everything runs without gradient and on whole batches. A
mask is True where something is hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from engine.errors import OutputError
from engine.model import attmim, entmlm
from engine.model.losses import patchify
from engine.model.towers import Towers
from engine.tables.atomic import publish

if TYPE_CHECKING:
    from engine.recipe.pretraining import EntMLM, MaskStrategy

Reconstruct = Callable[[Tensor, Tensor, Tensor], Tensor]
MAPS = ("report", "prompt", "self")
_READS = {"attmim": MAPS, "report": ("report",), "prompt": ("prompt",), "self": ("self",)}
"""The maps that each strategy unites (eq 7); the others read none."""


@dataclass(frozen=True)
class MaskSnapshot:
    """Attention maps, proposals and masks of B images.

    Attributes:
        images: (B, 3, S, S), normalised.
        maps: `report`, `prompt`, `self` -> (B, N) float32 scores (eqs 4-6); images without a report lack the first.
        proposed: the same -> (B, N) bool, the patches that the map proposes, M(A, top).
        union: (B, N) bool, proposals of all maps that the strategy reads (eq 7); None where it reads none.
        hidden: (B, N) bool (eq 8).
        predicted: (B, N, patch * patch), the reconstruction (eq 12); None where none was computed.
    """

    images: Tensor
    maps: dict[str, Tensor]
    proposed: dict[str, Tensor]
    union: Tensor | None
    hidden: Tensor
    predicted: Tensor | None


@torch.no_grad()
def inspect_masks(
    model: Towers,
    batch: Mapping[str, Tensor],
    *,
    prompts: tuple[Tensor, Tensor],
    mask: MaskStrategy | None = None,
    generator: torch.Generator | None = None,
    reconstruct: Reconstruct | None = None,
) -> dict[str, MaskSnapshot]:
    """`paired` and `unpaired` -> the snapshot of that half of the batch, where there is one.

    All three maps are computed, also those that the strategy does not read, so that strategies can be compared.

    Args:
        batch, prompts, mask, generator: as `MMCLIP.losses` takes them.
        reconstruct: images (B, 3, S, S), image tokens, hidden (B, N) -> predicted patches (B, N, patch * patch), by the image decoder;
            None leaves `predicted` out.
    """
    prompt, padding = model.prompt_tokens(prompts[0]), prompts[1].flatten()[None]
    snapshots = {}
    for half, name in (("paired", "images"), ("unpaired", "unpaired_images")):
        if name not in batch:
            continue
        images = batch[name]
        tokens = model.encode_images(images)
        image = model.clip.visual_projection(tokens[:, 1:])
        report = report_padding = None
        if half == "paired":
            report, report_padding = model.clip.text_projection(model.encode_texts(batch["input_ids"])), batch["padding_mask"]
        snapshots[half] = _snapshot(model, images, tokens, (image, prompt, report), (padding, report_padding), mask, generator, reconstruct)
    return snapshots


def _snapshot(
    model: Towers,
    images: Tensor,
    tokens: Tensor,
    features: tuple[Tensor, Tensor, Tensor | None],
    paddings: tuple[Tensor, Tensor | None],
    mask: MaskStrategy | None,
    generator: torch.Generator | None,
    reconstruct: Reconstruct | None,
) -> MaskSnapshot:
    recipe, (image, prompt, report), (padding, report_padding) = model.recipe.attmim, features, paddings
    strategy = mask or recipe.strategy
    maps = {} if report is None else {"report": attmim.patch_scores(image, report, report_padding, recipe)}
    maps |= {"prompt": attmim.patch_scores(image, prompt, padding, recipe), "self": attmim.patch_scores(image, image, None, recipe)}
    proposed = {name: attmim.top_patches(scores, recipe.top) for name, scores in maps.items()}
    if strategy == "none":
        return MaskSnapshot(images, maps, proposed, None, torch.zeros_like(proposed["self"]), None)
    read = [name for name in _READS.get(strategy, ()) if name in maps] or (["self"] if strategy == "report" else [])
    union = torch.stack([proposed[name] for name in read]).any(0) if read else None
    hidden = attmim.hidden_patches(
        image,
        prompt,
        recipe,
        strategy=strategy,
        prompt_padding=padding,
        report=report,
        padding_mask=report_padding,
        generator=generator,
    )
    predicted = reconstruct(images, tokens, hidden) if reconstruct else None
    return MaskSnapshot(images, maps, proposed, union, hidden, predicted)


def mask_statistics(snapshot: MaskSnapshot) -> dict[str, Tensor]:
    """Mask statistics, each the mean over B images, 0-d and on their device.

    Returns:
        hidden: share of patches hidden.
        overlap: Jaccard index of two maps' proposals, mean over the pairs of maps. Two random proposals of 0.7 give 0.54.
        union: share of patches in the union of the proposals. Three random proposals of 0.7 give 0.97.
        topped_up: share of the hidden patches that no map proposed, hidden because the union was too small.
        The last two only where the strategy reads maps.
    """
    pairs = [(one & other).sum(1) / (one | other).sum(1).clamp(min=1) for one, other in combinations(snapshot.proposed.values(), 2)]
    facts = {"hidden": snapshot.hidden.float().mean(), "overlap": torch.stack(pairs).mean()}
    if snapshot.union is not None:
        outside = (snapshot.hidden & ~snapshot.union).sum(1) / snapshot.hidden.sum(1).clamp(min=1)
        facts |= {"union": snapshot.union.float().mean(), "topped_up": outside.mean()}
    return facts


def word_statistics(batch: Mapping[str, Tensor], recipe: EntMLM, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Statistics of the text masks, each the mean over B reports, 0-d and on their device.

    Returns:
        words: words (tokens) of a report, SOT, EOT and padding not counted.
        hidden: share of them hidden from the decoder.
        entities: entities of a report.
        entities_hidden: number of them with a hidden word.
        without_entity: share of reports in which the recogniser found none.
    """
    padding_mask, entity_ids = batch["padding_mask"], batch["entity_ids"]
    place = torch.arange(padding_mask.shape[1], device=padding_mask.device)
    words = (place > 0) & (place < (~padding_mask).sum(1, keepdim=True) - 1)
    hidden = entmlm.hidden_positions(entity_ids, words, recipe, generator)
    there = _distinct(entity_ids, words)
    return {
        "words": words.sum(1).float().mean(),
        "hidden": (hidden.sum(1) / words.sum(1).clamp(min=1)).mean(),
        "entities": there.float().mean(),
        "entities_hidden": _distinct(entity_ids, hidden).float().mean(),
        "without_entity": (there == 0).float().mean(),
    }


def _distinct(entity_ids: Tensor, where: Tensor) -> Tensor:
    """Number of different entities at the places of each row: (B, T), (B, T) bool -> (B,)."""
    numbers = torch.zeros(entity_ids.shape[0], entity_ids.shape[1] + 1, dtype=torch.bool, device=entity_ids.device)
    numbers.scatter_(1, torch.where(where, entity_ids, 0), True)
    return numbers[:, 1:].sum(1)


HEADS = {"report": "report", "prompt": "prompts", "self": "image itself"}
TITLES = ("image", *HEADS.values(), "hidden", "reconstruction")
"""Columns: the image, the three attention maps (eqs 4-6), the mask (eqs 7, 8), the reconstruction (eq 12)."""
SMALLEST = 112
"""Smallest side of an image in pixels; smaller ones are enlarged by whole factors."""
GAP, HEAD = 4, 16

Grey = NDArray[np.float32]
Colours = NDArray[np.uint8]
_HEAT = np.array([[0.0, 0.0, 4.0], [87.0, 16.0, 110.0], [188.0, 55.0, 84.0], [249.0, 142.0, 9.0], [252.0, 255.0, 164.0]], np.float32)
"""Five points of a perceptually even colour map, from black over red to yellow."""
_UNION, _HIDDEN = (60, 120, 200), (20, 20, 20)


def figure(snapshot: MaskSnapshot, mean: Sequence[float], std: Sequence[float], *, norm_pix: bool) -> Image.Image:
    """The figure of B images.

    Maps: bright where a patch ranks high, over the image. Mask: hidden patches nearly black, patches that were proposed but not hidden
    blue. Reconstruction: visible patches as they are, hidden ones as predicted; with `norm_pix` the decoder predicts the structure of a
    patch alone, and mean and contrast are taken from the image.

    Args:
        snapshot: with `predicted`, except where nothing is hidden.
        mean, std: of the preprocessing, by which `snapshot.images` were normalised.
    """
    grey = _grey(snapshot.images.float().mean(1), mean, std)
    patch = snapshot.images.shape[-1] // round(snapshot.hidden.shape[1] ** 0.5)
    rebuilt = _rebuilt(snapshot, mean, std, norm_pix, patch)
    rows = []
    for row in range(len(grey)):
        image = _coloured(grey[row])
        blank = np.full_like(image, 255)
        heat = [_heated(grey[row], snapshot.maps[name][row], patch) if name in snapshot.maps else blank for name in MAPS]
        masked = _masked(image, snapshot.hidden[row], None if snapshot.union is None else snapshot.union[row], patch)
        rows.append([image, *heat, masked, blank if rebuilt is None else _coloured(rebuilt[row])])
    return _sheet(rows)


def write_figures(figures: Sequence[Image.Image], path: Path) -> None:
    """The figures one below the other, as PNG; folder and file are readable by their owner only.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    width = max(each.width for each in figures)
    sheet = Image.new("RGB", (width, sum(each.height for each in figures)), "white")
    top = 0
    for each in figures:
        sheet.paste(each, (0, top))
        top += each.height
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)  # an existing folder, or another umask
    except OSError as error:
        raise OutputError("the folder of figures cannot be made", why=error.strerror or type(error).__name__) from None
    publish(path, lambda stream: sheet.save(stream, "PNG"))


def _grey(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Grey:
    """Channel means of normalised pixels, back to [0, 1]: the three channels are one grey, each normalised in its own way."""
    slope = sum(1 / s for s in std) / len(std)
    offset = sum(m / s for m, s in zip(mean, std, strict=True)) / len(std)
    found: Grey = ((pixels.float() + offset) / slope).clamp(0, 1).cpu().numpy()
    return found


def _rebuilt(snapshot: MaskSnapshot, mean: Sequence[float], std: Sequence[float], norm_pix: bool, patch: int) -> Grey | None:
    if snapshot.predicted is None:
        return None
    patches = patchify(snapshot.images, patch)
    predicted = snapshot.predicted.float()
    if norm_pix:
        predicted = predicted * (patches.var(-1, keepdim=True) + 1e-6).sqrt() + patches.mean(-1, keepdim=True)
    mixed = torch.where(snapshot.hidden[..., None], predicted, patches)
    return _grey(_unpatched(mixed, patch), mean, std)


def _unpatched(patches: Tensor, patch: int) -> Tensor:
    """(B, N, patch * patch) -> (B, S, S), the inverse of `patchify`."""
    grid = round(patches.shape[1] ** 0.5)
    return patches.reshape(-1, grid, grid, patch, patch).permute(0, 1, 3, 2, 4).reshape(-1, grid * patch, grid * patch)


def _coloured(grey: Grey) -> Colours:
    return np.repeat(np.rint(grey * 255).astype(np.uint8)[..., None], 3, axis=-1)


def _heated(grey: Grey, scores: Tensor, patch: int) -> Colours:
    """The scores as a heat map over the image. Ranks are shown, since masks depend on the order of scores alone."""
    grid = round(len(scores) ** 0.5)
    ranks = scores.argsort().argsort().float().reshape(1, 1, grid, grid) / max(len(scores) - 1, 1)
    heat = F.interpolate(ranks, scale_factor=float(patch), mode="nearest")[0, 0].cpu().numpy() * (len(_HEAT) - 1)
    below = np.minimum(heat.astype(np.int64), len(_HEAT) - 2)
    weight = (heat - below)[..., None]
    colours = _HEAT[below] * (1 - weight) + _HEAT[below + 1] * weight
    mixed: Colours = np.rint(0.55 * colours + 0.45 * 255 * grey[..., None]).astype(np.uint8)
    return mixed


def _masked(image: Colours, hidden: Tensor, union: Tensor | None, patch: int) -> Colours:
    masked = image.copy()
    spared = torch.zeros_like(hidden) if union is None else union & ~hidden
    for mask, colour, share in ((spared, _UNION, 0.4), (hidden, _HIDDEN, 0.9)):
        place = _pixels(mask, patch)
        masked[place] = np.rint((1 - share) * masked[place] + share * np.array(colour)).astype(np.uint8)
    return masked


def _pixels(mask: Tensor, patch: int) -> NDArray[np.bool_]:
    grid = round(len(mask) ** 0.5)
    return np.kron(mask.reshape(grid, grid).cpu().numpy(), np.ones((patch, patch), np.bool_)).astype(np.bool_)


def _sheet(rows: Sequence[Sequence[Colours]]) -> Image.Image:
    """Cells in rows and columns on white, with a title over each column."""
    side = rows[0][0].shape[0]
    times = -(-SMALLEST // side)
    side *= times
    sheet = Image.new("RGB", (GAP + len(TITLES) * (side + GAP), HEAD + GAP + len(rows) * (side + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(TITLES):
        draw.text((GAP + column * (side + GAP), 2), title, fill="black")
        for row, cells in enumerate(rows):
            cell = Image.fromarray(cells[column]).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(cell, (GAP + column * (side + GAP), HEAD + row * (side + GAP)))
    return sheet
