"""Files of earlier runs that are not among the inputs any more, for `mmclip score --keep`: their rows are made again from the cache."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from engine.intake.files import InputFile
from engine.scoring.feature_cache import FeatureCache, Known
from engine.tables.columns import read_later
from engine.tables.run_log import RUN

_ROW = ("image", "study", "path", "content_hash", "patient", "last_seen", "file")


@dataclass(frozen=True)
class KeptFile:
    """A file of an earlier run: its names in the tables then, what the cache knows of it, and when a run last saw it (UTC date)."""

    item: InputFile
    image: str
    study: str | None
    known: Known
    last_seen: str
    file: str | None


@dataclass(frozen=True)
class EarlierFiles:
    """Scored files in the tables of the last run, without those that this run has seen.

    Attributes:
        files: those that the cache knows.
        lost: number of those that it does not know, as another model or reader has read them: their studies cannot be reported.
    """

    files: list[KeptFile]
    lost: int


def earlier_files(out: Path, cache: FeatureCache, paths: Collection[str], contents: Collection[str]) -> EarlierFiles:
    """Scored files of the tables in `out` whose path and content this run has not seen.

    Args:
        paths, contents: of the files of this run, as in private/files.parquet and images.parquet.
    """
    rows = _earlier_rows(out)
    rows = rows.filter(~pl.col("path").is_in(list(paths)) & ~pl.col("content_hash").is_in(list(contents)))
    files, lost = [], 0
    for image, study, path, content_hash, patient, last_seen, file in rows.unique(
        "content_hash", keep="first", maintain_order=True
    ).iter_rows():
        known = cache.get(content_hash)
        if known is None or known.scores is None:
            lost += 1
            continue
        item = InputFile(Path(path), path, patient=patient, plain_image=known.is_plain_image)
        files.append(KeptFile(item, image, study, known, last_seen, file))
    return EarlierFiles(files, lost)


def gone_studies(out: Path, studies: Iterator[pl.Series]) -> int:
    """Number of studies in the scores.parquet of the last run that are not among these."""
    try:
        earlier = read_later(out / "scores.parquet").select("study").collect()["study"]
    except (OSError, pl.exceptions.PolarsError):
        return 0
    left = set(earlier)
    for each in studies:
        left.difference_update(each)
    return len(left)


def _earlier_rows(out: Path) -> pl.DataFrame:
    """The scored rows of the last run with the columns of `_ROW`; none where its tables are missing, damaged or of two runs."""
    nothing = pl.DataFrame(schema=dict.fromkeys(_ROW, pl.String))
    try:
        images = read_later(out / "images.parquet").collect()
        private = read_later(out / "private" / "files.parquet").collect()
        run: dict[str, Any] = json.loads((out / RUN).read_text("utf-8"))
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return nothing
    if not images["image"].equals(private["image"]):
        return nothing
    date = str(run.get("time", ""))[:10]
    seen = pl.col("last_seen") if "last_seen" in images.columns else pl.lit(date)
    file = pl.col("file") if "file" in images.columns else pl.lit(None, dtype=pl.String)
    rows = images.with_columns(path=private["path"], patient=private["patient"], last_seen=seen.fill_null(date), file=file)
    return rows.filter(pl.col("outcome").is_in(["score", "duplicate"]) & pl.col("content_hash").is_not_null()).select(_ROW)
