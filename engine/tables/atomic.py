"""Files that appear whole or not at all, and the lock that keeps two runs out of one output folder.

A file is written beside its place, flushed to the disk, renamed, and the folder flushed: a reader, a kill or a power loss sees the old file
or the new one, never a torn one. (Polars' own writers destroy the old file when they are killed midway.)
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
    """What the system says, without the path it says it about."""
    return os.strerror(error.errno) if error.errno else type(error).__name__


def make_folder(folder: Path, *, mode: int = 0o777) -> None:
    """The folder, made with its parents where it is missing; a narrower `mode` is also set on a folder that stands already.

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
    """The file at `path`, whole: `write` gets a binary stream; `mode` is cut by the umask.

    Raises:
        OutputError: it cannot be written; the file that stood there before stands there still, and nothing half-written stays.
    """
    with atomic_group() as files:
        files.add(path, write, mode=mode)
        files.publish()


class AtomicGroup:
    """Files that wait beside their places until all of them are written, so that a disk that fills midway leaves the old ones alone."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Path, Path]] = []

    def add(self, path: Path, write: Callable[[BinaryIO], object], *, mode: int = 0o666) -> Path:
        """Write one more file as `publish` does; where it waits, whole and on the disk.

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
        """Put every file in its place.

        Raises:
            OutputError: one cannot be put there; those before it were.
        """
        for beside, path in self._waiting:
            with _said(path):
                beside.replace(path)
        for folder, path in {path.parent: path for _, path in self._waiting}.items():
            with _said(path):
                flush_folder(folder)
        self._waiting.clear()

    def drop(self) -> None:
        """Take away what still waits."""
        for beside, _ in self._waiting:
            with suppress(OSError):
                beside.unlink(missing_ok=True)


@contextmanager
def atomic_group() -> Iterator[AtomicGroup]:
    """A `AtomicGroup` of which nothing half-written stays, however the block ends."""
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
    """Names of the folder on the disk as they stand.

    Raises:
        OSError: the system cannot.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Take away what a run that was killed left beside the files it was writing; whoever holds the lock is the only one to write."""
    for pattern in (".*.part", ".scratch-*"):
        for path in folder.rglob(pattern):
            with suppress(OSError):
                path.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The sole right to write in `folder` (which is made where missing) until the block ends; the kernel drops it when the process dies.

    Raises:
        LockHeld: another run is at work there.
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
