"""Which of the pictures that a table names are there: in folders, or in zip files that stand for folders.

Whole folders are listed, once each: asking after half a million files one by one takes minutes on a network disk.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import polars as pl

THREADS = 16
"""Threads that ask for small files: on a network disk nearly all the time is waiting."""


def are_files(paths: Iterable[str]) -> list[bool]:
    """Whether each path is a file, in their order; for layouts with a folder for every few files."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(os.path.isfile, paths))


def found_files(table: pl.DataFrame, root: Path) -> pl.DataFrame:
    """The table with a column `file` added, and `reason` set where a picture is not there.

    Args:
        table: columns image (file name), folder (below `root`) and reason; rows that have a reason already keep it.
        root: the folder of the data set.

    A picture lies in its folder, or in the zip of the folder's name, where it is called `<folder>.zip/<member>`. Reasons given:
    `file_missing`; `zip_damaged` where a zip is there whose list of members cannot be read.
    """
    wanted = table.filter(pl.col("reason").is_null())["folder"].unique().to_list()
    pieces = [_listed(root, folder) for folder in wanted]
    there = pl.DataFrame(
        [piece for listed in pieces for piece in listed], schema={"folder": pl.String, "image": pl.String, "found": pl.String}, orient="row"
    ).unique(["folder", "image"], keep="first", maintain_order=True)
    damaged = there.filter(pl.col("image") == "").select("folder", damaged=pl.lit(True))
    table = table.join(there, on=["folder", "image"], how="left", maintain_order="left")
    table = table.join(damaged, on="folder", how="left", maintain_order="left")
    named = pl.concat_str(pl.lit(str(root)), "folder", "image", separator="/")
    gone = pl.when(pl.col("damaged")).then(pl.lit("zip_damaged")).otherwise(pl.lit("file_missing"))
    missing = pl.when(pl.col("found").is_null()).then(gone)
    return table.with_columns(file=pl.coalesce("found", named), reason=pl.coalesce("reason", missing)).drop("found", "damaged")


def _listed(root: Path, folder: str) -> list[tuple[str, str, str]]:
    """(folder, name, path) of each file of a folder, then of its zip; the name "" stands for a zip that cannot be read."""
    listed = []
    try:
        with os.scandir(root / folder) as entries:
            listed = [(folder, entry.name, entry.path) for entry in entries]
    except OSError:
        pass
    archive = root / f"{folder}.zip"
    try:
        with zipfile.ZipFile(archive) as members:
            names = [name for name in members.namelist() if not name.endswith("/")]
        listed += [(folder, PurePosixPath(name).name, f"{archive}/{name}") for name in names]
    except FileNotFoundError:
        pass
    except (OSError, zipfile.BadZipFile):
        listed.append((folder, "", str(archive)))
    return listed
