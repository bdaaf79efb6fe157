"""What the masks do with a batch: the attention maps, what they propose, what is hidden, what is made of it, and figures of all that.

Everything runs without gradient and on whole batches. A mask is True where something is hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.model import attmim, entmlm

if TYPE_CHECKING:
    from engine.recipe.pretraining import EntMLM, MaskStrategy


from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn import functional as F

from engine.errors import OutputError
from engine.model.losses import patchify
from engine.model.towers import Towers
from engine.tables.atomic import publish

Reconstruct = Callable[[Tensor, Tensor, Tensor], Tensor]
MAPS = ("report", "prompt", "self")
_READS = {"attmim": MAPS, "report": ("report",), "prompt": ("prompt",), "self": ("self",)}
"""The maps that each strategy unites (eq 7); the others read none."""


@dataclass(frozen=True)
class Seen:
    """B images through the eyes of AttMIM.

    Attributes:
        images: (B, 3, S, S), normalised.
        maps: `report`, `prompt`, `self` -> (B, N) float32 scores (eqs 4-6); images without a report lack the first.
        proposed: the same -> (B, N) bool, the patches that the map proposes, M(A, top).
        union: (B, N) bool, what the maps that the strategy reads propose together (eq 7); None where it reads none.
        hidden: (B, N) bool (eq 8).
        predicted: (B, N, patch * patch), the decoder's answer (eq 12); None where it was not asked.
    """

    images: Tensor
    maps: dict[str, Tensor]
    proposed: dict[str, Tensor]
    union: Tensor | None
    hidden: Tensor
    predicted: Tensor | None


@torch.no_grad()
def see(
    model: Towers,
    batch: Mapping[str, Tensor],
    *,
    prompts: tuple[Tensor, Tensor],
    mask: MaskStrategy | None = None,
    generator: torch.Generator | None = None,
    reconstruct: Reconstruct | None = None,
) -> dict[str, Seen]:
    """`paired` and `unpaired` -> what AttMIM sees in that half of the batch, where it has one.

    All three maps are computed, also those that the strategy does not read, so that strategies can be compared.

    Args:
        batch, prompts, mask, generator: as `MMCLIP.losses` takes them.
        reconstruct: images (B, 3, S, S), image tokens, hidden (B, N) -> predicted patches (B, N, patch * patch), by the image decoder;
            None leaves `predicted` out.
    """
    prompt, padding = model.prompt_tokens(prompts[0]), prompts[1].flatten()[None]
    seen = {}
    for half, name in (("paired", "images"), ("unpaired", "unpaired_images")):
        if name not in batch:
            continue
        images = batch[name]
        tokens = model.encode_images(images)
        image = model.clip.visual_projection(tokens[:, 1:])
        report = report_padding = None
        if half == "paired":
            report, report_padding = model.clip.text_projection(model.encode_texts(batch["input_ids"])), batch["padding_mask"]
        seen[half] = _seen(model, images, tokens, (image, prompt, report), (padding, report_padding), mask, generator, reconstruct)
    return seen


def _seen(
    model: Towers,
    images: Tensor,
    tokens: Tensor,
    features: tuple[Tensor, Tensor, Tensor | None],
    paddings: tuple[Tensor, Tensor | None],
    mask: MaskStrategy | None,
    generator: torch.Generator | None,
    reconstruct: Reconstruct | None,
) -> Seen:
    recipe, (image, prompt, report), (padding, report_padding) = model.recipe.attmim, features, paddings
    strategy = mask or recipe.strategy
    maps = {} if report is None else {"report": attmim.patch_scores(image, report, report_padding, recipe)}
    maps |= {"prompt": attmim.patch_scores(image, prompt, padding, recipe), "self": attmim.patch_scores(image, image, None, recipe)}
    proposed = {name: attmim.top_patches(scores, recipe.top) for name, scores in maps.items()}
    if strategy == "none":
        return Seen(images, maps, proposed, None, torch.zeros_like(proposed["self"]), None)
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
    return Seen(images, maps, proposed, union, hidden, predicted)


def mask_facts(seen: Seen) -> dict[str, Tensor]:
    """Numbers about the masks of B images, each the mean over them, 0-d and on their device.

    Returns:
        hidden: share of patches hidden.
        overlap: how alike the maps' proposals are: patches that two of them share over patches that either has, mean over the pairs. Two
            random proposals of 0.7 give 0.54.
        union: share of patches that the maps propose together. Three random proposals of 0.7 give 0.97.
        topped_up: share of the hidden patches that no map proposed, hidden because the union was too small.
        The last two only where the strategy reads maps.
    """
    pairs = [(one & other).sum(1) / (one | other).sum(1).clamp(min=1) for one, other in combinations(seen.proposed.values(), 2)]
    facts = {"hidden": seen.hidden.float().mean(), "overlap": torch.stack(pairs).mean()}
    if seen.union is not None:
        outside = (seen.hidden & ~seen.union).sum(1) / seen.hidden.sum(1).clamp(min=1)
        facts |= {"union": seen.union.float().mean(), "topped_up": outside.mean()}
    return facts


def word_facts(batch: Mapping[str, Tensor], recipe: EntMLM, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Numbers about the words of B reports, each the mean over them, 0-d and on their device.

    Returns:
        words: words (tokens) of a report, SOT, EOT and padding not counted.
        hidden: share of them that the decoder may not look at.
        entities: entities of a report.
        entities_hidden: how many of them have a hidden word.
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
    """How many different entities stand at those places of each row: (B, T), (B, T) bool -> (B,)."""
    numbers = torch.zeros(entity_ids.shape[0], entity_ids.shape[1] + 1, dtype=torch.bool, device=entity_ids.device)
    numbers.scatter_(1, torch.where(where, entity_ids, 0), True)
    return numbers[:, 1:].sum(1)


# Figures of masks and reconstructions, as the paper's Figure 3 draws them: one row an image, drawn with Pillow alone.

HEADS = {"report": "report", "prompt": "prompts", "self": "image itself"}
TITLES = ("image", *HEADS.values(), "hidden", "reconstruction")
"""Columns: the image, the three attention maps (eqs 4-6), the mask (eqs 7, 8), and what the decoder makes of it (eq 12)."""
SMALLEST = 112
"""Pixels of a picture's side at least; smaller ones are enlarged by whole numbers."""
GAP, HEAD = 4, 16

Grey = NDArray[np.float32]
Colours = NDArray[np.uint8]
_HEAT = np.array([[0.0, 0.0, 4.0], [87.0, 16.0, 110.0], [188.0, 55.0, 84.0], [249.0, 142.0, 9.0], [252.0, 255.0, 164.0]], np.float32)
"""Five points of a ramp that is even in brightness, from black over red to yellow."""
_UNION, _HIDDEN = (60, 120, 200), (20, 20, 20)


def figure(seen: Seen, mean: Sequence[float], std: Sequence[float], *, norm_pix: bool) -> Image.Image:
    """The figure of B images.

    The maps: bright where a patch ranks high, over the image. The mask: hidden patches nearly black, patches that were proposed and spared
    blue. The reconstruction: visible patches as they are, hidden ones as predicted; with `norm_pix` the decoder predicts a patch's
    structure alone, and its mean and contrast are lent by the image.

    Args:
        seen: with `predicted`, or without, where nothing is hidden.
        mean, std: of the preprocessing, by which `seen.images` were normalised.
    """
    grey = _grey(seen.images.float().mean(1), mean, std)
    patch = seen.images.shape[-1] // round(seen.hidden.shape[1] ** 0.5)
    rebuilt = _rebuilt(seen, mean, std, norm_pix, patch)
    rows = []
    for row in range(len(grey)):
        picture = _coloured(grey[row])
        blank = np.full_like(picture, 255)
        heat = [_heated(grey[row], seen.maps[name][row], patch) if name in seen.maps else blank for name in MAPS]
        masked = _masked(picture, seen.hidden[row], None if seen.union is None else seen.union[row], patch)
        rows.append([picture, *heat, masked, blank if rebuilt is None else _coloured(rebuilt[row])])
    return _sheet(rows)


def write_figures(figures: Sequence[Image.Image], path: Path) -> None:
    """The figures one below the other, as PNG, in a folder and a file that only their owner may read.

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
        path.parent.chmod(0o700)  # a folder that was there before, or a lax umask
    except OSError as error:
        raise OutputError("the folder of pictures cannot be made", why=error.strerror or type(error).__name__) from None
    publish(path, lambda stream: sheet.save(stream, "PNG"))


def _grey(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Grey:
    """Channel means of normalised pixels, back to [0, 1]: the three channels are one grey, each normalised in its own way."""
    slope = sum(1 / s for s in std) / len(std)
    offset = sum(m / s for m, s in zip(mean, std, strict=True)) / len(std)
    found: Grey = ((pixels.float() + offset) / slope).clamp(0, 1).cpu().numpy()
    return found


def _rebuilt(seen: Seen, mean: Sequence[float], std: Sequence[float], norm_pix: bool, patch: int) -> Grey | None:
    if seen.predicted is None:
        return None
    patches = patchify(seen.images, patch)
    predicted = seen.predicted.float()
    if norm_pix:
        predicted = predicted * (patches.var(-1, keepdim=True) + 1e-6).sqrt() + patches.mean(-1, keepdim=True)
    mixed = torch.where(seen.hidden[..., None], predicted, patches)
    return _grey(_unpatched(mixed, patch), mean, std)


def _unpatched(patches: Tensor, patch: int) -> Tensor:
    """(B, N, patch * patch) -> (B, S, S), the inverse of `patchify`."""
    grid = round(patches.shape[1] ** 0.5)
    return patches.reshape(-1, grid, grid, patch, patch).permute(0, 1, 3, 2, 4).reshape(-1, grid * patch, grid * patch)


def _coloured(grey: Grey) -> Colours:
    return np.repeat(np.rint(grey * 255).astype(np.uint8)[..., None], 3, axis=-1)


def _heated(grey: Grey, scores: Tensor, patch: int) -> Colours:
    """The ranks of the scores as heat, over the picture: ranks, since their order is all that the masks read."""
    grid = round(len(scores) ** 0.5)
    ranks = scores.argsort().argsort().float().reshape(1, 1, grid, grid) / max(len(scores) - 1, 1)
    heat = F.interpolate(ranks, scale_factor=float(patch), mode="nearest")[0, 0].cpu().numpy() * (len(_HEAT) - 1)
    below = np.minimum(heat.astype(np.int64), len(_HEAT) - 2)
    part = (heat - below)[..., None]
    colours = _HEAT[below] * (1 - part) + _HEAT[below + 1] * part
    mixed: Colours = np.rint(0.55 * colours + 0.45 * 255 * grey[..., None]).astype(np.uint8)
    return mixed


def _masked(picture: Colours, hidden: Tensor, union: Tensor | None, patch: int) -> Colours:
    masked = picture.copy()
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
