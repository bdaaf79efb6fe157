"""An image table as its user writes it: one row per image file, with what is known of it next to the file itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from engine.errors import ConfigError
from engine.tables.column_names import ROLES, columns_by_role, near_file_columns
from engine.tables.text_tables import TABLE_SUFFIXES, plain_key, read_text_table


@dataclass(frozen=True)
class TableRow:
    """One row: the file, how the table calls it, and its study, patient and view where the table has them."""

    file: Path
    given: str
    study: str | None = None
    patient: str | None = None
    view: str | None = None


class UserImageTable:
    """A CSV or Parquet table with a column of files, and optional columns study, patient, view and one per finding.

    Files are DICOM, PNG or JPEG; relative names start from the table's folder. Columns go by the field's usual names in any spelling
    (`engine.tables.column_names`).

    Attributes:
        frame: the table, its columns file, study, patient and view by these names.
        taken: columns that were recognised under another name, as a sentence; "" = none.

    Raises:
        InputMissing, ReadError: the table cannot be read.
        ConfigError: it has no column of files, or a row without one, or a column that may be the patient's is not taken.
    """

    def __init__(self, path: Path) -> None:
        frame = read_text_table(path, ConfigError, what="table of images")
        columns = columns_by_role(frame.columns, key="rename the column: columns")
        if "file" not in columns.by_role:
            near = near_file_columns(frame.columns)
            raise ConfigError(
                "the image table has no column 'file'",
                why=f"did you mean {near[0]!r}?" if near else "",
                hint="a header line with file and, if known, study, patient, view",
            )
        self.folder, self.taken = path.parent, columns.taken
        self.frame = frame.rename({name: role for role, name in columns.by_role.items() if role in ROLES})
        blank = self.frame["file"].is_null().arg_max()
        if self.frame["file"].null_count() and blank is not None:
            raise ConfigError(f"row {blank + 1} of the image table names no file")

    def rows(self) -> Iterator[TableRow]:
        """The rows in the table's order."""
        wanted = [
            name if name in self.frame.columns else pl.lit(None, dtype=pl.String).alias(name)
            for name in ("file", "study", "patient", "view")
        ]
        for file, study, patient, view in self.frame.select(wanted).iter_rows():
            given = plain_key(file)
            yield TableRow(named_file(self.folder, given), given, study, patient, view)


def named_file(folder: Path, name: str) -> Path:
    """The file of a name in a table; a name with backslashes that is not there is read as a path of Windows."""
    file = folder / name
    return folder / name.replace("\\", "/") if "\\" in name and not file.exists() else file


def is_image_table(path: Path) -> bool:
    """Whether an input is to be read as an image table: a file called .csv, .tsv or .parquet."""
    return path.suffix.lower() in TABLE_SUFFIXES and path.is_file()
