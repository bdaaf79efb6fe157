"""Temporary key-value store (unlinked SQLite), so that memory does not grow with the number of files."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import OutputError


class TempStore:
    """Values by kind and key, in the order they were added; at most a few megabytes are in memory.

    Args:
        folder: where the file is made, and unlinked at once. None: the system's temporary folder, for data without identifiers.

    Raises:
        OutputError: there is no room for it (every method).
    """

    def __init__(self, folder: Path | None = None) -> None:
        path = folder / f".scratch-{os.getpid()}-{id(self):x}" if folder else None
        try:
            self._file = sqlite3.connect(path or "", isolation_level=None, check_same_thread=False)
            for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -4096", "locking_mode = EXCLUSIVE"):
                self._file.execute(f"PRAGMA {setting}")
            self._file.execute("BEGIN EXCLUSIVE")  # never committed, as the file is not read later: a fifth of the time
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

    def first(self, kind: str, key: bytes, value: bytes = b"") -> bytes | None:
        """The value that the key has; None where it had none, and has `value` now."""
        words = "INSERT INTO kept SELECT ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM kept WHERE kind = ? AND key = ?) RETURNING 1"
        return None if self._ask(words, (kind, key, value, kind, key)) else self.values(kind, key)[0]

    def _ask(self, words: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._file.execute(words, values).fetchall()
        except sqlite3.Error as error:
            raise _no_room(error) from None


def _no_room(error: sqlite3.Error) -> OutputError:
    return OutputError("cannot write a temporary file", why=str(error), hint="free space, or another TMPDIR")
