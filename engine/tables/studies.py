"""Images to studies: scores that are taken together on the disk, as a folder may hold more studies than memory does."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.tables.batches import Batches
from engine.tables.columns import FLAG_SEPARATOR, joined_flags, split_flags, study_schema
from engine.tables.temp_store import Scratch

Aggregate = Literal["mean", "max"]
_KIND = "study"
_COUNT = struct.Struct("<q")
_ROWS = 1024


class Studies:
    """Studies in the order of their first images, each with the number of its images, its scores and its flags.

    Args:
        findings: columns of scores.
        aggregate: a study's score is the mean or the maximum over its images.
        folder: where they wait, in a file without a name; None: where the system keeps temporary files.
    """

    def __init__(self, findings: Sequence[str], aggregate: Aggregate, folder: Path | None = None) -> None:
        self.findings, self.aggregate = tuple(findings), aggregate
        self._scratch = Scratch(folder)
        self._scores = struct.Struct(f"<{len(self.findings)}d")
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, images: pl.DataFrame) -> None:
        """More scored images: `study`, `flags` and a score per finding."""
        over = [pl.col(name).cast(pl.Float64) for name in self.findings]
        grouped = images.group_by("study", maintain_order=True).agg(
            pl.len(), *(each.sum() if self.aggregate == "mean" else each.max() for each in over), pl.col("flags").str.join(FLAG_SEPARATOR)
        )
        for study, count, *scores, flags in grouped.iter_rows():
            key, known = study.encode(), set(split_flags(flags))
            earlier = self._scratch.values(_KIND, key)
            if not earlier:
                self._scratch.add(_KIND, key, self._packed(count, np.array(scores), known))
                self._count += 1
                continue
            number, sums, others = self._unpacked(earlier[0])
            together = sums + scores if self.aggregate == "mean" else np.maximum(sums, scores)
            self._scratch.replace(_KIND, key, self._packed(number + count, together, known | others))

    def table(self) -> Batches:
        """scores.*"""
        return Batches(study_schema(self.findings), self._frames)

    def _frames(self) -> Iterator[pl.DataFrame]:
        rows: list[tuple[bytes, bytes]] = []
        for each in self._scratch.in_order(_KIND):
            rows.append(each)
            if len(rows) == _ROWS:
                yield self._frame(rows)
                rows = []
        if rows:
            yield self._frame(rows)

    def _frame(self, rows: Sequence[tuple[bytes, bytes]]) -> pl.DataFrame:
        unpacked = [self._unpacked(packed) for _, packed in rows]
        counts = np.array([count for count, _, _ in unpacked])
        scores = np.stack([each for _, each, _ in unpacked])
        if self.aggregate == "mean":
            scores /= counts[:, None]
        columns = {
            "study": [key.decode() for key, _ in rows],
            "n_images": counts,
            **{name: np.ascontiguousarray(scores[:, place]) for place, name in enumerate(self.findings)},
            "flags": [joined_flags(sorted(flags - {""})) for _, _, flags in unpacked],
        }
        return pl.DataFrame(columns).cast(dict(study_schema(self.findings)))  # type: ignore[arg-type]  # a mapping of columns to types

    def _packed(self, count: int, scores: NDArray[np.float64], flags: set[str]) -> bytes:
        return _COUNT.pack(count) + self._scores.pack(*scores) + joined_flags(sorted(flags)).encode()

    def _unpacked(self, packed: bytes) -> tuple[int, NDArray[np.float64], set[str]]:
        end = _COUNT.size + self._scores.size
        scores = np.array(self._scores.unpack(packed[_COUNT.size : end]))
        return _COUNT.unpack(packed[: _COUNT.size])[0], scores, set(split_flags(packed[end:].decode()))
