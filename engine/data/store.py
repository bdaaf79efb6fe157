"""The pixel store: every picture of an image table as a square of 8-bit grey, in one memory map that training reads from.

    meta.json       format, side, how a picture becomes a square
    pixels.u8       (rows, side, side) uint8, raw
    journal.jsonl   one line per picture: its row, or why it has none; bytes and SHA-256 of the file it was made from

A line is written only after its pixels are on the disk, so a killed build goes on where it stopped. A picture whose file has changed
is made again in the same row.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from engine.data.pictures import is_dicom, picture_of, squared
from engine.errors import ConfigError, InputMissing, LockHeld, OutputError, ReadError

if TYPE_CHECKING:
    import polars as pl

FORMAT = 1
CHUNK = 256
"""Pictures between two syncs to the disk: what a kill can cost."""

Resize = Literal["squash", "pad", "crop"]


@dataclass(frozen=True)
class Entry:
    """What the journal says of one image: its row (None: it has none, for `reason`), and the file it was made from."""

    image: str
    row: int | None
    bytes: int
    sha256: str
    reason: str | None = None


@dataclass(frozen=True)
class PixelStore:
    """An open store.

    Attributes:
        size: side of the pictures in pixels.
        resize: how a picture became a square: squash | pad | crop.
        entries: image id -> what the journal says of it.
        pixels: uint8 (rows, size, size), read-only memory map; bone is bright.
    """

    folder: Path
    size: int
    resize: Resize
    entries: Mapping[str, Entry]
    pixels: NDArray[np.uint8]

    @classmethod
    def open(cls, folder: Path) -> PixelStore:
        """The store in that folder, finished or not.

        Raises:
            InputMissing: there is none.
            ReadError: it is damaged or of another format.
        """
        size, resize = _read_meta(folder)
        entries = _read_journal(folder)
        rows = max((entry.row + 1 for entry in entries.values() if entry.row is not None), default=0)
        pixels: NDArray[np.uint8] = np.zeros((0, size, size), np.uint8)
        if rows:
            file = folder / "pixels.u8"
            if not file.is_file() or file.stat().st_size < rows * size * size:
                raise ReadError(
                    "the pixel store is damaged", why="its pixels are shorter than its journal", hint="delete the store's folder"
                )
            pixels = np.memmap(file, np.uint8, "r", shape=(rows, size, size))
        return cls(folder, size, resize, entries, pixels)

    def __contains__(self, image: object) -> bool:
        return image in self.entries and self.entries[str(image)].row is not None

    def row(self, image: str) -> int:
        """The row of `pixels` that holds this image; KeyError where the store has none."""
        row = self.entries[image].row
        if row is None:
            raise KeyError("the store has no picture of this image")
        return row

    def picture(self, image: str) -> NDArray[np.uint8]:
        """The picture of this image, uint8 (size, size); KeyError where the store has none."""
        picture: NDArray[np.uint8] = self.pixels[self.row(image)]
        return picture

    def dropped(self) -> dict[str, str]:
        """Image -> why it has no picture."""
        return {image: entry.reason for image, entry in self.entries.items() if entry.reason is not None}


def build_store(
    frame: pl.DataFrame, folder: Path, size: int, resize: Resize = "squash", *, workers: int = 2, verify: bool = True
) -> PixelStore:
    """Every picture of an image table, read once; what is there already, and unchanged, is kept.

    Args:
        frame: columns image (id) and file (path); PNG, JPEG or DICOM, told by content.
        verify: read known files again to compare their SHA-256; False compares their size alone.

    A picture that cannot be read has no row, and `PixelStore.dropped` says why.

    Raises:
        ConfigError: the folder holds a store of another size or resize.
        LockHeld: another run is filling it.
        OutputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _begin(folder, size, resize)
            _fill(zip(frame["image"], map(Path, frame["file"]), strict=True), folder, size, resize, workers, verify)
    except OSError as error:
        raise OutputError(
            "the pixel store cannot be written", why=error.strerror or str(error), hint="free space, or another folder"
        ) from error
    return PixelStore.open(folder)


def _fill(images: Iterator[tuple[str, Path]], folder: Path, size: int, resize: Resize, workers: int, verify: bool) -> None:
    """Reads chunk after chunk; of each: pixels to the disk first, then its journal lines."""
    known = _read_journal(folder)
    next_row = max((entry.row + 1 for entry in known.values() if entry.row is not None), default=0)
    with ThreadPoolExecutor(workers) as pool, (folder / "journal.jsonl").open("a+b") as journal:
        _end_torn_line(journal.fileno())
        while chunk := list(islice(images, CHUNK)):
            made = list(pool.map(lambda pair: _made(pair, known.get(pair[0]), size, resize, verify), chunk))
            made = _with_dicom(chunk, made, size, resize, workers)
            entries, pictures = [], []
            for (image, _), one in zip(chunk, made, strict=True):
                if one is None:
                    continue
                row = None
                if one.picture is not None:
                    before = known.get(image)
                    row = before.row if before is not None else None
                    if row is None:
                        row, next_row = next_row, next_row + 1
                    pictures.append((row, one.picture))
                entries.append(Entry(image, row, one.bytes, one.sha256, one.reason))
            _write_pictures(folder / "pixels.u8", pictures, next_row, size)
            journal.write(b"".join(json.dumps(asdict(entry)).encode() + b"\n" for entry in entries))
            journal.flush()
            os.fsync(journal.fileno())


@dataclass(frozen=True)
class _Made:
    """One file read: its picture, or why there is none. `dicom`: to be read by the DICOM workers."""

    bytes: int
    sha256: str
    picture: NDArray[np.uint8] | None = None
    reason: str | None = None
    dicom: bool = False


def _made(pair: tuple[str, Path], known: Entry | None, size: int, resize: Resize, verify: bool) -> _Made | None:
    """None: the store's picture of this file stands."""
    file = pair[1]
    try:
        if known is not None and not verify and known.bytes == file.stat().st_size:
            return None
        raw = file.read_bytes()
    except OSError:
        return _Made(0, "", reason="file_missing")
    digest = hashlib.sha256(raw).hexdigest()
    if known is not None and known.sha256 == digest:
        return None
    if is_dicom(raw):
        return _Made(len(raw), digest, dicom=True)
    from engine.dicom.policy import Refusal

    try:
        return _Made(len(raw), digest, picture=picture_of(raw, size, resize))
    except Refusal as refusal:
        return _Made(len(raw), digest, reason=refusal.code)


def _with_dicom(
    chunk: Sequence[tuple[str, Path]], made: Sequence[_Made | None], size: int, resize: Resize, workers: int
) -> list[_Made | None]:
    """The same, with DICOM files read in the workers of engine.dicom."""
    waiting = [index for index, one in enumerate(made) if one is not None and one.dicom]
    done = list(made)
    if not waiting:
        return done
    from engine.dicom.workers import read_files

    for index, reading in zip(waiting, read_files([chunk[index][1] for index in waiting], size=size, workers=workers), strict=True):
        picture = None if reading.picture is None else squared(reading.picture, size, resize)
        one = made[index]
        assert one is not None  # `waiting` holds no other
        done[index] = _Made(one.bytes, one.sha256, picture=picture, reason=reading.reason)
    return done


def _write_pictures(file: Path, pictures: Sequence[tuple[int, NDArray[np.uint8]]], rows: int, size: int) -> None:
    if not pictures:
        return
    with file.open("r+b" if file.exists() else "w+b") as out:
        out.truncate(max(rows * size * size, os.fstat(out.fileno()).st_size))
        for row, picture in pictures:
            out.seek(row * size * size)
            out.write(np.ascontiguousarray(picture).tobytes())
        out.flush()
        os.fsync(out.fileno())


def _begin(folder: Path, size: int, resize: Resize) -> None:
    """Writes meta.json, or checks that the one there agrees."""
    if (folder / "meta.json").exists():
        if _read_meta(folder) != (size, resize):
            raise ConfigError(
                "the folder holds a pixel store of another kind",
                why=f"asked for {size} pixels, {resize}; found {' pixels, '.join(map(str, _read_meta(folder)))}",
                hint="another folder, or delete that one",
            )
        return
    beside = folder / "meta.json.part"
    beside.write_text(json.dumps({"format": FORMAT, "size": size, "resize": resize}) + "\n")
    beside.replace(folder / "meta.json")


def _read_meta(folder: Path) -> tuple[int, Resize]:
    file = folder / "meta.json"
    if not file.is_file():
        raise InputMissing("there is no pixel store", why=f"no file {file}", hint="`mmclip pretrain` builds it from the recipe's sources")
    try:
        meta = json.loads(file.read_text())
        if meta["format"] != FORMAT or meta["resize"] not in ("squash", "pad", "crop") or not isinstance(meta["size"], int):
            raise ValueError("of another version")
    except (ValueError, KeyError, TypeError) as error:
        raise ReadError(
            "the pixel store cannot be read", why=f"its meta.json is damaged or {error}", hint="delete the store's folder"
        ) from error
    return meta["size"], meta["resize"]


def _read_journal(folder: Path) -> dict[str, Entry]:
    """Image -> its last line. A last line torn by a kill does not count."""
    file = folder / "journal.jsonl"
    if not file.is_file():
        return {}
    lines: Iterable[bytes] = file.read_bytes().split(b"\n")[:-1]
    try:
        entries = [Entry(**json.loads(line)) for line in lines if line]
    except (ValueError, TypeError) as error:
        raise ReadError("the pixel store's journal is damaged", why=str(error), hint="delete the store's folder") from error
    return {entry.image: entry for entry in entries}


def _end_torn_line(journal: int) -> None:
    """Cuts off what a kill left of a last line."""
    end = os.lseek(journal, 0, os.SEEK_END)
    tail = os.pread(journal, min(end, 1 << 20), max(0, end - (1 << 20)))
    os.ftruncate(journal, end - len(tail) + tail.rfind(b"\n") + 1)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockHeld("another run is filling this pixel store", hint="wait for it, or another folder") from error
        yield
