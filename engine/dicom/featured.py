"""Files to feature vectors, each by its content once: what the table of an earlier run knows costs a hash and no pixel work."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.dicom.gathered import PART_ROWS
from engine.dicom.inputs import Item
from engine.dicom.remembered import NOT_KEPT, Found, Remembered, found_readings
from engine.dicom.rows import table_row
from engine.tables.parts import ImageTable

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Featured:
    """One file: its features (D,), or None and the reason (a code of `policy.REASONS`) why it has none. `known`: by an earlier run."""

    number: int
    features: Vector | None
    reason: str | None
    known: bool
    content_hash: str


def featured_files(
    files: Sequence[Path],
    table: ImageTable,
    encode: Callable[[Sequence[NDArray[np.uint8]]], Vector],
    *,
    size: int,
    batch_size: int,
    workers: int,
) -> Generator[Featured, None, None]:
    """The features of every file (DICOM, PNG or JPEG), in order.

    Args:
        files: their paths.
        table: what earlier runs know; new features are added to it, whatever ends the generator.
        encode: grey pictures, uint8 (H, W), at most `batch_size` of them -> features (N, D).
        size: shorter side of the pictures, in pixels.
        workers: processes that read files.

    Raises:
        OutputError: the table cannot be written. What `encode` raises.
    """
    remembered = Remembered(table, lambda features: features)
    items = iter([Item(path, picture=True) for path in files])
    part: list[tuple[Found, Vector | None]] = []
    stored: set[str] = set()

    def keep() -> None:
        table.add([table_row(each.reading) for each, _ in part], [vector for _, vector in part])
        part.clear()

    try:
        with closing(found_readings(items, remembered, size=size, workers=workers)) as found:
            for number, (each, new) in enumerate(with_features(found, encode, batch_size)):
                vector = each.scores if each.known else new
                content = each.reading.content_hash
                if not each.known and content and content not in stored and each.reading.reason not in NOT_KEPT:
                    stored.add(content)
                    part.append((each, vector))
                    if len(part) >= PART_ROWS:
                        keep()
                reason = None if vector is not None else each.reading.reason or each.reading.outcome
                yield Featured(number, vector, reason, each.known, content)
    finally:
        keep()


def with_features(
    found: Iterator[Found], encode: Callable[[Sequence[NDArray[np.uint8]]], Vector], batch_size: int
) -> Iterator[tuple[Found, Vector | None]]:
    """Each file with its features (D,), in order; None where it has no picture, or is known. Pictures wait for a full batch."""
    waiting: list[Found] = []
    new: list[NDArray[np.uint8]] = []

    def flush() -> Iterator[tuple[Found, Vector | None]]:
        features = iter(encode(new) if new else ())
        for each in waiting:
            yield each, None if _new_picture(each) is None else next(features)
        waiting.clear()
        new.clear()

    for each in found:
        waiting.append(each)
        picture = _new_picture(each)
        if picture is not None:
            new.append(picture)
        if len(new) == batch_size or not new or len(waiting) >= PART_ROWS:
            yield from flush()
    yield from flush()


def _new_picture(found: Found) -> NDArray[np.uint8] | None:
    return found.reading.picture if found.reading.outcome == "score" and not found.known else None
