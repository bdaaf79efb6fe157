"""Readings of input files, from the image table where their content is known and from worker processes where it is not."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, groupby, islice
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.dicom.inputs import Item
from engine.dicom.reading import Reading
from engine.dicom.rows import remembered_reading
from engine.dicom.workers import read_files
from engine.tables.parts import ImageTable

Scores = NDArray[np.float32]

WINDOW = 256
"""Files whose content is hashed ahead, to see whether they are known."""
NOT_KEPT = frozenset(
    {"archive", "decode_crash", "decode_timeout", "in_progress", "io_error", "not_dicom", "resource_limit", "unreadable", "vanished"}
)
"""Reasons that another run may find changed, or that cost nothing to find again: such rows are not remembered."""
_HASH_LIMIT = 1 << 31
"""Bytes; larger files are left to the reader and its limits."""


@dataclass(frozen=True)
class Found:
    """An input file with its reading. `known`: from the image table, and then with its `scores` (F,) where it has features."""

    item: Item
    reading: Reading
    scores: Scores | None = None
    known: bool = False


def reader_version() -> str:
    """What reads files here: this version of mmclip and a hash over the code of this room, so that no row outlives its code."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    try:
        name = f"mmclip {version('mmclip')}"
    except PackageNotFoundError:
        name = "mmclip"
    return f"{name} {digest.hexdigest()[:16]}"


class Remembered:
    """What an image table knows, by content. Features are turned into scores part by part, so that memory holds scores alone.

    Args:
        table: the parts of one model.
        scores_of: features (N, D) -> scores (N, F).
    """

    def __init__(self, table: ImageTable, scores_of: Callable[[NDArray[np.float32]], Scores]) -> None:
        self._frames: list[pl.DataFrame] = []
        self._scores: list[tuple[NDArray[np.bool_], Scores]] = []
        self._where: dict[bytes, tuple[int, int]] = {}
        for part in table.parts():
            present = ~np.isnan(part.features).any(axis=1)
            scores = scores_of(np.where(present[:, None], part.features, 0))
            self._scores.append((present, scores))
            for row, content in enumerate(part.rows["content_hash"]):
                self._where[bytes.fromhex(content)] = (len(self._frames), row)
            self._frames.append(part.rows)

    def __len__(self) -> int:
        return len(self._where)

    def get(self, content_hash: str, item: Item) -> Found | None:
        """The file's reading and scores by the SHA-256 of its bytes, None where they are new."""
        place = self._where.get(bytes.fromhex(content_hash)) if content_hash else None
        if place is None:
            return None
        part, row = place
        cells = self._frames[part].row(row, named=True)
        present, scores = self._scores[part]
        return Found(item, remembered_reading(item.path, cells), scores[row] if present[row] else None, known=True)

    def get_file(self, item: Item) -> Found | None:
        """As `get`, for a file whose content is to be hashed here; None also where it cannot be read."""
        return self.get(_content_hash(item.path), item)


def found_readings(items: Iterator[Item], remembered: Remembered | None, *, size: int, workers: int) -> Generator[Found, None, None]:
    """Every item with its reading, in the order given.

    Args:
        items: the input files.
        remembered: what need not be read again; where it is empty, or None, nothing is hashed ahead.
        size: the shorter side of pictures, in pixels.
        workers: reading processes; started when there is something new to read.
    """
    with ThreadPoolExecutor(max(1, workers)) as threads:
        windows = iter(lambda: list(islice(items, WINDOW)), [])
        looked_up = (list(threads.map(lambda item: _look_up(item, remembered), window)) for window in windows)
        for looked in looked_up:
            if all(isinstance(each, Found) for each in looked):
                yield from (each for each in looked if isinstance(each, Found))
            else:
                yield from _read_on(looked, looked_up, size, workers)


def _look_up(item: Item, remembered: Remembered | None) -> Found | Item:
    """The reading where it needs no reader, the item where it does."""
    if item.decided:
        outcome, reason = item.decided
        return Found(item, Reading(item.path, outcome, reason))
    if not remembered:
        return item
    return remembered.get_file(item) or item


def _content_hash(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            if stream.seek(0, 2) > _HASH_LIMIT:
                return ""
            stream.seek(0)
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""


def _read_on(first: list[Found | Item], more: Iterator[list[Found | Item]], size: int, workers: int) -> Iterator[Found]:
    """Read window after window with one set of workers, until a window holds nothing new."""
    queue: deque[Found | Item] = deque()

    def until_nothing_new() -> Iterator[Found | Item]:
        for window in chain([first], more):
            yield from window
            if all(isinstance(each, Found) for each in window):
                return

    def to_read(stretch: Iterator[Found | Item]) -> Iterator[Path]:
        for each in stretch:
            queue.append(each)
            if isinstance(each, Item):
                yield each.path

    def ready() -> Iterator[Found]:
        while queue and isinstance(queue[0], Found):
            each = queue.popleft()
            assert isinstance(each, Found)
            yield each

    for pictures, stretch in groupby(until_nothing_new(), key=lambda each: (each.item if isinstance(each, Found) else each).picture):
        readings = read_files(to_read(stretch), size=size, workers=workers, pictures=pictures)
        for reading in readings:
            yield from ready()
            item = queue.popleft()
            assert isinstance(item, Item)
            yield Found(item, reading)
        yield from ready()
