"""An image table as its user writes it: one row per image file, with what is known of it beside the file itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from engine.errors import ConfigError
from engine.tables.labels import TABLE_SUFFIXES, Labels, labels_of, plain_name, read_text_table


@dataclass(frozen=True)
class TableRow:
    """One row: the file, how the table calls it, and its study, patient and view where the table tells them."""

    file: Path
    given: str
    study: str | None = None
    patient: str | None = None
    view: str | None = None


class UserImageTable:
    """A CSV or Parquet table with a column `file`, and optional columns study, patient, view and one per finding.

    Files are DICOM, PNG or JPEG; relative names start from the table's folder. Case does not count in column names.

    Raises:
        InputMissing, ReadError: the table cannot be read.
        ConfigError: it has no column `file`, or a row without one.
    """

    def __init__(self, path: Path) -> None:
        frame = read_text_table(path, ConfigError, what="table of images")
        names = {column.casefold(): column for column in reversed(frame.columns)}
        if "file" not in names:
            raise ConfigError("the image table has no column 'file'", hint="a header line with file and, if known, study, patient, view")
        self.folder = path.parent
        renames = {names[key]: key for key in ("file", "study", "patient", "view") if key in names}
        self.frame = frame.rename(renames)
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
            yield TableRow(self.folder / file, file, study, patient, view)

    def labels(self, findings: Sequence[str]) -> Labels | None:
        """The labels in the table's own columns; None where no column is a finding of the recipe.

        Raises:
            LabelsError: a cell that is no label.
        """
        known = {plain_name(finding) for finding in findings}
        if not any(plain_name(column) in known for column in self.frame.columns):
            return None
        return labels_of(self.frame, findings, folder=self.folder, key="file")


def is_image_table(path: Path) -> bool:
    """Whether an input is to be read as an image table: a file called .csv, .tsv or .parquet."""
    return path.suffix.lower() in TABLE_SUFFIXES and path.is_file()
