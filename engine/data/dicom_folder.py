"""Folders of DICOM -> a pixel store, and one row per file with its outcome.

Identifiers are in `private/` only: studies, images and patients are named by HMAC (engine/tables/identity.py), and pixels by
their row in the store. The feature cache (engine/scoring/feature_cache.py, without features here) has a row for each file read, with its
path, size and time of change: a run that was killed continues where it stopped, and files that did not change are not read again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from engine.data.build_store import CHUNK, FileLook, StoreProgress, fresh
from engine.data.sources.image_table import COLUMNS
from engine.data.store import Entry, StoreWriter, filling
from engine.dicom.reader_version import reader_version, same_readers
from engine.intake.duplicates import DuplicateIndex
from engine.intake.files import InputFile
from engine.intake.read_result import ReadResult
from engine.model.preprocessing import Resize
from engine.scoring.feature_cache import FeatureCache, cached_files
from engine.scoring.run_state import result_row
from engine.tables.columns import IMAGE_COLUMNS, PRIVATE_COLUMNS
from engine.tables.identity import Names
from engine.tables.shards import ShardFolder, text_of_path

EXTRA = {name: IMAGE_COLUMNS[name] for name in ("content_hash", "flags", "modality", "rows", "columns", "transfer_syntax")}
"""Columns of the image table of a DICOM folder after `COLUMNS`."""


@dataclass(frozen=True)
class Ingested:
    """The result of ingesting a folder.

    Attributes:
        frame: images that were read: `COLUMNS`, `file` relative to the folder that holds the store, and `EXTRA`.
        private: every file: image, path, UIDs, patient, outcome, reason.
    """

    frame: pl.DataFrame
    private: pl.DataFrame


def ingest_folder(
    items: Iterable[InputFile],
    names: Names,
    store: Path,
    size: int,
    resize: Resize,
    *,
    workers: int,
    verify: bool = False,
) -> Generator[StoreProgress, None, Ingested]:
    """Read every file once; yields progress (`total` 0: not known), the generator's value is the result.

    The first copy of an image is kept; a copy in another encoding, or with the same content, is a duplicate.

    Raises:
        ConfigError, LockHeld, ReadError, OutputError: as `engine.data.store.filling`.
    """
    shards = ShardFolder(store.parent, f"{size}-{resize}", reader_version(), _NO_FEATURES, same_readers())
    cache, walked = FeatureCache(shards), list[InputFile]()

    def to_look_at() -> Iterator[tuple[str, Path]]:
        for item in items:
            walked.append(item)
            if item.decided is None:
                yield text_of_path(item.path), item.path

    duplicates, rows, done, read, dropped = DuplicateIndex(), _Rows(names, store.name), 0, 0, 0
    place = 0

    def decided() -> None:
        """Rows of the files that needed no opening, up to the next one that did."""
        nonlocal place
        while place < len(walked) and (verdict := walked[place].decided) is not None:
            rows.add(walked[place], ReadResult(walked[place].path, *verdict), None)
            place += 1

    with filling(store, size, resize) as writer, _NewRows(cache, writer) as new_rows:
        entries = _unchanged(cache, writer, names)
        for looked, fresh_reading in fresh(to_look_at(), entries, size, workers, verify, plain_images=False):
            decided()
            item, place = walked[place], place + 1
            reading = _known_reading(cache, looked, entries) if fresh_reading is None else fresh_reading
            settled = duplicates.resolve(reading)
            image = rows.name_of(item, settled)
            if settled.outcome == "score" and image in rows.images:
                settled = settled.without_image("duplicate", "same_pixels")
            if fresh_reading is not None:
                read += 1
                new_rows.add(looked, reading)
                if settled.outcome == "score":
                    facts = {"size": looked.bytes, "mtime_ns": looked.mtime_ns}
                    writer.add(image, settled.image, **facts, sha256=settled.content_hash, reason=None)
            row = writer.known[image].row if settled.outcome == "score" else None
            rows.add(item, settled, row)
            done, dropped = done + 1, dropped + (row is None)
            if done % CHUNK == 0:
                new_rows.commit()
                yield StoreProgress(done, 0, read, dropped)
        decided()
    cache.close()
    yield StoreProgress(done, done, read, dropped)
    return rows.tables()


_NO_FEATURES = 1
"""Width of the feature vectors, which no row has."""


def _unchanged(cache: FeatureCache, writer: StoreWriter, names: Names) -> dict[str, Entry]:
    """Path -> size, time and content of the files whose read result is known and whose image, if any, is in the store."""
    entries: dict[str, Entry] = {}
    for path, content_hash, size, mtime_ns in cached_files(cache.shards):
        known = cache.get(content_hash)
        if known is None:
            continue
        uid = known.cells["sop_instance_uid"]
        if known.cells["outcome"] != "score" or (names.of(uid) if uid else names.hashed(content_hash)) in writer.known:
            entries[path] = Entry(path, None, size, content_hash, None, mtime_ns)
    return entries


def _known_reading(cache: FeatureCache, looked: FileLook, entries: Mapping[str, Entry]) -> ReadResult:
    known = cache.get(entries[looked.image].sha256)
    assert known is not None  # as `_unchanged` has found it
    return known.reading(looked.file)


class _Rows:
    """The rows of the tables, in the order of the walk."""

    def __init__(self, names: Names, store: str) -> None:
        self.names, self.store = names, store
        self.images: dict[str, dict[str, Any]] = {}
        self.files: list[dict[str, Any]] = []

    def name_of(self, item: InputFile, reading: ReadResult) -> str:
        return str(result_row(item, reading, None, self.names).public["image"])

    def add(self, item: InputFile, reading: ReadResult, row: int | None) -> None:
        result = result_row(item, reading, None, self.names)
        self.files.append(result.private | {name: result.public[name] for name in ("image", "outcome", "reason")})
        if row is None:
            return
        public, patient = result.public, result.private["patient"]
        study = public["study"] or public["image"]
        self.images[public["image"]] = {
            **dict.fromkeys(("split", "sex", "report", "report_key", "report_group"), ""),
            **{name: public[name] for name in ("image", *EXTRA)},
            "file": f"{self.store}/pixels.u8/{row}",
            "study": study,
            "patient": self.names.hashed(patient) if patient else study,
            "view": public["view"] or "",
            "paired": False,
            "held_out": False,
            "source": "dicom",
            "repeat": 1,
        }

    def tables(self) -> Ingested:
        private: dict[str, Any] = {**PRIVATE_COLUMNS, "outcome": pl.String, "reason": pl.String}
        files = [{name: file[name] for name in private} for file in self.files]
        frame = pl.DataFrame(list(self.images.values()), schema={**COLUMNS, **EXTRA}, orient="row")
        return Ingested(frame, pl.DataFrame(files, schema=private, orient="row"))


class _NewRows:
    """New rows of the cache, published only after the images of their files are on the disk."""

    def __init__(self, cache: FeatureCache, writer: StoreWriter) -> None:
        self.cache, self.writer = cache, writer
        self.waiting: list[tuple[FileLook, ReadResult]] = []

    def __enter__(self) -> _NewRows:
        return self

    def __exit__(self, *_: object) -> None:
        self.commit()

    def add(self, looked: FileLook, reading: ReadResult) -> None:
        self.waiting.append((looked, reading))

    def commit(self) -> None:
        self.writer.commit()
        for looked, reading in self.waiting:
            self.cache.add(reading, None, path=looked.image, bytes=looked.bytes, mtime_ns=looked.mtime_ns)
        self.cache.flush()
        self.waiting.clear()
