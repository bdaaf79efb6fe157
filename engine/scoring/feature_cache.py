"""Readings of input files, from the image table where their content is known and from worker processes where it is not."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.intake.files import Item
from engine.intake.ipc import message_in, pack
from engine.intake.limits import LIMITS, Limits
from engine.intake.read_result import COARSE, KNOWN, Reading, coarse_picture
from engine.intake.shared_digests import shared
from engine.intake.workers import read_files
from engine.tables.columns import joined_flags, plain_code, split_flags
from engine.tables.identity import Names
from engine.tables.results import ResultRow
from engine.tables.shards import ImageTable, text_of_path
from engine.tables.temp_store import Scratch

# A reading as rows of tables: of the image table and back, and of a run's results.

_AS_THEY_ARE = (
    "outcome", "reason", "detail", "content_hash", "pixel_hash", "modality", "view", "transfer_syntax", "sop_class", "rows", "columns",
    "sop_instance_uid", "series_instance_uid", "study_instance_uid", "patient",
)  # fmt: skip


def table_row(reading: Reading) -> dict[str, Any]:
    """The reading as a row of the image table: outcome and flags by the file alone, before other files of the run are looked at."""
    cells: dict[str, Any] = {name: getattr(reading, name) for name in _AS_THEY_ARE}
    cells["flags"] = joined_flags(reading.flags)
    cells["coarse"] = None if reading.picture is None else coarse_picture(reading.picture)
    return cells


def remembered_reading(path: Path, cells: Mapping[str, Any]) -> Reading:
    """The reading that a row of the image table holds; its picture is the coarse one, which is all that settling duplicates looks at."""
    coarse = cells["coarse"]
    picture = None if coarse is None else np.frombuffer(coarse, np.uint8).reshape(COARSE)
    return Reading(path, flags=split_flags(cells["flags"]), picture=picture, **{name: cells[name] for name in _AS_THEY_ARE})


def result_row(item: Item, reading: Reading, scores: NDArray[np.float32] | None, names: Names) -> ResultRow:
    """The settled reading as a row of the results.

    An image is named by its SOP instance UID, else by its content, else (a file that could not be read) by its path. A study is what the
    image table says, else what the file says; a picture that belongs to none is a study by itself.
    """
    path = text_of_path(item.path)
    uid = reading.sop_instance_uid
    image = names.of(uid) if uid else names.hashed(reading.content_hash or path)
    study = item.study or reading.study_instance_uid
    public = {
        "image": image,
        "study": names.of(study) if study else image if scores is not None else None,
        "content_hash": reading.content_hash or None,
        "outcome": reading.outcome,
        "reason": reading.reason,
        "detail": reading.detail or None,
        "flags": joined_flags(reading.flags),
        "modality": plain_code(reading.modality),
        "view": plain_code(reading.view) or plain_code(item.view),
        "rows": reading.rows,
        "columns": reading.columns,
        "transfer_syntax": plain_code(reading.transfer_syntax),
    }
    private = {
        "path": item.given or path,
        "file": path,
        "sop_instance_uid": uid,
        "study_instance_uid": reading.study_instance_uid,
        "series_instance_uid": reading.series_instance_uid,
        "patient": item.patient or reading.patient,
    }
    return ResultRow(public, private, scores)


Scores = NDArray[np.float32]

PART_ROWS = 512
"""Rows of a part of the image table."""

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


# Files to feature vectors, each by its content once: what the table of an earlier run knows costs a hash and no pixel work.

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Featured:
    """One file: its features (D,), or None and the reason (a code of `reasons.REASONS`) why it has none. `known`: by an earlier run."""

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
