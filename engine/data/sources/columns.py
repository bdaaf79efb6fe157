"""The columns of a published table: CSV with a header, gzipped or not, every cell as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from engine.data.sources.image_table import LFS_POINTER
from engine.errors import ConfigError, InputMissing, ReadError


def read_columns(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> pl.DataFrame:
    """These columns as String, null where blank; an optional column that the table lacks is null throughout.

    Args:
        path: the table as published; where only `path` + ".gz" is there, that one.

    Raises:
        InputMissing: neither is there.
        ReadError: it is a Git-LFS pointer, cut off, or no CSV.
        ConfigError: it lacks columns: all of them are named.
    """
    path = published_file(path)
    try:
        with path.open("rb") as file:
            pointer = file.read(len(LFS_POINTER)) == LFS_POINTER.encode()
        if pointer:
            raise ReadError(f"{path.name} is a Git-LFS pointer", why="the data themselves were never fetched", hint="git lfs pull")
        frame = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        # the library's message quotes the table
        raise ReadError(f"{path.name} cannot be read as CSV", why=type(error).__name__, hint="fetch it again") from None
    if missing := [name for name in needed if name not in frame.columns]:
        raise ConfigError(f"{path.name} is not the published table", why=f"no column {', '.join(missing)}", hint="fetch it again")
    absent = [pl.lit(None, pl.String).alias(name) for name in optional if name not in frame.columns]
    return frame.with_columns(absent).select([*needed, *optional]).with_columns(pl.all().replace("", None))


def published_file(path: Path) -> Path:
    """The file, else the same gzipped.

    Raises:
        InputMissing: neither is there.
    """
    gzipped = path.with_name(f"{path.name}.gz")
    for each in (path, gzipped):
        if each.is_file():
            return each
    raise InputMissing(f"{path.name} is not there, neither as it is nor as .gz", hint="`mmclip recipes check` names all that is missing")
