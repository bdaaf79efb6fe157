"""Batches of pixels and words: a function of the seed and the step alone, so that a resumed run needs no state to go on.

An epoch is a random order of the studies; each study gives one image, at random, and one wording of its report, at random. Images
with a report and images without are two pools that cycle on their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from engine.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from engine.data.store import PixelStore
    from engine.data.texts import TextBank
    from engine.recipe.pretraining import Augmentation


from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.recipe.pretraining import Augmentation


PAIRED, UNPAIRED = 0, 1
"""Salts of the two pools, so that they are shuffled apart."""

MAX_STEP = 1.5
"""Stored pixels that one step of a view may span; larger images are shrunk beforehand, antialiased, so that no crop skips pixels."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """What a batch takes from a pool: (B,) indices of images, and (B,) uniform numbers in [0, 1) that pick each one's wording."""

    images: Ints
    wording: NDArray[np.float64]


@dataclass
class Pool:
    """Images by study, in an endless stream of epochs.

    `repeats[i]` times an epoch meets study i. The studies' order, the image of each and its wording depend on seed, salt and epoch.

    With `block`, draws come in blocks of that many studies from one source, `sources[i]`: who compares images within a block cannot
    distinguish them by where they come from. What fills no block of its own source fills mixed ones; what fills not even these,
    less than one block, waits for another epoch.
    """

    studies: Sequence[Ints]
    repeats: Sequence[int]
    seed: int
    salt: int
    sources: Sequence[str] = ()
    block: int | None = None
    _epoch: tuple[int, Draw] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._turns = np.repeat(np.arange(len(self.studies)), self.repeats)
        self._counts = np.array([len(study) for study in self.studies], np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self._images = np.concatenate([*self.studies, np.zeros(0, np.int64)])
        if self.block is not None and len(self._turns) < self.block:
            self.block = None  # not one block: all of it is one
        names, codes = np.unique(np.array(self.sources), return_inverse=True)
        self._of_source = [np.flatnonzero(codes[self._turns] == code) for code in range(len(names))] if self.block else []

    def __len__(self) -> int:
        """Draws of one epoch: one image of every study, times its repeats; whole blocks where there are any."""
        return len(self._turns) - (len(self._turns) % self.block if self.block else 0)

    def epoch(self, number: int) -> Draw:
        """The whole epoch of that number, from 0."""
        if self._epoch is None or self._epoch[0] != number:
            rng = np.random.default_rng([self.seed, self.salt, number])
            studies = self._turns[self._order(rng)]
            view = (rng.random(len(self)) * self._counts[studies]).astype(np.int64)
            self._epoch = (number, Draw(self._images[self._starts[studies] + view], rng.random(len(self))))
        return self._epoch[1]

    def _order(self, rng: np.random.Generator) -> Ints:
        """A random order of the turns, in blocks of one source where that is asked for."""
        if self.block is None:
            return rng.permutation(len(self._turns))
        shuffled = [rng.permutation(turns) for turns in self._of_source]
        whole = [len(turns) - len(turns) % self.block for turns in shuffled]
        left = rng.permutation(np.concatenate([turns[end:] for turns, end in zip(shuffled, whole, strict=True)]))
        ordered = np.concatenate([*(turns[:end] for turns, end in zip(shuffled, whole, strict=True)), left])
        blocks = ordered[: len(self)].reshape(-1, self.block)
        return np.concatenate(list(blocks[rng.permutation(len(blocks))]))

    def draw(self, first: int, count: int) -> Draw:
        """Draws `first` to `first + count - 1` of the stream."""
        parts = []
        while count:
            number, offset = divmod(first, len(self))
            epoch = self.epoch(number)
            taken = min(count, len(self) - offset)
            parts.append(Draw(epoch.images[offset : offset + taken], epoch.wording[offset : offset + taken]))
            first, count = first + taken, count - taken
        return Draw(np.concatenate([part.images for part in parts]), np.concatenate([part.wording for part in parts]))


class TrainingBatches:
    """Batches of an image table, from its pixel store and text bank.

    Rows that are held out, and rows without an image in the store, are left alone.

    Args:
        frame: image table: columns image, study, paired, held_out, report_key, report_group, repeat, source.
        paired, unpaired: images per step with and without a report, on this machine.
        one_source: the pairs of a step come from one source, as far as it has that many.
        rank, world: which of how many processes this is: each reads its own part of a step.

    Raises:
        ConfigError: a pool that the recipe draws from is empty.
    """

    def __init__(
        self,
        frame: pl.DataFrame,
        store: PixelStore,
        bank: TextBank,
        *,
        paired: int,
        unpaired: int,
        seed: int,
        one_source: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        columns = ("image", "study", "paired", "held_out", "report_key", "report_group", "repeat", "source")
        rows = [row for row in zip(*(frame[name].to_list() for name in columns), strict=True) if not row[3] and row[0] in store]
        self._store, self._bank = store, bank
        self._paired, self._unpaired, self._rank, self._world = paired, unpaired, rank, world
        self._rows = np.array([store.row(row[0]) for row in rows], np.int64)
        self._keys = [row[4] for row in rows]
        groups = {group: number for number, group in enumerate(sorted({row[5] for row in rows}))}
        self._groups = np.array([groups[row[5]] for row in rows], np.int64)
        turns = [(row[1], row[2], row[6], row[7]) for row in rows]
        self.pairs = _pool(turns, True, seed, paired * world if one_source and paired else None)
        self.singles = _pool(turns, False, seed, None)
        if paired and not len(self.pairs):
            raise ConfigError("no image with a report is left to train on", hint="set `batch.paired: 0`, or a source with reports")
        if unpaired and not len(self.singles):
            raise ConfigError("no image without a report is left to train on", hint="set `batch.unpaired: 0`, or an `unpaired_share`")

    def at(self, step: int) -> dict[str, Tensor]:
        """The batch of that step (from 0), on the host.

        Returns:
            images: uint8 (Bp, S0, S0); input_ids: int64 (Bp, T); padding_mask: bool (Bp, T), True = padding;
            entity_ids: int64 (Bp, T), 0 = none, k = k-th entity of its text; report_group: int64 (Bp,), equal for reports that say the
            same findings are present; unpaired_images: uint8 (Bu, S0, S0). What the recipe asks none of is absent.
        """
        batch: dict[str, Tensor] = {}
        if self._paired:
            draw = self.pairs.draw((step * self._world + self._rank) * self._paired, self._paired)
            places = [self._bank.places[self._keys[image]] for image in draw.images]
            text = np.array([at[int(wording * len(at))] for at, wording in zip(places, draw.wording, strict=True)], np.int64)
            ids = self._bank.input_ids[text].astype(np.int64)
            batch["images"] = self._pictures(draw.images)
            batch["input_ids"] = torch.from_numpy(ids)
            batch["padding_mask"] = torch.from_numpy(np.arange(ids.shape[1]) >= self._bank.lengths[text][:, None])
            batch["entity_ids"] = torch.from_numpy(self._bank.entity_ids[text].astype(np.int64))
            batch["report_group"] = torch.from_numpy(self._groups[draw.images])
        if self._unpaired:
            draw = self.singles.draw((step * self._world + self._rank) * self._unpaired, self._unpaired)
            batch["unpaired_images"] = self._pictures(draw.images)
        return batch

    def _pictures(self, images: Ints) -> Tensor:
        return torch.from_numpy(np.asarray(self._store.pixels[self._rows[images]]))


def _pool(rows: Sequence[tuple[str, bool, int, str]], paired: bool, seed: int, block: int | None) -> Pool:
    """The pool of rows (study, paired, repeat, source) whose `paired` is the one asked for."""
    studies: dict[str, list[int]] = {}
    repeats: dict[str, int] = {}
    sources: dict[str, str] = {}
    for index, (study, has_report, repeat, source) in enumerate(rows):
        if has_report == paired:
            studies.setdefault(study, []).append(index)
            repeats[study], sources[study] = repeat, source
    images = [np.array(indices, np.int64) for indices in studies.values()]
    return Pool(images, list(repeats.values()), seed, PAIRED if paired else UNPAIRED, list(sources.values()), block)


Views = tuple[Tensor, Tensor]
"""Numbers that decide views: (B, 6) of crops and (B, 3) of tones; no columns for what a recipe does not draw."""


def view_numbers(count: int, augmentation: Augmentation, uniform: Callable[[int, int], Tensor]) -> Views:
    """The numbers that decide the views of `count` images.

    Args:
        uniform: (rows, columns) -> numbers in [0, 1); a image's view depends on its own row alone.
    """
    is_cropped = augmentation.scale != (1.0, 1.0) or augmentation.aspect > 1 or augmentation.rotate or augmentation.flip
    return uniform(count, 6 if is_cropped else 0), uniform(count, 3 if augmentation.contrast else 0)


def augment(images: Tensor, augmentation: Augmentation, size: int, numbers: torch.Generator | Views) -> Tensor:
    """Random views of stored images, on their device: uint8 (B, S0, S0) -> float32 (B, 1, size, size) in [0, 1].

    A crop of random side, aspect and place, turned and perhaps mirrored, is read off by one bilinear sampling; then contrast,
    brightness and gamma change. Images much larger than the view are shrunk beforehand (`MAX_STEP`).
    With nothing to draw this is the preprocessing of evaluation: an antialiased cubic resize, close to Pillow's LANCZOS.

    Args:
        numbers: of `view_numbers`, or a generator to draw them with.
    """
    if isinstance(numbers, torch.Generator):
        generator = numbers
        numbers = view_numbers(len(images), augmentation, lambda *shape: torch.rand(shape, generator=generator, device=generator.device))
    crops, tones = (each.to(images.device) for each in numbers)
    pixels = images[:, None].float() / 255
    pixels = _cropped(pixels, augmentation, size, crops) if crops.shape[1] else _resized(pixels, size)
    return _toned(pixels, augmentation.contrast, tones) if tones.shape[1] else pixels


def _resized(pixels: Tensor, size: int) -> Tensor:
    if pixels.shape[-1] == size:
        return pixels
    return F.interpolate(pixels, (size, size), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)


def _cropped(pixels: Tensor, augmentation: Augmentation, size: int, draws: Tensor) -> Tensor:
    """One affine map per image, from the view's coordinates in [-1, 1] to the image's."""
    smallest, largest = augmentation.scale
    sharp = math.ceil(MAX_STEP * size / largest)
    if pixels.shape[-1] > sharp:
        pixels = _resized(pixels, sharp)
    side = smallest + (largest - smallest) * draws[:, 0]
    stretch = torch.exp((draws[:, 1] - 0.5) * math.log(augmentation.aspect))  # square root of width to height
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    x, y = (2 * draws[:, 2] - 1) * (1 - width), (2 * draws[:, 3] - 1) * (1 - height)
    angle = (2 * draws[:, 4] - 1) * math.radians(augmentation.rotate)
    mirror = torch.where(draws[:, 5] < 0.5, -1.0, 1.0) if augmentation.flip else torch.ones_like(x)
    cos, sin = torch.cos(angle), torch.sin(angle)
    ticks = (torch.arange(size, device=pixels.device) + 0.5) * (2 / size) - 1  # centres of the view's pixels
    columns, rows = ticks.expand(len(pixels), 1, size), ticks[:, None].expand(len(pixels), size, 1)
    # written out: F.affine_grid takes 30 ms for 128 views of 112 pixels where this takes 5
    grid_x = _each(width * cos * mirror) * columns + (_each(x) - _each(width * sin) * rows)
    grid_y = _each(height * sin * mirror) * columns + (_each(y) + _each(height * cos) * rows)
    grid = torch.stack([grid_x, grid_y], -1)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _each(numbers: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1)."""
    return numbers[:, None, None]


def _toned(pixels: Tensor, most: float, draws: Tensor) -> Tensor:
    """Gamma, then contrast about each image's mean, then brightness, each by at most `most` either way."""
    draws = (2 * draws.view(-1, 3, 1, 1, 1) - 1) * most
    pixels = pixels.clamp(min=1e-4) ** (1 + draws[:, 0])
    mean = pixels.mean((-2, -1), keepdim=True)
    return ((pixels - mean) * (1 + draws[:, 1]) + mean + 0.5 * draws[:, 2]).clamp(0, 1)


# Stored images of a batch as the image tower takes them: views drawn at random, then normalised.

Channels = tuple[float, ...]


def normalised_views(
    batch: Mapping[str, Tensor],
    augmentation: Augmentation,
    size: int,
    mean: Channels,
    std: Channels,
    uniform: Callable[[int, int], Tensor],
) -> dict[str, Tensor]:
    """The batch with a view of each stored image: `images` and `unpaired_images`, uint8 (B, S0, S0), become float32 (B, 3, size, size).

    Args:
        mean, std: of the three channels, for pixels in [0, 1].
        uniform: (rows, columns) -> numbers in [0, 1) that decide the views.
    """
    seen = dict(batch)
    for name in ("images", "unpaired_images"):
        if name in seen:
            numbers = view_numbers(len(seen[name]), augmentation, uniform)
            grey = augment(seen[name], augmentation, size, numbers)
            middle, spread = _constants(mean, grey.device), _constants(std, grey.device)
            seen[name] = (grey - middle) / spread
    return seen


@cache
def _constants(values: Channels, device: torch.device) -> Tensor:
    """(1, 3, 1, 1), made once: a GPU would wait for each copy."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)
