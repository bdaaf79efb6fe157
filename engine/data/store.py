"""The pixel store: every image of an image table as a square of 8-bit grey, in one memory map that training reads from.

    meta.json       format, side, how an image becomes a square
    pixels.u8       (rows, side, side) uint8, raw
    journal.jsonl   one line per image: its row, or why it has none; bytes and SHA-256 of the file it was made from

A line is written only after its pixels are on the disk, so a killed build goes on where it stopped. An image whose file has changed
is made again in the same row. `engine/data/filling.py` fills stores; what is here needs neither DICOM nor a table.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError, InputMissing, LockHeld, OutputError, ReadError
from engine.model.preprocessing import Resize, resized

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """What the journal says of one image: its row (None: it has none, for `reason`), and the file it was made from."""

    image: str
    row: int | None
    bytes: int
    sha256: str
    reason: str | None = None
    mtime_ns: int = 0


@dataclass(frozen=True)
class PixelStore:
    """An open store.

    Attributes:
        size: side of the images in pixels.
        resize: how an image became a square: squash | pad | crop.
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
        """The image of this image, uint8 (size, size); KeyError where the store has none."""
        picture: NDArray[np.uint8] = self.pixels[self.row(image)]
        return picture

    def dropped(self) -> dict[str, str]:
        """Image -> why it has no image."""
        return {image: entry.reason for image, entry in self.entries.items() if entry.reason is not None}


class StoreWriter:
    """A store being filled by this process alone: images are added, and `commit` makes what was added last beyond a kill.

    Attributes:
        known: image id -> what the journal says of it, what was added since included.
    """

    def __init__(self, folder: Path, size: int, resize: Resize) -> None:
        self.folder, self.size, self.resize = folder, size, resize
        self.known = dict(_read_journal(folder))
        self._next_row = max((entry.row + 1 for entry in self.known.values() if entry.row is not None), default=0)
        self._pictures: list[tuple[int, NDArray[np.uint8]]] = []
        self._lines: list[bytes] = []

    def __len__(self) -> int:
        """How many lines wait for `commit`."""
        return len(self._lines)

    def add(self, image: str, picture: NDArray[np.uint8] | None, *, size: int, mtime_ns: int, sha256: str, reason: str | None) -> Entry:
        """One image: its image, uint8 of any shape, or the reason why it has none. An image that had a row keeps it."""
        row = None
        if picture is not None:
            before = self.known.get(image)
            row = before.row if before is not None else None
            if row is None:
                row, self._next_row = self._next_row, self._next_row + 1
            self._pictures.append((row, resized(picture, self.size, self.resize)))
        entry = Entry(image, row, size, sha256, reason, mtime_ns)
        self.known[image] = entry
        self._lines.append(json.dumps(asdict(entry)).encode() + b"\n")
        return entry

    def commit(self) -> None:
        """Pixels to the disk first, then their lines of the journal. OSError where the disk does not take them."""
        _write_pictures(self.folder / "pixels.u8", self._pictures, self._next_row, self.size)
        with (self.folder / "journal.jsonl").open("a+b") as journal:
            _end_torn_line(journal.fileno())
            journal.write(b"".join(self._lines))
            journal.flush()
            os.fsync(journal.fileno())
        self._pictures.clear()
        self._lines.clear()


@contextmanager
def filling(folder: Path, size: int, resize: Resize) -> Iterator[StoreWriter]:
    """The sole right to fill the store in that folder, which is made where it is missing. What was added is committed at the end, also
    when an error or a signal ends the block.

    Raises:
        ConfigError: the folder holds a store of another size or resize.
        LockHeld: another run is filling it.
        ReadError: it is damaged.
        OutputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _begin(folder, size, resize)
            writer = StoreWriter(folder, size, resize)
            try:
                yield writer
            finally:
                if len(writer):
                    writer.commit()
    except OSError as error:
        raise OutputError(
            "the pixel store cannot be written", why=os.strerror(error.errno or errno.EIO), hint="free space, or another folder"
        ) from error


def _write_pictures(file: Path, pictures: list[tuple[int, NDArray[np.uint8]]], rows: int, size: int) -> None:
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
