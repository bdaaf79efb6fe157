"""The label tables that data sets are published with, plain, gzipped or zipped, read as columns of text."""

from __future__ import annotations

import difflib
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import polars as pl

from engine.data.sources.image_table import LFS_POINTER
from engine.errors import ConfigError, InputMissing, ReadError

# Which of the images that a table names are there: in folders, or in zip files that represent folders.

THREADS = 16
"""Threads that ask for small files: on a network disk nearly all the time is waiting."""


def are_files(paths: Iterable[str]) -> list[bool]:
    """Whether each path is a file, in their order; for layouts with a folder for every few files."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(os.path.isfile, paths))


def found_files(table: pl.DataFrame, root: Path) -> pl.DataFrame:
    """The table with a column `file` added, and `reason` set where an image is not there.

    Args:
        table: columns image (file name), folder (below `root`) and reason; rows that have a reason already keep it.
        root: the folder of the data set.

    An image is in its folder, or in the zip of the folder's name, where it is called `<folder>.zip/<member>`. Reasons given:
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
    """(folder, name, path) of each file of a folder, then of its zip; the name "" represents a zip that cannot be read."""
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


def published_file(path: Path) -> Path:
    """The file, else the same gzipped, else the same zipped.

    Raises:
        InputMissing: none of them is there.
    """
    packed = (path.with_name(f"{path.name}{suffix}") for suffix in ("", ".gz", ".zip"))
    found = next((each for each in packed if each.is_file()), None)
    if found is None:
        hint = "`mmclip recipes check` names all that is missing"
        raise InputMissing(f"{path.name} is not there, neither as it is nor as .gz or .zip", hint=hint)
    return found


def label_text(path: Path) -> str:
    """The text of a label file, also gzipped or zipped (`published_file`); of a zip, that of the one file in it.

    Raises:
        InputMissing: there is no such file.
        ReadError: it is truncated, no UTF-8 text, a zip of several files, or a Git-LFS pointer.
    """
    path = published_file(path)
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        elif raw[:4] == b"PK\x03\x04":
            raw = _unzipped(raw, path)
        text = raw.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, zipfile.BadZipFile) as error:
        # what the library says may quote the table
        raise ReadError(f"label file {path.name} cannot be read", why=type(error).__name__, hint="fetch it again") from None
    if text.startswith(LFS_POINTER):
        raise ReadError(f"label file {path.name} is a Git-LFS pointer", why="the data themselves were never fetched", hint="git lfs pull")
    return text


def read_label_file(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> pl.DataFrame:
    """These columns of a CSV with a header, as text, blank cells as null; an optional column that the file lacks is null throughout.

    Columns go by name, in any order.

    Raises:
        InputMissing, ReadError: as `label_text`; or rows of other lengths than the header.
        ConfigError: a column of `needed` is missing: all of them at once, each with the nearest one that the file has.
    """
    raw = label_text(path).encode()
    try:
        # all columns: with a choice of them polars lets rows of another length pass, cells in the wrong place
        frame = pl.read_csv(io.BytesIO(raw), infer_schema=False)
    except pl.exceptions.PolarsError as error:
        # what the library says quotes the table
        why = "it is empty" if isinstance(error, pl.exceptions.NoDataError) else "a row does not fit the header"
        raise ReadError(f"label file {path.name} cannot be read as CSV", why=why, hint="fetch it again") from None
    frame = frame.rename({name: name.strip() for name in frame.columns})
    _check_header(path, frame.columns, needed)
    absent = [pl.lit(None, pl.String).alias(name) for name in optional if name not in frame.columns]
    return frame.with_columns(absent).select([*needed, *optional]).with_columns(pl.all().str.strip_chars().replace("", None))


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        near = {name: difflib.get_close_matches(name, header, n=1) for name in missing}
        said = [f"no column {name!r}" + (f" (did you mean {near[name][0]!r}?)" if near[name] else "") for name in missing]
        raise ConfigError(
            f"{path.name} is not the published table", why="; ".join(said), hint=f"restore its header; it has {', '.join(header)}"
        )


def _unzipped(raw: bytes, path: Path) -> bytes:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        files = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
        if len(files) != 1:
            raise ReadError(f"label file {path.name} holds {len(files)} files", why="one table was looked for", hint="unpack it in place")
        return archive.read(files[0])
