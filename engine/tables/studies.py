"""Images to studies: the mean or the maximum over a study's images, and the union of their flags."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.tables.batches import Batches
from engine.tables.columns import FLAG_SEPARATOR, LAST_SEEN, has_flag, study_schema

Aggregate = Literal["mean", "max"]
_NONE = np.iinfo(np.uint32).max
STUDIES_AT_ONCE = 16384
"""Studies that are grouped in one pass over the images: about 10 MB. Beside them, memory holds 12 bytes for an image."""


def study_table(
    images: Batches, findings: Sequence[str], aggregate: Aggregate, left_out: Collection[str] = frozenset()
) -> tuple[Batches, int]:
    """scores.* and its number of rows: one row per study, in the order of their first images.

    Args:
        images: scored images with `study`, `flags` and a score per finding; read several times.
        findings: columns of scores.
        aggregate: a study's score is the mean or the maximum over its images.
        left_out: flags of images that do not count for the score of their study, though their flags are its flags too; a study of such
            images alone has no row.
    """
    numbers, count = _study_numbers(images, left_out)

    def made() -> Iterator[pl.DataFrame]:
        for start in range(0, count, STUDIES_AT_ONCE):
            yield _grouped(_within(images, numbers, start, start + STUDIES_AT_ONCE), findings, aggregate, left_out)

    return Batches(study_schema(findings, keep=LAST_SEEN in images.schema), made), count


def _study_numbers(images: Batches, left_out: Collection[str]) -> tuple[list[NDArray[np.uint32]], int]:
    """For each batch the number of each image's study, in the order of their first images; and how many studies there are.

    A study of which every image is left out has the number _NONE.
    """
    batches = [(frame["study"].hash().to_numpy(), frame.select(~has_flag(left_out)).to_series().to_numpy()) for frame in images.made()]
    hashes = np.concatenate([np.zeros(0, np.uint64), *(each for each, _ in batches)])
    counts = np.concatenate([np.zeros(0, bool), *(each for _, each in batches)])
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    counted = np.zeros(distinct.size, bool)
    counted[inverse[counts]] = True
    order = np.argsort(first)
    order = order[counted[order]]
    numbers = np.full(distinct.size, _NONE, np.uint32)
    numbers[order] = np.arange(order.size, dtype=np.uint32)
    return np.split(numbers[inverse], np.cumsum([each.size for each, _ in batches])[:-1]) if batches else [], order.size


def _within(images: Batches, numbers: Sequence[NDArray[np.uint32]], start: int, stop: int) -> pl.DataFrame:
    """The images of studies `start` to `stop`, with the column `number`."""
    frames = [pl.DataFrame(schema={**images.schema, "number": pl.UInt32})]
    for frame, mine in zip(images.made(), numbers, strict=True):
        inside = (mine >= start) & (mine < stop)
        if inside.any():
            frames.append(frame.with_columns(pl.Series("number", mine)).filter(pl.Series(inside)))
    return pl.concat(frames)


def _grouped(images: pl.DataFrame, findings: Sequence[str], aggregate: Aggregate, left_out: Collection[str]) -> pl.DataFrame:
    # by name too: two studies whose hashes are equal share a number, and stay two
    counts = ~has_flag(left_out)
    scores = [pl.col(name).cast(pl.Float64).filter(counts) for name in findings]
    flags = pl.col("flags").str.split(FLAG_SEPARATOR).explode().unique().sort()
    keep = LAST_SEEN in images.columns
    combined = [each.mean() if aggregate == "mean" else each.max() for each in scores]
    seen = [pl.col(LAST_SEEN).max()] if keep else []
    grouped = images.group_by("number", "study").agg(counts.sum().alias("n_images"), *combined, flags, *seen)
    joined = pl.col("flags").list.set_difference([""]).list.sort().list.join(FLAG_SEPARATOR)
    columns = grouped.sort("number").select("study", "n_images", *findings, joined, *([LAST_SEEN] if keep else []))
    return columns.cast(dict(study_schema(findings, keep=keep)))  # type: ignore[arg-type]
