"""SHA-256 digests in a file without a name that processes share: what a child looks up without being told every digest through a pipe."""

from __future__ import annotations

import mmap
import os
import tempfile
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager

_BYTES = 32


class Contents(Container[bytes]):
    """Digests in rising order, mapped from an open file; 32 bytes each, and none of them held in the process's own memory."""

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


class Everything(Container[bytes]):
    """Holds every digest: whoever asks stops at the hash."""

    def __contains__(self, digest: object) -> bool:
        return True


@contextmanager
def shared(digests: Iterable[bytes]) -> Iterator[int | None]:
    """The handle of an open file for `Contents`, which children may inherit; None where there is no digest. Gone with the last of them."""
    joined = b"".join(sorted(digests))
    if not joined:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        file.write(joined)
        file.flush()
        handle = _to_read(file.fileno())
        try:
            yield handle
        finally:
            os.close(handle)


def _to_read(handle: int) -> int:
    """The same open file for reading alone, where the system can: a child has no business in changing it."""
    try:
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return os.dup(handle)
