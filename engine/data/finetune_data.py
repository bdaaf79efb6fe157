"""Labelled images for fine-tuning: image table, parts, pixels and labels; and the batch of every step."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.data.build_store import build_store
from engine.data.finetune_plan import split_by_of
from engine.data.label_fractions import split_hash
from engine.data.pretrain_data import digest_of
from engine.data.splits import PARTS, Split, split_of, wanted_findings
from engine.data.store import PixelStore
from engine.model.preprocessing import Resize
from engine.tables.atomic import make_folder

if TYPE_CHECKING:
    from engine.data.sources import ImageTable
    from engine.recipe.finetuning import FinetuneRecipe

ORDER = 2
"""Salt of the order of images, apart from those of pretraining's pools."""


@dataclass(frozen=True)
class FinetuneDataSummary:
    """The data are ready: labelled images and patients of each part, `dropped` by reason, labels of equal images that disagreed."""

    findings: tuple[str, ...]
    images: Mapping[str, int]
    patients: Mapping[str, int]
    split_sha256: Mapping[str, str]
    dropped: Mapping[str, int]
    disagreeing: int
    split_by: str
    seconds: float


@dataclass(frozen=True)
class LabelledImages:
    """The labelled images of a recipe's sources.

    Attributes:
        split: the image table in its three parts.
        findings: what is learned, in the order of the label columns.
        seen: every image as the model sees it without augmentation, at the model's own size.
        views: every image at the size that random views are drawn from.
        dropped: reason -> number of images, over tables, images and parts.
        facts: counts by source.
    """

    split: Split
    findings: tuple[str, ...]
    seen: PixelStore
    views: PixelStore
    dropped: Mapping[str, int]
    facts: Mapping[str, Any]

    def content(self, image: str) -> str:
        """SHA-256 of the image's file."""
        return self.seen.entries[image].sha256

    @property
    def content_hash(self) -> str:
        """A sha256 over every image's bytes, part and labels; paths do not count."""
        digest = hashlib.sha256()
        frame = self.split.frame.sort("image")
        for image, *rest in frame.select("image", "part", "patient", *self.findings).iter_rows():
            digest.update(repr((image, self.content(image), rest)).encode())
        return digest.hexdigest()

    def prepared(self, seconds: float) -> FinetuneDataSummary:
        """Summary of them; `seconds`: how long it took."""
        parts = {part: self.split.part(part) for part in PARTS}
        return FinetuneDataSummary(
            findings=self.findings,
            images={part: frame.height for part, frame in parts.items()},
            patients={part: frame["patient"].n_unique() for part, frame in parts.items()},
            split_sha256={part: split_hash(frame) for part, frame in parts.items()},
            dropped=self.dropped,
            disagreeing=self.split.disagreeing,
            split_by=split_by_of(self.facts),
            seconds=seconds,
        )


def labelled_images(recipe: FinetuneRecipe, table: ImageTable, folder: Path, *, size: int, resize: Resize, verify: bool) -> LabelledImages:
    """Fill the pixel stores, split by patient.

    Args:
        table: of `finetune_table`.
        size, resize: the model's preprocessing.
        verify: compare the content of files that a store has already; False compares their sizes.

    Raises:
        EngineError: as `build_store` and `split_of`.
    """
    import polars as pl

    make_folder(folder)
    findings = wanted_findings(recipe, table)
    made_from = [[source.kind, str(getattr(source, "file", "")), str(source.root)] for source in recipe.sources]

    def store(side: int | None) -> PixelStore:
        side = side or size
        return build_store(table.frame, folder / f"pictures-{digest_of([made_from, side, resize])}", side, resize, verify=verify)

    seen = store(None)
    views = store(recipe.store_size) if recipe.mode == "full" and recipe.store_size not in (None, size) else seen
    without = {image: reason for each in (seen, views) for image, reason in each.dropped().items() if image in set(table.frame["image"])}
    frame = table.frame.filter(~pl.col("image").is_in(list(without)))
    contents = {image: seen.entries[image].sha256 for image in frame["image"]}
    split = split_of(frame, findings, contents, share=recipe.validation.share, seed=recipe.validation.seed)
    dropped = Counter(table.dropped["reason"].to_list()) + Counter(without.values()) + Counter(split.dropped)
    return LabelledImages(split, tuple(findings), seen, views, dict(sorted(dropped.items())), table.facts)


class LabelledBatches:
    """Batches of labelled images in an endless stream of epochs; the batch of a step depends on seed and step alone.

    Args:
        store: pixels by image.
        images: the images that are trained on.
        labels: float32 (N, F) of 1, 0 and NaN.
        batch: images of a step; where there are fewer, a batch holds some of them more than once.
    """

    def __init__(self, store: PixelStore, images: Sequence[str], labels: NDArray[np.float32], *, batch: int, seed: int) -> None:
        self._store, self._batch, self._seed = store, batch, seed
        self._rows = np.array([store.row(image) for image in images], np.int64)
        self._labels = labels
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Steps of one epoch."""
        return -(-len(self._rows) // self._batch)

    def at(self, step: int) -> dict[str, Tensor]:
        """The batch of that step (from 0), on the host: images uint8 (B, S, S), labels float32 (B, F) of 1, 0 and NaN = unknown."""
        first = step * self._batch
        chosen = np.array([self._place(number) for number in range(first, first + self._batch)], np.int64)
        pixels = np.ascontiguousarray(self._store.pixels[self._rows[chosen]])
        return {"images": torch.from_numpy(pixels), "labels": torch.from_numpy(self._labels[chosen])}

    def _place(self, number: int) -> int:
        """The image of that place in the stream of epochs."""
        epoch, place = divmod(number, len(self._rows))
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self._seed, ORDER, epoch]).permutation(len(self._rows))
        return int(self._order[1][place])
