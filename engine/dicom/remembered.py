"""Readings of input files, from the image table where their content is known and from worker processes where it is not."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.dicom.contents import shared
from engine.dicom.inputs import Item
from engine.dicom.limits import LIMITS, Limits
from engine.dicom.messages import message_in, pack
from engine.dicom.reading import KNOWN, Reading
from engine.dicom.rows import remembered_reading
from engine.dicom.workers import read_files
from engine.tables.parts import ImageTable
from engine.tables.scratch import Scratch

Scores = NDArray[np.float32]

NOT_KEPT = frozenset(
    {
        "archive", "decode_crash", "decode_timeout", "in_progress", "io_error", "nesting_too_deep", "not_dicom", "resource_limit",
        "unreadable", "vanished",
    }
)  # fmt: skip
"""Reasons that another run may find changed, raised limits among the causes, or that cost nothing to find again: not remembered."""


@dataclass(frozen=True)
class Found:
    """An input file with its reading. `known`: from the image table, and then with its `scores` (F,) where it has features."""

    item: Item
    reading: Reading
    scores: Scores | None = None
    known: bool = False


class Remembered:
    """What an image table knows, by content. Rows and scores wait on the disk, in a file without a name beside the table's own.

    Args:
        table: the parts of one model.
        scores_of: features (N, D) -> scores (N, F). None: only tell what is known, and keep nothing of it.
    """

    def __init__(self, table: ImageTable, scores_of: Callable[[NDArray[np.float32]], Scores] | None) -> None:
        self._scratch = Scratch(table.private_folder if scores_of and table.private_folder.is_dir() else None)
        for part in table.parts():
            present = ~np.isnan(part.features).any(axis=1)
            scores = scores_of(np.where(present[:, None], part.features, 0)).astype("<f4") if scores_of else None
            for row, cells in enumerate(part.rows.iter_rows(named=True)):
                key = bytes.fromhex(cells["content_hash"])
                packed = b"" if scores is None else _packed(cells, scores[row] if present[row] else None)
                self._scratch.first("known", key, packed)

    def __len__(self) -> int:
        return self._scratch.count("known")

    def __contains__(self, content_hash: str) -> bool:
        return bool(content_hash) and bool(self._scratch.values("known", bytes.fromhex(content_hash)))

    def get(self, content_hash: str, item: Item) -> Found | None:
        """The file's reading and scores by the SHA-256 of its bytes, None where they are new."""
        packed = self._scratch.values("known", bytes.fromhex(content_hash)) if content_hash else []
        if not packed:
            return None
        cells, scores = _unpacked(packed[0])
        return Found(item, remembered_reading(item.path, cells), scores, known=True)

    def digests(self) -> Iterator[bytes]:
        """The SHA-256 of every content it knows, rising."""
        return self._scratch.keys("known")


def _packed(cells: Mapping[str, Any], scores: Scores | None) -> bytes:
    """A row as JSON, the bytes of its coarse picture and those of its scores."""
    coarse = cells["coarse"] or b""
    head = {name: cell for name, cell in cells.items() if name != "coarse"} | {"coarse": len(coarse), "scored": scores is not None}
    return pack(head, coarse + (b"" if scores is None else scores.tobytes()))


def _unpacked(packed: bytes) -> tuple[dict[str, Any], Scores | None]:
    message = message_in(bytearray(packed))
    assert message is not None  # as `_packed` made it
    cells, body = message
    end = cells["coarse"]
    return cells | {"coarse": body[:end] or None}, np.frombuffer(body[end:], "<f4") if cells["scored"] else None


def found_readings(
    items: Iterator[Item], remembered: Remembered | None, *, size: int, workers: int, limits: Limits = LIMITS
) -> Generator[Found, None, None]:
    """Every item with its reading, in the order given. The processes that read also tell what is known: they may hang, this one may not.

    Args:
        items: the input files.
        remembered: what need not be read again; None: nothing.
        size: the shorter side of pictures, in pixels.
        workers: reading processes; started when there is a file to open.
        limits: what one file may cost.
    """
    with shared(() if remembered is None else remembered.digests()) as known:
        for pictures, stretch in groupby(items, key=lambda item: item.picture):
            queue: deque[Item] = deque()
            for reading in read_files(_to_read(stretch, queue), size=size, workers=workers, limits=limits, pictures=pictures, known=known):
                item = queue.popleft()
                if reading.reason != KNOWN:
                    yield Found(item, reading)
                    continue
                told = None if remembered is None else remembered.get(reading.content_hash, item)
                # a child that tells of an unknown hash was taken over or broken
                yield told or Found(item, Reading(item.path, "reject", "decode_crash"))


@dataclass(frozen=True)
class Counted:
    """How many files there are, of them those that are known, and those left out unopened, by reason."""

    files: int
    known: int
    left_out: dict[str, int]


def counted(items: Iterable[Item], remembered: Remembered, *, workers: int) -> Counted:
    """What a run would meet. Where anything is known, files are read as far as their hash, and no file is opened where nothing is."""
    files = 0
    left_out: Counter[str] = Counter()

    def to_open() -> Iterator[Path]:
        nonlocal files
        for item in items:
            files += 1
            if item.decided:
                left_out[item.decided[1]] += 1
            else:
                yield item.path

    opened = to_open()
    known = 0
    if len(remembered):
        known = sum(reading.content_hash in remembered for reading in read_files(opened, size=1, workers=workers, only_hash=True))
    deque(opened, maxlen=0)  # where nothing is known, nothing was counted yet
    return Counted(files, known, dict(sorted(left_out.items())))


def _to_read(items: Iterable[Item], queue: deque[Item]) -> Iterator[Path | Reading]:
    """The path of each item, or its reading where that is decided; the item itself goes to the end of `queue`."""
    for item in items:
        queue.append(item)
        if item.decided:
            outcome, reason = item.decided
            yield Reading(item.path, outcome, reason)
        else:
            yield item.path
