"""CSV and Parquet tables as columns of text: encodings, separators and what spreadsheets add."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from engine.errors import ConfigError, InputMissing, ReadError

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
LFS_POINTER = "version https://git-lfs.github.com/spec/"
SEPARATORS = ",;\t|"
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_SEPARATOR_LINE = re.compile(r'\s*"?sep=(.)"?\s*', re.IGNORECASE)
"""First line that Excel writes and reads to name the separator."""
_FORMULA_TEXT = re.compile(r'="(.*)"', re.DOTALL)
"""A number that is kept as text by a formula: ="1.20"."""


@dataclass(frozen=True)
class TextTable:
    """A table as text.

    Attributes:
        header: names of the columns, stripped; a column without a name has "".
        rows: cells, stripped, "" = blank; a row may have more or fewer cells than the header.
    """

    header: tuple[str, ...]
    rows: list[list[str]]


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of a file; of a gzipped file, or a zip with one file in it, those of its content.

    Raises:
        InputMissing: no such file. ReadError: it cannot be read, or is a damaged archive, or a zip of several files.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            return gzip.decompress(raw)
        if raw[:4] == b"PK\x03\x04":
            return _unzipped(raw, what)
    except FileNotFoundError:
        raise InputMissing(f"the {what} does not exist", hint="check the path") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as fault:
        why = os.strerror(fault.errno) if isinstance(fault, OSError) and fault.errno else type(fault).__name__
        raise ReadError(f"the {what} cannot be read", why=why) from None
    return raw


def _unzipped(raw: bytes, what: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        files = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
        if any(info.filename.startswith("xl/") for info in files):
            raise ReadError(f"the {what} is an Excel workbook", hint="save the sheet as CSV UTF-8")
        if len(files) != 1:
            raise ReadError(f"the {what} is a zip of {len(files)} files", why="one table is needed", hint="unpack it")
        return archive.read(files[0])


def decoded(raw: bytes, error: Callable[..., ConfigError | ReadError], what: str) -> str:
    """The text of a file: UTF-8, UTF-16 (with a byte order mark, or evident from its zero bytes), else Windows-1252.

    Windows-1252, a superset of printable Latin-1, is taken only where no byte is undefined in it and no control character appears; it maps
    bytes to characters one to one, so that keys that differ stay different.

    Raises:
        error: other bytes, or no text.
    """
    even, odd = raw[0:2000:2].count(0), raw[1:2000:2].count(0)
    half = max(1, min(len(raw), 2000) // 2)
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16"]
    elif odd > 0.4 * half and not even:
        encodings = ["utf-16-le"]
    elif even > 0.4 * half and not odd:
        encodings = ["utf-16-be"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _CONTROL.search(text):
            break
        if text.startswith(LFS_POINTER):
            raise error(f"the {what} is a Git-LFS pointer", why="the data themselves were never fetched", hint="git lfs pull")
        return text
    else:
        raise error(f"the encoding of the {what} is not known", why="it is neither UTF-8, UTF-16 nor Windows-1252", hint="save it as UTF-8")
    raise error(f"the {what} is no text", hint="CSV or Parquet")


def read_text_rows(path: Path, error: Callable[..., ConfigError | ReadError], *, what: str = "table") -> TextTable:
    """A CSV (also gzipped or zipped) or Parquet file as rows of text.

    The separator is the one that a first line `sep=;` names, else the one that the header has most of. Blank lines are no rows. Columns
    without a name that hold nothing, and a first or last one that only counts the rows (an index of pandas), are left out.

    Args:
        error: makes the error for a file that is no table.
        what: how errors name the file.

    Raises:
        InputMissing: no such file. ReadError: it cannot be read.
        error: it is no table, or empty, or its header names a column twice.
    """
    raw = read_bytes(path, what)
    if raw[:4] == b"PAR1":
        header, rows = _parquet_rows(raw, error)
    else:
        header, rows = _csv_rows(decoded(raw, error, what), error, what)
    header, rows = _without_nameless(header, rows)
    first = {name: place for place, name in reversed(list(enumerate(header, 1)))}
    for place, name in enumerate(header, 1):
        if name and first[name] != place:  # what is there may be a patient's name, where the header is missing
            raise error(
                f"columns {first[name]} and {place} of the {what} have the same name", hint="a header line; rename or drop one of them"
            )
    return TextTable(tuple(header), rows)


def read_text_table(path: Path, error: Callable[..., ConfigError], *, what: str = "table") -> pl.DataFrame:
    """A table as a frame: every column String, null where blank, in the file's order; see `read_text_rows`.

    Raises:
        InputMissing, ReadError: as `read_text_rows`. error: as there, or a row of another length than the header.
    """
    table = read_text_rows(path, error, what=what)
    width = len(table.header)
    for number, row in enumerate(table.rows, 1):
        if len(row) != width:
            raise error(
                f"row {number} of the {what} has {len(row)} cells where the header has {width}",
                hint="quote cells that contain the separator",
            )
    names = [name or f"column {place}" for place, name in enumerate(table.header, 1)]
    columns = {name: [row[place] or None for row in table.rows] for place, name in enumerate(names)}
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))


def plain_key(text: str) -> str:
    """A key without what spreadsheets put around it to keep it text: an apostrophe in front, quotation marks, ="...".

    >>> plain_key("'1.2.3"), plain_key('="0042"'), plain_key('"a.png"')
    ('1.2.3', '0042', 'a.png')
    """
    text = text.strip()
    if found := _FORMULA_TEXT.fullmatch(text):
        text = found[1]
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        text = text[1:-1]
    return text.removeprefix("'").strip()


def _parquet_rows(raw: bytes, error: Callable[..., ConfigError | ReadError]) -> tuple[list[str], list[list[str]]]:
    try:
        frame = pl.read_parquet(io.BytesIO(raw))
    except (pl.exceptions.PolarsError, OSError):
        raise error("the Parquet table is damaged", hint="write it again") from None
    for name, kind in frame.schema.items():
        if kind.is_nested() or kind in (pl.Binary, pl.Object):
            raise error(f"column {name!r} of the Parquet table holds {kind}", hint="text or numbers")
    texts = [pl.col(n).cast(pl.Int8).cast(pl.String) if k == pl.Boolean else pl.col(n).cast(pl.String) for n, k in frame.schema.items()]
    # __index_level_0__ is the index that pandas writes
    frame = frame.select(texts).rename({name: "" for name in frame.columns if name == "__index_level_0__"})
    rows = [[cell.strip() for cell in row] for row in frame.fill_null("").iter_rows()]
    return [name.strip() for name in frame.columns], rows


def _csv_rows(text: str, error: Callable[..., ConfigError | ReadError], what: str) -> tuple[list[str], list[list[str]]]:
    first, _, rest = text.partition("\n")
    if named := _SEPARATOR_LINE.fullmatch(first):
        separator, text = named[1], rest
    else:
        header = next((line for line in text.splitlines() if line.strip()), "")
        separator = max(SEPARATORS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [[cell.strip() for cell in row] for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as fault:
        raise error(f"the {what} cannot be read as CSV beyond line {reader.line_num}", why=str(fault)) from None
    if not rows:
        raise error(f"the {what} is empty", hint="a header line, and a row for each file or study")
    return rows[0], rows[1:]


def _without_nameless(header: Sequence[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows without nameless columns that hold nothing, and without one that counts the rows."""
    width = len(header)
    nameless = {place for place, name in enumerate(header) if not name}
    # A header that ends before its rows do: cells beyond it that are blank everywhere belong to no column
    rows = [row[:width] if len(row) > width and not any(row[width:]) else row for row in rows]
    left_out = {place for place in nameless if all(not row[place] for row in rows if place < len(row))}
    for place in nameless & {0, width - 1}:
        cells = [row[place] for row in rows if place < len(row)]
        if len(cells) == len(rows) == len(set(cells)) and all(cell.isdigit() for cell in cells):
            left_out.add(place)
    if not left_out:
        return list(header), rows
    # Rows of another length than the header are not aligned with it and stay as they are, one cell longer or shorter than the new header
    return (
        [name for place, name in enumerate(header) if place not in left_out],
        [[cell for place, cell in enumerate(row) if place not in left_out] for row in rows],
    )
