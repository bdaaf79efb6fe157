"""Sorted SHA-256 digests in an unlinked, memory-mapped file that worker processes inherit."""

from __future__ import annotations

import mmap
import os
import tempfile
from bisect import bisect_left
from collections.abc import Container, Iterator
from contextlib import contextmanager

_BYTES = 32


class SharedDigests(Container[bytes]):
    """Digests in rising order, 32 bytes each, mapped from an open file."""

    def __init__(self, handle: int) -> None:
        self._map = mmap.mmap(handle, 0, prot=mmap.PROT_READ)

    def __len__(self) -> int:
        return len(self._map) // _BYTES

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._map[index * _BYTES : (index + 1) * _BYTES]

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes) or len(digest) != _BYTES:
            return False
        place = bisect_left(self, digest)
        return place < len(self) and self[place] == digest


@contextmanager
def shared_digests(digests: bytes) -> Iterator[int | None]:
    """The descriptor of an open file for `SharedDigests`, which child processes may inherit; None where there are no digests.

    digests: 32 bytes each, rising.
    """
    if not digests:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        file.write(digests)
        file.flush()
        handle = _to_read(file.fileno())
        try:
            yield handle
        finally:
            os.close(handle)


def _to_read(handle: int) -> int:
    """The same open file, read-only where the system can: child processes must not change it."""
    try:
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return os.dup(handle)
