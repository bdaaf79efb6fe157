"""A folder of DICOM as a hospital has it -> a pixel store, and one row per file with what became of it.

Nothing that names a patient leaves `private/`: studies, images and patients are known by HMAC (engine/tables/identity.py), and pictures by
their row in the store. `private/files.jsonl` has a line for each file read: with it a run that was killed goes on where it
stopped, and files that did not change are not read again.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from engine.data.build_store import CHUNK, Filled, Looked, fresh
from engine.data.sources.image_table import COLUMNS
from engine.data.store import Entry, Resize, StoreWriter, filling
from engine.dicom.reader_version import reader_version, same_readers
from engine.intake.duplicates import Registry
from engine.intake.files import Item
from engine.intake.read_result import Reading
from engine.scoring.feature_cache import NOT_KEPT, remembered_reading, result_row, table_row
from engine.tables.columns import IMAGE_COLUMNS, PRIVATE_COLUMNS
from engine.tables.identity import Names
from engine.tables.shards import text_of_path

JOURNAL = "files.jsonl"
EXTRA = {name: IMAGE_COLUMNS[name] for name in ("content_hash", "flags", "modality", "rows", "columns", "transfer_syntax")}
"""What the image table of a DICOM folder holds beside `COLUMNS`."""


@dataclass(frozen=True)
class Ingested:
    """What came of a folder.

    Attributes:
        frame: images that have a picture: `COLUMNS`, `file` relative to the folder that holds the store, and `EXTRA`.
        private: every file: image, path, UIDs, patient, outcome, reason.
    """

    frame: pl.DataFrame
    private: pl.DataFrame


def ingest_folder(
    items: Iterable[Item],
    names: Names,
    store: Path,
    private: Path,
    size: int,
    resize: Resize,
    *,
    workers: int,
    verify: bool = False,
) -> Generator[Filled, None, Ingested]:
    """Read every file that is worth it, once; tells how far it is (`total` 0: not known), the generator's value is what came of it.

    The first copy of an image is kept; a copy in another encoding, or with the same content, is a duplicate.

    Raises:
        ConfigError, LockHeld, ReadError, OutputError: as `engine.data.store.filling`.
    """
    known = _read_lines(private / JOURNAL)
    walked: list[Item] = []

    def to_look_at() -> Iterator[tuple[str, Path]]:
        for item in items:
            walked.append(item)
            if item.decided is None:
                yield text_of_path(item.path), item.path

    registry, rows, done, read, dropped = Registry(), _Rows(names, store.name), 0, 0, 0
    place = 0

    def decided() -> None:
        """Rows of the files that needed no opening, up to the next one that did."""
        nonlocal place
        while place < len(walked) and (verdict := walked[place].decided) is not None:
            rows.add(walked[place], Reading(walked[place].path, *verdict), None)
            place += 1

    with filling(store, size, resize) as writer, _Lines(private / JOURNAL, writer) as lines:
        entries = {
            path: Entry(path, None, line["bytes"], line["content_hash"], None, line["mtime_ns"])
            for path, line in known.items()
            if line["outcome"] != "score" or _name_in(line, names) in writer.known
        }
        for looked, reading in fresh(to_look_at(), entries, size, workers, verify, pictures=False):
            decided()
            item, place = walked[place], place + 1
            new = reading is not None
            if reading is None:
                reading = _from_line(looked, known[looked.image])
            else:
                read += 1
                lines.add(looked, reading)
            settled = registry.settle(reading)
            image = rows.name_of(item, settled)
            if settled.outcome == "score" and image in rows.images:
                settled = settled.without_picture("duplicate", "same_pixels")
            if settled.outcome == "score" and new:
                facts = {"size": looked.bytes, "mtime_ns": looked.mtime_ns}
                writer.add(image, settled.picture, **facts, sha256=settled.content_hash, reason=None)
            row = writer.known[image].row if settled.outcome == "score" else None
            rows.add(item, settled, row)
            done, dropped = done + 1, dropped + (row is None)
            if done % CHUNK == 0:
                lines.commit()
                yield Filled(done, 0, read, dropped)
        decided()
    yield Filled(done, done, read, dropped)
    return rows.tables()


class _Rows:
    """The rows of the tables, in the order of the walk."""

    def __init__(self, names: Names, store: str) -> None:
        self.names, self.store = names, store
        self.images: dict[str, dict[str, Any]] = {}
        self.files: list[dict[str, Any]] = []

    def name_of(self, item: Item, reading: Reading) -> str:
        return str(result_row(item, reading, None, self.names).public["image"])

    def add(self, item: Item, reading: Reading, row: int | None) -> None:
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


class _Lines:
    """The journal of files read: a line is written only after the picture of its file is on the disk."""

    def __init__(self, path: Path, writer: StoreWriter) -> None:
        self.path, self.writer = path, writer
        self.lines: list[str] = []
        self.reader = reader_version()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.commit()

    def add(self, looked: Looked, reading: Reading) -> None:
        if reading.reason in NOT_KEPT:
            return
        cells = table_row(reading)
        cells["coarse"] = None if cells["coarse"] is None else base64.b64encode(cells["coarse"]).decode()
        file = {"path": looked.image, "bytes": looked.bytes, "mtime_ns": looked.mtime_ns, "reader": self.reader}
        self.lines.append(json.dumps(file | cells) + "\n")

    def commit(self) -> None:
        self.writer.commit()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write("".join(["\n", *self.lines]).encode())  # the first ends what a kill left of a line
            stream.flush()
            os.fsync(stream.fileno())
        self.lines.clear()


def _name_in(line: Mapping[str, Any], names: Names) -> str:
    """The image's name, as `result_row` gives it to the reading that the line is of."""
    uid = line["sop_instance_uid"]
    return names.of(uid) if uid else names.hashed(line["content_hash"])


def _from_line(looked: Looked, line: Mapping[str, Any]) -> Reading:
    coarse = None if line["coarse"] is None else base64.b64decode(line["coarse"])
    return remembered_reading(looked.file, {**line, "coarse": coarse})


def _read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """Path of a file -> what this version's reader knows of it. What a kill has left of a line, and whatever else is none, is left out."""
    lines: dict[str, dict[str, Any]] = {}
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return lines
    readers = (reader_version(), *same_readers())
    for each in raw.split(b"\n"):
        try:
            line = json.loads(each)
            if line["reader"] in readers:
                lines[line["path"]] = line
        except (ValueError, TypeError, KeyError):
            continue
    return lines
