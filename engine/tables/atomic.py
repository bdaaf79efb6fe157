"""Atomic file writes, and the lock that keeps two runs out of one output folder.

A file is written under a temporary name, flushed to the disk and renamed, and the folder is flushed: after a kill or a power loss there is
the old file or the new one, never a torn one. (Polars' own writers destroy the old file when they are killed midway.)
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from engine.errors import LockHeld, OutputError

LOCK_NAME = ".lock"


def _reason(error: OSError) -> str:
    """The system's error message, without the path."""
    return os.strerror(error.errno) if error.errno else type(error).__name__


def make_folder(folder: Path, *, mode: int = 0o777) -> None:
    """Make a folder with its parents where it is missing; a narrower `mode` is also set on an existing folder.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if mode != 0o777:
            folder.chmod(mode)
    except OSError as error:
        raise OutputError("cannot make the output folder", why=_reason(error), hint="another folder with --out") from None


def publish(path: Path, write: Callable[[BinaryIO], object], *, mode: int = 0o666) -> None:
    """Write the file at `path` atomically: `write` gets a binary stream; `mode` is cut by the umask.

    Raises:
        OutputError: it cannot be written; the earlier file stays, and nothing half-written.
    """
    with atomic_group() as files:
        files.add(path, write, mode=mode)
        files.publish()


class AtomicGroup:
    """Files that are replaced only when all of them are written, so that a disk that fills midway leaves the old ones."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Path, Path]] = []

    def add(self, path: Path, write: Callable[[BinaryIO], object], *, mode: int = 0o666) -> Path:
        """Write one more file under a temporary name, which is returned.

        Raises:
            OutputError: it cannot be written.
        """
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._waiting.append((beside, path))
        with _said(path), os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        return beside

    def publish(self) -> None:
        """Rename every file to its final name.

        Raises:
            OutputError: one cannot be renamed; those before it were.
        """
        for beside, path in self._waiting:
            with _said(path):
                beside.replace(path)
        for folder, path in {path.parent: path for _, path in self._waiting}.items():
            with _said(path):
                flush_folder(folder)
        self._waiting.clear()

    def drop(self) -> None:
        """Remove the files that were not published."""
        for beside, _ in self._waiting:
            with suppress(OSError):
                beside.unlink(missing_ok=True)


@contextmanager
def atomic_group() -> Iterator[AtomicGroup]:
    """An `AtomicGroup`; files that were not published are removed when the block ends."""
    files = AtomicGroup()
    try:
        yield files
    finally:
        files.drop()


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path.name}", why=_reason(error), hint="free space or another folder with --out") from None


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk.

    Raises:
        OSError: the system cannot.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove the temporary files of a run that was killed; only the holder of the lock writes here."""
    for pattern in (".*.part", ".scratch-*"):
        for path in folder.rglob(pattern):
            with suppress(OSError):
                path.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `folder` (made where missing) for this run until the block ends; the kernel releases the lock when the process dies.

    Raises:
        LockHeld: another run holds it.
        OutputError: the folder cannot be made or written.
    """
    make_folder(folder)
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise OutputError("cannot write in the output folder", why=_reason(error), hint="another folder with --out") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockHeld("another run is writing to the output folder", hint="wait for it, or another folder with --out") from None
        except OSError as error:
            raise OutputError("cannot lock the output folder", why=_reason(error), hint="a folder on a local disk with --out") from None
        _sweep(folder)
        yield
    finally:
        os.close(descriptor)
