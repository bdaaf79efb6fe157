"""The images of a table -> a pixel store, read in worker processes; what is there already, and unchanged, is kept.

A file counts as unchanged while its size and its time of change are what they were; with `verify`, while its bytes are. PNG, JPEG and DICOM
are distinguished by their content and read in the sandbox of engine/dicom/workers.py, so that a broken file costs its own row and
no more; files inside zips are read in place.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from engine.data.store import Entry, PixelStore, filling
from engine.intake.containers import file_facts
from engine.model.preprocessing import Resize

if TYPE_CHECKING:
    import polars as pl

    from engine.intake.read_result import ReadResult

CHUNK = 256
"""Images between two syncs to the disk: what a kill can cost."""
_WORTH_A_PROCESS = 16
"""Images for which another process is worth its start."""
_LOOKS = 16
"""Threads that look at files: on a network disk nearly all the time is waiting."""


@dataclass(frozen=True)
class StoreProgress:
    """So many images of a table are done: `read` of them in this run, `dropped` of them without an image; `total` in all."""

    done: int
    total: int
    read: int
    dropped: int


def build_store(
    frame: pl.DataFrame, folder: Path, size: int, resize: Resize = "squash", *, workers: int | None = None, verify: bool = False
) -> PixelStore:
    """As `fill_store`, all of it at once."""
    for _ in fill_store(frame, folder, size, resize, workers=workers, verify=verify):
        pass
    return PixelStore.open(folder)


def fill_store(
    frame: pl.DataFrame, folder: Path, size: int, resize: Resize = "squash", *, workers: int | None = None, verify: bool = False
) -> Iterator[StoreProgress]:
    """Every image of an image table, read once; reports how far it is after each chunk, and at the end.

    Args:
        frame: columns image (id) and file (path); PNG, JPEG or DICOM, also inside zips.
        size: side of the images in pixels; resize: how they become squares.
        workers: processes that read; None: as many as this process has cores.
        verify: compare the SHA-256 of known files; False compares their size and time of change.

    An image that cannot be read has no row, and `PixelStore.dropped` says why. Closing the generator keeps what was done.

    Raises:
        ConfigError, LockHeld, ReadError, OutputError: as `engine.data.store.filling`.
        EngineError: no worker process can be started.
    """
    images = zip(frame["image"], map(Path, frame["file"]), strict=True)
    processes = workers or max(1, min(len(os.sched_getaffinity(0)), len(frame) // _WORTH_A_PROCESS))
    done = read = dropped = 0
    with filling(folder, size, resize) as writer, closing(fresh(images, writer.known, size, processes, verify)) as found:
        for looked, reading in found:
            done += 1
            if reading is not None:
                read += 1
                reason = "file_missing" if reading.reason == "vanished" else reading.reason
                if reason == "not_dicom" and _is_pointer(looked.file, looked.bytes):
                    reason = "lfs_pointer"
                facts = {"size": looked.bytes, "mtime_ns": looked.mtime_ns}
                writer.add(looked.image, reading.image, **facts, sha256=reading.content_hash, reason=reason)
            dropped += writer.known[looked.image].reason is not None
            if len(writer) >= CHUNK:
                writer.commit()
            if done % CHUNK == 0 and done < len(frame):
                yield StoreProgress(done, len(frame), read, dropped)
    yield StoreProgress(done, len(frame), read, dropped)


@dataclass(frozen=True)
class FileLook:
    """A file that was looked at: what it is known by, its size in bytes and time of change, and whether it is to be read."""

    image: str
    file: Path
    bytes: int
    mtime_ns: int
    to_read: bool


def fresh(
    images: Iterator[tuple[str, Path]], known: Mapping[str, Entry], size: int, workers: int, verify: bool, *, plain_images: bool = True
) -> Generator[tuple[FileLook, ReadResult | None], None, None]:
    """Each image (id and file), in order, with its reading; None where `known` has it and its file did not change.

    Args:
        known: image id -> size, time and SHA-256 of the file that it was made from.
        size: shorter side of the images; workers: processes, which start only when there is something to read.
        verify: compare SHA-256 instead of the time of change.
        plain_images: read PNG and JPEG too.
    """
    waiting: deque[FileLook] = deque()

    def to_read() -> Iterator[Path]:
        with ThreadPoolExecutor(_LOOKS) as pool:
            while chunk := list(islice(images, CHUNK)):
                for looked in pool.map(lambda pair: _looked_at(pair[0], pair[1], known.get(pair[0]), verify), chunk):
                    waiting.append(looked)
                    if looked.to_read:
                        yield looked.file

    paths = to_read()
    first = next(paths, None)
    if first is not None:
        from engine.intake.workers import read_files

        for reading in read_files(chain([first], paths), size=size, workers=workers, plain_images=plain_images):
            while not waiting[0].to_read:
                yield waiting.popleft(), None
            yield waiting.popleft(), reading
    for looked in waiting:
        yield looked, None


def _looked_at(image: str, file: Path, entry: Entry | None, verify: bool) -> FileLook:
    try:
        size, mtime = file_facts(file)
    except OSError:
        return FileLook(image, file, 0, 0, to_read=True)
    changed = entry is None or entry.bytes != size or not entry.sha256
    if entry is not None and not changed:
        changed = _digest(file) != entry.sha256 if verify else entry.mtime_ns != mtime
    return FileLook(image, file, size, mtime, changed)


def _digest(file: Path) -> str:
    from engine.dicom.reasons import Refusal
    from engine.intake.limits import LIMITS
    from engine.intake.reader import load_bytes

    try:
        return hashlib.sha256(load_bytes(file, LIMITS.file_bytes)).hexdigest()
    except Refusal:
        return ""


def _is_pointer(file: Path, size: int) -> bool:
    from engine.data.sources.image_table import is_lfs_pointer

    try:
        return is_lfs_pointer(file, size)
    except OSError:
        return False
