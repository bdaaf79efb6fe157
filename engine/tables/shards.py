"""The image table: a folder of append-only Parquet parts with one row per content and model, features included.

A run only adds parts, each published whole under a name of its own, so a kill loses at most the part being filled, machines that share a
disk never share a file, and a later run does only what is new. The key of a row is (content hash, model hash, reader): bytes that were read
by the same code and encoded by the same weights need not be read or encoded again, whatever the prompts. Neither names nor dates of files
count.

    table/<model hash, 16 digits>/part-<hashes>.parquet            no identifiers: what the file is, its outcome by itself, its features
    private/table/<model hash, 16 digits>/part-<hashes>.parquet    the UIDs and the patient of the same rows

Both halves of a part are called by the SHA-256 of their bytes (16 digits of each), so that a disk that turns a bit, or a hand that edits a
score, makes a part that is left out, not another score.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.tables.atomic import make_folder, publish
from engine.tables.columns import METADATA, TABLE_VERSION

PART_COLUMNS: dict[str, type[pl.DataType]] = {
    "content_hash": pl.String,
    "model": pl.String,
    "reader": pl.String,
    "pixel_hash": pl.String,
    "outcome": pl.String,
    "reason": pl.String,
    "detail": pl.String,
    "flags": pl.String,
    "modality": pl.String,
    "view": pl.String,
    "transfer_syntax": pl.String,
    "sop_class": pl.String,
    "rows": pl.Int64,
    "columns": pl.Int64,
}
IDENTIFIER_COLUMNS: dict[str, type[pl.DataType]] = {
    "content_hash": pl.String,
    "sop_instance_uid": pl.String,
    "series_instance_uid": pl.String,
    "study_instance_uid": pl.String,
    "patient": pl.String,
    "coarse": pl.Binary,
}
"""`coarse`: 16 x 16 grey values, by which files of one SOP instance UID are told apart; beside the UIDs, as it is of the picture."""


@dataclass(frozen=True)
class Part:
    """Rows read back: `rows` has the columns of both schemas; `features` (N, D) float32 has NaN rows where an image has none."""

    rows: pl.DataFrame
    features: NDArray[np.float32]


class ImageTable:
    """The parts of one model in an output folder.

    Args:
        out: the output folder.
        model: the model's content hash.
        reader: name of the version of the code that reads files, with its settings.
        width: D, the length of a feature vector.
        same: names of earlier readers whose rows are equal, and are used as well.
    """

    def __init__(self, out: Path, model: str, reader: str, width: int, same: Sequence[str] = ()) -> None:
        self.model, self.reader, self.width = model, reader, width
        self.readers = [reader, *same]
        self.folder = out / "table" / model[:16]
        self.private_folder = out / "private" / "table" / model[:16]
        self.unreadable: list[str] = []
        """Names of parts that could not be read: their rows are made again."""
        self.outdated: dict[str, tuple[int, int]] = {}
        """Name of another reader -> number of Parquet files with rows of it, and of the rows: they are not used."""

    def add(self, rows: Sequence[Mapping[str, Any]], features: Sequence[NDArray[np.float32] | None]) -> None:
        """Publish one part. `rows` are mappings of both schemas' columns; `features` the (D,) vector of each, None where there is none.

        Raises:
            OutputError: it cannot be written.
        """
        if not rows:
            return
        make_folder(self.folder)
        make_folder(self.private_folder, mode=0o700)
        identifiers = pl.DataFrame([{key: row[key] for key in IDENTIFIER_COLUMNS} for row in rows], schema=IDENTIFIER_COLUMNS)
        public: dict[str, Any] = {**PART_COLUMNS, "features": pl.Array(pl.Float32, self.width)}
        own = {"model": self.model, "reader": self.reader}
        records = [
            {key: own.get(key, row.get(key)) for key in PART_COLUMNS} | {"features": None if vector is None else vector.tolist()}
            for row, vector in zip(rows, features, strict=True)
        ]
        private, shown = _as_parquet(identifiers), _as_parquet(pl.DataFrame(records, schema=public))
        name = f"part-{_digest(private)}-{_digest(shown)}.parquet"
        # Identifiers first: rows without them are not used, so a kill between the two files costs the part and nothing else.
        publish(self.private_folder / name, lambda stream: stream.write(private), mode=0o600)
        publish(self.folder / name, lambda stream: stream.write(shown))

    def parts(self) -> Iterator[Part]:
        """The rows that this model and reader made, part by part. A part that cannot be read is left out and noted in `unreadable`.

        Raises:
            ConfigError: a part was written by a newer version.
        """
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("part-*.parquet")):
            try:
                _, _, digests = path.stem.partition("-")
                private, _, shown = digests.partition("-")
                content = path.read_bytes()
                version = pl.read_parquet_metadata(BytesIO(content)).get("mmclip_table_version", "")
                if version.isdigit() and int(version) > int(TABLE_VERSION):
                    raise ConfigError("the image table was written by a newer version", hint="that version, or another folder with --out")
                rows = _sound(content, shown).filter(pl.col("model") == self.model)
                self._count_outdated(rows)
                rows = rows.filter(pl.col("reader").is_in(self.readers))
                rows = rows if "detail" in rows.columns else rows.with_columns(pl.lit("").alias("detail"))  # builds before it was kept
                vectors = rows["features"].cast(pl.Array(pl.Float32, self.width))
                # Left to right by hash: a row is only of use with its identifiers.
                identifiers = _sound((self.private_folder / path.name).read_bytes(), private).unique("content_hash", keep="first")
                joined = rows.drop("features").with_row_index("row").join(identifiers, on="content_hash", how="inner").sort("row")
                features = np.full((rows.height, self.width), np.nan, dtype=np.float32)
                present = vectors.is_not_null().to_numpy()
                if present.any():
                    features[present] = np.stack(list(vectors.drop_nulls().to_numpy()))
                kept = joined["row"].to_numpy()
                frame = joined.select([*PART_COLUMNS, *(name for name in IDENTIFIER_COLUMNS if name != "content_hash")])
            except (OSError, pl.exceptions.PolarsError, ValueError):
                self.unreadable.append(path.name)
                continue
            yield Part(frame, features[kept])

    def _count_outdated(self, rows: pl.DataFrame) -> None:
        for reader, count in rows.filter(~pl.col("reader").is_in(self.readers)).group_by("reader").len().iter_rows():
            files, known = self.outdated.get(reader, (0, 0))
            self.outdated[reader] = (files + 1, known + count)


def _as_parquet(frame: pl.DataFrame) -> bytes:
    stream = BytesIO()
    frame.write_parquet(stream, metadata=METADATA)
    return stream.getvalue()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _sound(content: bytes, digest: str) -> pl.DataFrame:
    """The table in a file that is still what was written; a ValueError where it is not."""
    if _digest(content) != digest:
        raise ValueError("damaged")
    return pl.read_parquet(BytesIO(content))


def text_of_path(path: Path) -> str:
    """The path as text that any file can hold: bytes that are no UTF-8 are written as backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def concatenated(frames: Iterable[pl.DataFrame], schema: Mapping[str, Any]) -> pl.DataFrame:
    """The frames below each other, with the schema's columns and types also where there are none."""
    return pl.concat([pl.DataFrame(schema=dict(schema)), *frames], how="vertical")
