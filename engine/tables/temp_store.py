"""What a run must remember of every file without holding it: keys and values in a file that has no name, and is gone with the process."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.errors import OutputError


class TempStore:
    """Values by kind and key, in the order they came; memory holds a few megabytes of them, however many there are.

    Args:
        folder: where the file lies, its name taken away at once. None: where the system keeps temporary files, for nothing that identifies.

    Raises:
        OutputError: there is no room for it (every method).
    """

    def __init__(self, folder: Path | None = None) -> None:
        path = folder / f".scratch-{os.getpid()}-{id(self):x}" if folder else None
        try:
            self._file = sqlite3.connect(path or "", isolation_level=None, check_same_thread=False)
            for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -4096", "locking_mode = EXCLUSIVE"):
                self._file.execute(f"PRAGMA {setting}")
            self._file.execute("BEGIN EXCLUSIVE")  # never committed, as nobody reads the file later: a fifth of the time
            self._file.execute("CREATE TABLE kept (kind TEXT, key BLOB, value BLOB)")
            self._file.execute("CREATE INDEX by_key ON kept (kind, key)")
        except sqlite3.Error as error:
            raise _no_room(error) from None
        finally:
            if path:
                path.unlink(missing_ok=True)

    def values(self, kind: str, key: bytes) -> list[bytes]:
        """Every value of the key."""
        return [value for (value,) in self._ask("SELECT value FROM kept WHERE kind = ? AND key = ? ORDER BY rowid", (kind, key))]

    def add(self, kind: str, key: bytes, value: bytes = b"") -> None:
        """One more value of the key."""
        self._ask("INSERT INTO kept VALUES (?, ?, ?)", (kind, key, value))

    def replace(self, kind: str, key: bytes, value: bytes) -> None:
        """Another value for a key that has one; its place in the order stays."""
        self._ask("UPDATE kept SET value = ? WHERE kind = ? AND key = ?", (value, kind, key))

    def first(self, kind: str, key: bytes, value: bytes = b"") -> bytes | None:
        """The value that the key has; None where it had none, and has `value` now."""
        earlier = self.values(kind, key)
        if earlier:
            return earlier[0]
        self.add(kind, key, value)
        return None

    def keys(self, kind: str) -> Iterator[bytes]:
        """Every key of the kind, rising."""
        for (key,) in self._file.execute("SELECT DISTINCT key FROM kept WHERE kind = ? ORDER BY key", (kind,)):
            yield key

    def in_order(self, kind: str) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of the kind as they came."""
        # the sign keeps SQLite from going by the index, and from sorting
        yield from self._file.execute("SELECT key, value FROM kept WHERE +kind = ? ORDER BY rowid", (kind,))

    def count(self, kind: str) -> int:
        """How many keys the kind has."""
        return int(self._ask("SELECT COUNT(DISTINCT key) FROM kept WHERE kind = ?", (kind,))[0][0])

    def _ask(self, words: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._file.execute(words, values).fetchall()
        except sqlite3.Error as error:
            raise _no_room(error) from None


def _no_room(error: sqlite3.Error) -> OutputError:
    return OutputError("cannot write a temporary file", why=str(error), hint="free space, or another TMPDIR")
