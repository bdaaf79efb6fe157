"""The label tables that data sets are published with, plain, gzipped or zipped, read as columns of text."""

from __future__ import annotations

import difflib
import gzip
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from engine.data.sources.image_table import LFS_POINTER
from engine.errors import ConfigError, InputMissing, ReadError


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

    Columns go by name, wherever they stand.

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
