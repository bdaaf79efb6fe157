"""The files of a scoring run, and run.json, which is taken away first and written last: where it stands, all of them belong together."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from engine.errors import OutputError
from engine.tables.columns import METRIC_COLUMNS, NOTICE, file_hash, write_csv, write_parquet
from engine.tables.publish import publish

RECORD = "run.json"
OUTPUTS = (
    "scores.csv", "scores.parquet", "images.csv", "images.parquet", "metrics.csv", "metrics.json", "report.html", "private/files.parquet",
    "private/files.csv",
)  # fmt: skip
_WITH_LABELS = ("metrics.csv", "metrics.json")
_PACKAGES = ("mmclip", "torch", "transformers", "pydicom", "imagecodecs", "numpy", "polars", "pillow")


def versions() -> dict[str, str]:
    """Python, the platform, and the packages that have a say in the figures."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform} {platform.machine()}"}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def changed_outputs(out: Path) -> list[str]:
    """Files of the last run that are no longer what it wrote, by its run.json; none where that is gone or unreadable."""
    try:
        written = json.loads((out / RECORD).read_text("utf-8"))["outputs"]
        return [name for name in OUTPUTS if name in written and (out / name).is_file() and file_hash(out / name) != written[name]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def clear_previous(out: Path) -> None:
    """Take away what an earlier run left and this one may not write again, run.json first.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        for name in (RECORD, *_WITH_LABELS, "report.html"):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError("cannot replace the results of an earlier run", why=type(error).__name__, hint="another --out") from None


def publish_tables(out: Path, studies: pl.DataFrame, images: pl.DataFrame, private: pl.DataFrame) -> None:
    """scores.*, images.* and private/files.*, of which the CSV also has study, outcome, reason and flags: one sheet to look a file up in.

    Raises:
        OutputError: one cannot be written.
    """
    write_parquet(private, out / "private" / "files.parquet", mode=0o600)
    beside = images.select("study", "outcome", "reason", "flags")
    write_csv(pl.concat([private, beside], how="horizontal"), out / "private" / "files.csv", mode=0o600, byte_order_mark=True)
    for name, frame in (("images", images), ("scores", studies)):
        write_parquet(frame, out / f"{name}.parquet")
        write_csv(frame, out / f"{name}.csv")


def publish_metrics(out: Path, rows: Sequence[Mapping[str, Any]], account: Mapping[str, Any]) -> None:
    """metrics.csv, and metrics.json with the account of the labels beside the same rows.

    Raises:
        OutputError: one cannot be written.
    """
    write_csv(pl.DataFrame(list(rows), schema=METRIC_COLUMNS), out / "metrics.csv")
    publish_json(out / "metrics.json", {"notice": NOTICE, "labels": dict(account), "metrics": list(rows)})


def publish_json(path: Path, value: Mapping[str, Any]) -> None:
    """One JSON object, indented, UTF-8; NaN has no place in it.

    Raises:
        OutputError: it cannot be written.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(stream: BinaryIO) -> None:
        stream.write(text.encode())

    publish(path, write)


def publish_record(out: Path, account: Mapping[str, Any]) -> dict[str, Any]:
    """run.json: the account, with a SHA-256 of every file that the run wrote; returned as written.

    Raises:
        OutputError: it cannot be written.
    """
    whole = {**account, "outputs": {name: file_hash(out / name) for name in OUTPUTS if (out / name).is_file()}}
    publish_json(out / RECORD, whole)
    return whole


def contents_hash(contents: pl.Series) -> str:
    """SHA-256 over the sorted content hashes of all input files: the same for the same files, wherever they lie."""
    digest = hashlib.sha256()
    for content in contents.drop_nulls().sort():
        digest.update(f"{content}\n".encode())
    return digest.hexdigest()
