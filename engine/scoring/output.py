"""Output files of a scoring run. `run.json` is removed first and written last: where it is, all files belong to one run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from engine.errors import OutputError
from engine.tables.atomic import AtomicGroup, atomic_group, flush_folder
from engine.tables.batches import Batches
from engine.tables.columns import METRIC_COLUMNS, NOTICE, file_hash, write_csv, write_parquet
from engine.tables.run_log import RUN, publish_json

OUTPUTS = (
    "scores.csv", "scores.parquet", "images.csv", "images.parquet", "metrics.csv", "metrics.json", "report.html", "private/files.parquet",
    "private/files.csv",
)  # fmt: skip
_WITH_LABELS = ("metrics.csv", "metrics.json")


def changed_outputs(out: Path) -> list[str]:
    """Output files that were changed after the last run, by the hashes in its run.json; none where that is missing or unreadable."""
    try:
        written = json.loads((out / RUN).read_text("utf-8"))["outputs"]
        return [name for name in OUTPUTS if name in written and (out / name).is_file() and file_hash(out / name) != written[name]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def clear_previous(out: Path) -> None:
    """Remove files of an earlier run that this one may not write, run.json first.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        for name in (RUN, *_WITH_LABELS, "report.html"):
            (out / name).unlink(missing_ok=True)
        flush_folder(out)
    except OSError as error:
        raise OutputError("cannot replace the results of an earlier run", why=type(error).__name__, hint="another --out") from None


def add_tables(files: AtomicGroup, out: Path, studies: Batches, images: Batches, private: Batches) -> None:
    """scores.*, images.* and private/files.*, of which the CSV also has study, outcome, reason, detail, flags: one sheet to find a file in.

    They wait in `files` to be published. `images` and `private` come in batches of the same rows.

    Raises:
        OutputError: one cannot be written.
    """
    write_parquet(private, out / "private" / "files.parquet", mode=0o600, to=files)
    write_csv(_sheet(private, images), out / "private" / "files.csv", mode=0o600, byte_order_mark=True, to=files)
    for name, table in (("images", images), ("scores", studies)):
        write_parquet(table, out / f"{name}.parquet", to=files)
        write_csv(table, out / f"{name}.csv", to=files)


def _sheet(private: Batches, images: Batches) -> Batches:
    beside = {name: images.schema[name] for name in ("study", "outcome", "reason", "detail", "flags")}

    def made() -> Iterator[pl.DataFrame]:
        for own, shown in zip(private.made(), images.made(), strict=True):
            yield pl.concat([own, shown.select(*beside)], how="horizontal")

    return Batches({**private.schema, **beside}, made)


def publish_metrics(out: Path, rows: Sequence[Mapping[str, Any]], account: Mapping[str, Any]) -> None:
    """metrics.csv, and metrics.json with the account of the labels next to the same rows.

    Raises:
        OutputError: one cannot be written.
    """
    with atomic_group() as files:
        add_metrics(files, out, rows, account)
        files.publish()


def add_metrics(files: AtomicGroup, out: Path, rows: Sequence[Mapping[str, Any]], account: Mapping[str, Any]) -> None:
    """Add the files of `publish_metrics` to a group."""
    write_csv(pl.DataFrame(list(rows), schema=METRIC_COLUMNS), out / "metrics.csv", to=files)
    publish_json(out / "metrics.json", {"notice": NOTICE, "labels": dict(account), "metrics": list(rows)}, to=files)


def contents_hash(contents: Iterable[pl.Series]) -> str:
    """SHA-256 over the sorted content hashes of all input files, batch by batch: the same for the same files in any place."""
    held = bytearray()
    for batch in contents:
        held += bytes.fromhex("".join(batch.drop_nulls()))
    digests = np.frombuffer(held, np.uint8).view("V32")  # 32 bytes each: compared as they are
    digest = hashlib.sha256()
    for content in np.sort(digests):
        digest.update(content.tobytes().hex().encode() + b"\n")
    return digest.hexdigest()
