"""Feature cache: read results and image features of files by the SHA-256 of their bytes, so that no file is decoded or encoded twice.

Rows are kept in Parquet shards (engine/tables/shards.py), which `score`, `evaluate`, `finetune` and `ingest` share. On opening, the shards
are scanned once and scored shard by shard; the rows wait in a temporary file. In memory a known file costs 40 bytes: its digest and the
place of its row.
"""

from __future__ import annotations

import json
import os
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.intake.read_result import COARSE, ReadResult, coarse_image
from engine.tables.columns import joined_flags, split_flags
from engine.tables.shards import ROW_COLUMNS, ShardFolder

Vector = NDArray[np.float32]

ADD_ROWS = 512
ADD_SECONDS = 30.0
"""A shard is published after so many new rows or seconds, whichever comes first: the most that a kill can cost."""

NOT_KEPT = frozenset(
    {
        "archive", "decode_crash", "decode_timeout", "in_progress", "io_error", "nesting_too_deep", "not_dicom", "resource_limit",
        "unreadable", "vanished",
    }
)  # fmt: skip
"""Reasons that are not kept: another run may find another one (a higher limit, a repaired disk), or finds it at no cost."""

_AS_READ = (
    "outcome", "reason", "detail", "content_hash", "pixel_hash", "modality", "view", "transfer_syntax", "sop_class", "rows", "columns",
    "sop_instance_uid", "series_instance_uid", "study_instance_uid", "patient", "age",
)  # fmt: skip
_TEXTS = ("flags", *(name for name in _AS_READ if name != "content_hash"))
_COARSE_BYTES = COARSE[0] * COARSE[1]
_DIGEST = np.dtype("S32")


@dataclass(frozen=True)
class Known:
    """A content that the cache holds: the cells of its row, and its scores (F,), None where the image has no features."""

    cells: Mapping[str, Any]
    scores: Vector | None

    @property
    def is_plain_image(self) -> bool:
        """Whether it is a PNG or JPEG, which is only scored where a table or `--images` asks for it."""
        return self.cells["outcome"] == "score" and self.cells["transfer_syntax"] is None

    def reading(self, path: Path) -> ReadResult:
        """The read result of a file of that content; its image is the coarse one, which is all that finding duplicates needs."""
        coarse = self.cells["coarse"]
        image = None if coarse is None else np.frombuffer(coarse, np.uint8).reshape(COARSE)
        cells = {name: self.cells[name] for name in _AS_READ}
        return ReadResult(path, flags=split_flags(self.cells["flags"]), image=image, **(cells | {"detail": cells["detail"] or ""}))


def cache_row(reading: ReadResult) -> dict[str, Any]:
    """A read result as a row of the cache: outcome and flags by the file alone, before it is compared with other files of the run."""
    cells: dict[str, Any] = {name: getattr(reading, name) for name in _AS_READ}
    cells["flags"] = joined_flags(reading.flags)
    cells["coarse"] = None if reading.image is None else coarse_image(reading.image)
    return cells


class FeatureCache:
    """Rows of earlier runs, found by content, and new rows on their way to the disk.

    Args:
        shards: the shards of one model and reader.
        scores_of: features (N, D) -> scores (N, F), NaN where there are none; applied once, when the cache is opened. None: the features.

    Raises:
        ConfigError: a shard was written by a newer version.
        OutputError: there is no room for the temporary file, or (`add`, `flush`) a shard cannot be written.
    """

    def __init__(self, shards: ShardFolder, scores_of: Callable[[Vector], Vector] | None = None) -> None:
        self.shards = shards
        self.outdated: Counter[str] = Counter()
        """Name of another reader -> number of its rows, which are not used."""
        self._new: list[tuple[dict[str, Any], Vector | None]] = []
        self._since = time.monotonic()
        self._rows = _RowFile(shards.private_folder if shards.private_folder.is_dir() else None)
        digests, outdated = [np.zeros(0, _DIGEST)], [np.zeros(0, _DIGEST)]
        for shard in shards.shards():
            ours = shard.rows["reader"].is_in(shards.readers).to_numpy()
            current, others = shard.where(ours), shard.rows.filter(~pl.Series(ours, dtype=pl.Boolean))
            scores = current.features if scores_of is None else scores_of(current.features).astype(np.float32)
            self._rows.append(current.rows, scores)
            digests.append(_digests(current.rows))
            outdated.append(_digests(others))
            self.outdated.update(others["reader"])
        self._digests, places = np.unique(np.concatenate(digests), return_index=True)
        self._places = places.astype(np.uint32)
        self._outdated = np.setdiff1d(np.concatenate(outdated), self._digests)

    def __len__(self) -> int:
        return len(self._digests)

    def get(self, content_hash: str) -> Known | None:
        """What is known of a content by the SHA-256 of its bytes, hexadecimal; None where it is new."""
        place = _place(self._digests, content_hash)
        if place is None:
            return None
        cells, scores = self._rows.read(int(self._places[place]))
        return Known(cells | {"content_hash": content_hash}, scores)

    def features(self, contents: Sequence[str]) -> Vector:
        """The features (N, D) of contents, rows of NaN where they are new; of a cache that was opened without `scores_of`."""
        found = np.full((len(contents), self.shards.width), np.nan, np.float32)
        for number, content in enumerate(contents):
            if (known := self.get(content)) is not None and known.scores is not None:
                found[number] = known.scores
        return found

    def is_outdated(self, content_hash: str) -> bool:
        """Whether only another reader has read this content."""
        return holds(self._outdated, content_hash)

    def digests(self) -> bytes:
        """The SHA-256 of every known content, 32 bytes each, rising."""
        return bytes(self._digests.tobytes())

    def add(self, reading: ReadResult, features: Vector | None, **file: str | int) -> None:
        """A new row, unless its reason may not hold in another run; `file`: path, bytes and mtime_ns where they are to be kept."""
        if not reading.content_hash or reading.reason in NOT_KEPT:
            return
        self._new.append((cache_row(reading) | file, features))
        if len(self._new) >= ADD_ROWS or time.monotonic() - self._since > ADD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Publish the new rows as a shard, one for each content."""
        rows = {(row["content_hash"], row.get("path")): (row, features) for row, features in self._new}
        self.shards.append([row for row, _ in rows.values()], [features for _, features in rows.values()])
        self._new.clear()
        self._since = time.monotonic()

    def close(self) -> None:
        """Publish the new rows and fold small shards, which can wait for another run where the disk is full."""
        self.flush()
        with suppress(OutputError):
            self.shards.compact(superseded=bool(self.outdated))


def cached_contents(shards: ShardFolder) -> NDArray[np.bytes_]:
    """The SHA-256 of every content with a row of this reader, 32 bytes each, rising; nothing is written."""
    found = [_digests(shard.rows.filter(pl.col("reader").is_in(shards.readers))) for shard in shards.shards()]
    contents: NDArray[np.bytes_] = np.unique(np.concatenate([np.zeros(0, _DIGEST), *found]))
    return contents


def cached_files(shards: ShardFolder) -> Iterator[tuple[str, str, int, int]]:
    """Path, SHA-256 (hexadecimal), size in bytes and time of change of every file whose path is kept, by rising time of change."""
    columns = ["path", "content_hash", "bytes", "mtime_ns"]
    empty = pl.DataFrame(schema={name: ROW_COLUMNS[name] for name in columns})
    ours = pl.col("reader").is_in(shards.readers) & pl.col("path").is_not_null()
    yield from pl.concat([empty, *(shard.rows.filter(ours).select(columns) for shard in shards.shards())]).sort("mtime_ns").iter_rows()


def _digests(rows: pl.DataFrame) -> NDArray[np.bytes_]:
    return np.frombuffer(b"".join(rows["content_hash"].str.decode("hex")), _DIGEST)


def holds(digests: NDArray[np.bytes_], content_hash: str) -> bool:
    """Whether a SHA-256, hexadecimal, is among sorted digests; an empty one never is."""
    return _place(digests, content_hash) is not None


def _place(digests: NDArray[np.bytes_], content_hash: str) -> int | None:
    """Where a digest is among sorted ones, None where it does not."""
    if not content_hash:
        return None
    digest = np.frombuffer(bytes.fromhex(content_hash), _DIGEST)[0]
    place = int(np.searchsorted(digests, digest))
    return place if place < len(digests) and digests[place] == digest else None


class _RowFile:
    """Rows by number, in two temporary files without a name: one of records of equal length, one of the other cells as JSON.

    Args:
        folder: where the files are, as rows hold identifiers. None: where the system keeps temporary files.
    """

    def __init__(self, folder: Path | None) -> None:
        self._records, self._texts = _unnamed_file(folder), _unnamed_file(folder)
        weakref.finalize(self, os.close, self._records)
        weakref.finalize(self, os.close, self._texts)
        self._layout: np.dtype[np.void] | None = None
        self._end = 0

    def append(self, rows: pl.DataFrame, scores: Vector) -> None:
        """More rows, with scores (N, F) that are NaN where there are none."""
        texts = rows.select(pl.struct(*_TEXTS).struct.json_encode()).to_series()
        sizes = texts.str.len_bytes().to_numpy().astype(np.int64)
        coarse = rows["coarse"]
        has_image = (coarse.bin.size() == _COARSE_BYTES).fill_null(value=False).to_numpy()
        self._layout = np.dtype(
            [("at", "<i8"), ("size", "<i8"), ("has_image", "?"), ("image", f"V{_COARSE_BYTES}"), ("scores", "<f4", scores.shape[1:])]
        )
        records = np.zeros(len(rows), self._layout)
        records["at"], records["size"] = self._end + np.cumsum(sizes) - sizes, sizes
        records["has_image"], records["scores"] = has_image, scores
        records["image"][has_image] = np.frombuffer(b"".join(coarse.filter(pl.Series(has_image, dtype=pl.Boolean))), records["image"].dtype)
        _write(self._records, records.tobytes())
        _write(self._texts, "".join(texts).encode())
        self._end += int(sizes.sum())

    def read(self, number: int) -> tuple[dict[str, Any], Vector | None]:
        """The cells of a row, and its scores."""
        assert self._layout is not None  # a row was appended
        size = self._layout.itemsize
        record = np.frombuffer(os.pread(self._records, size, number * size), self._layout)[0]
        cells = json.loads(os.pread(self._texts, int(record["size"]), int(record["at"])))
        scores = np.array(record["scores"])
        return cells | {"coarse": record["image"].tobytes() if record["has_image"] else None}, None if np.isnan(scores).any() else scores


def _unnamed_file(folder: Path | None) -> int:
    """The descriptor of a temporary file without a name."""
    try:
        with TemporaryFile(dir=folder) as file:
            return os.dup(file.fileno())
    except OSError as error:
        raise _no_room(error) from None


def _write(file: int, content: bytes) -> None:
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError as error:
        raise _no_room(error) from None


def _no_room(error: OSError) -> OutputError:
    why = os.strerror(error.errno) if error.errno else type(error).__name__
    return OutputError("cannot write a temporary file", why=why, hint="free space, or another folder with --out")
