"""Parquet shards: append-only rows of read files with their image features, one row per content, model and reader.

A run appends shards, each published whole under its own name, so a kill loses at most the shard being filled, and two machines that
share a disk never write the same file. A row is found by the SHA-256 of the file's bytes; names and dates of files do not matter. `compact`
folds small shards into full ones.

    table/<model hash, 16 digits>/shard-<hashes>.parquet            no identifiers: outcome and reason, codes of the header, features
    private/table/<model hash, 16 digits>/shard-<hashes>.parquet    UIDs, patient, coarse image and path of the same rows

The name of both halves holds the SHA-256 of their bytes (16 digits of each), so a shard that was damaged or edited is left out.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
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

Vector = NDArray[np.float32]

SHARD_ROWS = 8192
"""Rows of a full shard; 16 MB of features of ViT-B/16. 100,000 rows are 12 full shards."""
SMALL_SHARDS = 7
"""Shards that are not full, and superseded rows in any: with more of them, `compact` has something to do."""
ORPHANS = 86400.0
"""Seconds after which a private half without its public half, left by a kill, is removed."""

PUBLIC_COLUMNS: dict[str, type[pl.DataType]] = {
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
    "age": pl.String,
    "coarse": pl.Binary,
    "path": pl.String,
    "bytes": pl.Int64,
    "mtime_ns": pl.Int64,
}
"""`coarse`: 16 x 16 grey values, which tell files of one SOP instance UID apart. `path`, `bytes`, `mtime_ns`: of `mmclip ingest` only."""
ROW_COLUMNS = PUBLIC_COLUMNS | IDENTIFIER_COLUMNS


@dataclass(frozen=True)
class Shard:
    """Rows read back: `rows` has the columns of ROW_COLUMNS; `features` (N, D) float32 has NaN rows where an image has none."""

    rows: pl.DataFrame
    features: Vector

    def where(self, kept: NDArray[np.bool_]) -> Shard:
        """The rows that a mask (N,) keeps."""
        return Shard(self.rows.filter(pl.Series(kept, dtype=pl.Boolean)), self.features[kept])

    def cut(self, rows: int) -> tuple[Shard, Shard]:
        """Its first rows, and the rest."""
        return Shard(self.rows[:rows], self.features[:rows]), Shard(self.rows[rows:], self.features[rows:])


class ShardFolder:
    """The shards of one model in an output folder.

    Args:
        out: the output folder.
        model: the model's content hash.
        reader: name of the version of the code that reads files.
        width: D, the length of a feature vector.
        same: names of earlier readers whose rows are equal, and are used as well.
    """

    def __init__(self, out: Path, model: str, reader: str, width: int, same: Sequence[str] = ()) -> None:
        self.model, self.reader, self.width = model, reader, width
        self.readers = [reader, *same]
        self.folder = out / "table" / model[:16]
        self.private_folder = out / "private" / "table" / model[:16]
        self.unreadable: list[str] = []
        """Names of shards that could not be read: their rows are made again."""
        self._heights: dict[str, int] = {}
        """Rows of the shards that were read or written here."""

    def paths(self) -> list[Path]:
        """The shards' public halves; `part-*` are those of builds before 2026-12-02."""
        return sorted([*self.folder.glob("shard-*.parquet"), *self.folder.glob("part-*.parquet")])

    def append(self, rows: Sequence[Mapping[str, Any]], features: Sequence[Vector | None]) -> None:
        """Publish one shard.

        Args:
            rows: mappings with the columns of ROW_COLUMNS; `model` and `reader` are this folder's, missing columns are null.
            features: the (D,) vector of each row, None where there is none.

        Raises:
            OutputError: it cannot be written.
        """
        if not rows:
            return
        own = {"model": self.model, "reader": self.reader}
        records = [{name: row.get(name) for name in ROW_COLUMNS} | own for row in rows]
        vectors = np.full((len(rows), self.width), np.nan, np.float32)
        for number, vector in enumerate(features):
            if vector is not None:
                vectors[number] = vector
        self._publish(Shard(pl.DataFrame(records, schema=ROW_COLUMNS), vectors))

    def shards(self) -> Iterator[Shard]:
        """The rows of this model, those of other readers included. A shard that cannot be read is noted in `unreadable`.

        Raises:
            ConfigError: a shard was written by a newer version.
        """
        for path in self.paths():
            shard = self._read(path)
            if shard is None:
                self.unreadable.append(path.name)
            else:
                self._heights[path.name] = shard.rows.height
                yield shard

    def compact(self, *, superseded: bool = False) -> bool:
        """Fold small shards, and those with rows that are not needed, into full ones; whether there was anything to do.

        A row is not needed where an earlier row has the same content, reader and path, or where it is of another reader and this reader
        has the content as well. New shards are on the disk before old ones are removed: after a kill rows are there twice, never lost.

        Args:
            superseded: also where few shards are small, as rows of another reader are known to be there.

        Raises:
            OutputError: a shard cannot be written.
        """
        paths = self.paths()
        if not superseded and sum(self._heights.get(path.name, 0) < SHARD_ROWS for path in paths) <= SMALL_SHARDS:
            return False
        needed = self._needed(paths)
        small = [path for path, mask in needed.items() if mask.sum() < max(SHARD_ROWS, mask.size)]
        if len(small) <= SMALL_SHARDS and all(needed[path].all() for path in small):
            return False
        written, folded = self._fold(small, needed)
        for path in folded:
            if path.name not in written:
                path.unlink(missing_ok=True)
                (self.private_folder / path.name).unlink(missing_ok=True)
        self._remove_orphans()
        return True

    def _needed(self, paths: Sequence[Path]) -> dict[Path, NDArray[np.bool_]]:
        """Shards that can be read -> which of their rows are needed."""
        keys = [pl.DataFrame(schema={"shard": pl.Int64, "content": pl.Binary, "reader": pl.String, "path": pl.UInt64})]
        for number, path in enumerate(paths):
            if (shard := self._read(path)) is not None:
                reader = pl.when(pl.col("reader").is_in(self.readers)).then(pl.lit("")).otherwise("reader").alias("reader")
                content = pl.col("content_hash").str.decode("hex").alias("content")
                keys.append(shard.rows.select(pl.lit(number, pl.Int64).alias("shard"), content, reader, pl.col("path").hash()))
        table = pl.concat(keys)
        ours = table.filter(pl.col("reader") == "")["content"].unique()
        again = (pl.col("reader") != "") & pl.col("content").is_in(ours.implode())
        table = table.select("shard", needed=pl.struct("content", "reader", "path").is_first_distinct() & ~again)
        return {paths[rows["shard"][0]]: rows["needed"].to_numpy() for rows in table.partition_by("shard", maintain_order=True)}

    def _fold(self, paths: Sequence[Path], needed: Mapping[Path, NDArray[np.bool_]]) -> tuple[set[str], list[Path]]:
        """Publish the needed rows of these shards as full ones and a rest; the names of what was written, and what it was made of."""
        written: set[str] = set()
        folded: list[Path] = []
        waiting: list[Shard] = []
        for path in paths:
            if (shard := self._read(path)) is not None:
                waiting.append(shard.where(needed[path]))
                folded.append(path)
            while sum(each.rows.height for each in waiting) >= SHARD_ROWS:
                full, rest = _joined(waiting).cut(SHARD_ROWS)
                written.add(self._publish(full))
                waiting = [rest]
        if any(each.rows.height for each in waiting):
            written.add(self._publish(_joined(waiting)))
        return written, folded

    def _remove_orphans(self) -> None:
        """Private halves whose public half is missing for more than a day: a kill came between the two."""
        public = {path.name for path in self.paths()}
        for path in self.private_folder.glob("*.parquet"):
            with suppress(OSError):
                if path.name not in public and time.time() - path.stat().st_mtime > ORPHANS:
                    path.unlink()

    def _publish(self, shard: Shard) -> str:
        make_folder(self.folder)
        make_folder(self.private_folder, mode=0o700)
        present = ~np.isnan(shard.features).any(axis=1)
        vectors = pl.Series(np.where(present[:, None], shard.features, np.float32(0)), dtype=pl.Array(pl.Float32, self.width))
        features = pl.when(pl.Series(present)).then(vectors).alias("features")
        public = _as_parquet(shard.rows.select(*PUBLIC_COLUMNS).with_columns(features))
        private = _as_parquet(shard.rows.select(*IDENTIFIER_COLUMNS))
        name = f"shard-{_digest(private)}-{_digest(public)}.parquet"
        # Identifiers first: rows without them are not used, so a kill between the two files costs the shard and nothing else.
        publish(self.private_folder / name, lambda stream: stream.write(private), mode=0o600)
        publish(self.folder / name, lambda stream: stream.write(public))
        self._heights[name] = shard.rows.height
        return name

    def _read(self, path: Path) -> Shard | None:
        """The rows of this model in a shard; None where it is damaged."""
        try:
            content = path.read_bytes()
            version = pl.read_parquet_metadata(BytesIO(content)).get("mmclip_table_version", "")
            if version.isdigit() and int(version) > int(TABLE_VERSION):
                raise ConfigError("the image table was written by a newer version", hint="that version, or another folder with --out")
            _, private, public = path.stem.split("-")
            rows, features = _vectors(_sound(content, public), self.width)
            identifiers = _sound((self.private_folder / path.name).read_bytes(), private)
            if not rows["content_hash"].equals(identifiers["content_hash"]):
                raise ValueError("the halves hold other rows")
            whole = pl.concat([rows, identifiers.drop("content_hash")], how="horizontal")
            missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in ROW_COLUMNS.items() if name not in whole.columns]
            shard = Shard(whole.with_columns(missing).select(*ROW_COLUMNS), features)
        except (OSError, pl.exceptions.PolarsError, ValueError):
            return None
        return shard.where((shard.rows["model"] == self.model).to_numpy())


def _joined(shards: Sequence[Shard]) -> Shard:
    return Shard(pl.concat([each.rows for each in shards]), np.concatenate([each.features for each in shards]))


def _vectors(public: pl.DataFrame, width: int) -> tuple[pl.DataFrame, Vector]:
    """The columns other than `features`, and features (N, D) with NaN rows where there are none."""
    present = public["features"].is_not_null().to_numpy()
    features = np.full((public.height, width), np.nan, np.float32)
    if present.any():
        features[present] = public["features"].drop_nulls().cast(pl.Array(pl.Float32, width)).to_numpy()
    return public.drop("features"), features


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
