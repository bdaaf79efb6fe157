from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from engine.data.sources.table_rows import Row, age_of, rows_of, sex_of
from engine.errors import ConfigError, InputMissing, ReadError
from engine.recipe.sources import TableSource

TEXT = 'file,patient,report\na.png,7,"Two\nlines, one cell."\n\nb.png,8,\n'


def rows(path: Path) -> list[Row]:
    return list(rows_of(path, TableSource(file=str(path))).rows)


def test_csv_gzip_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    plain, zipped, parquet = tmp_path / "t.csv", tmp_path / "t.csv.gz", tmp_path / "t.parquet"
    plain.write_text("\ufeff" + TEXT, encoding="utf-8")
    zipped.write_bytes(gzip.compress(TEXT.encode()))
    frame = pl.DataFrame({"file": ["a.png", "b.png"], "patient": [7, 8], "report": ["Two\nlines, one cell.", None]})
    frame.write_parquet(parquet)
    assert rows(plain) == rows(zipped) == rows(parquet)
    assert [(row.file, row.patient, row.report) for row in rows(plain)] == [("a.png", "7", "Two\nlines, one cell."), ("b.png", "8", "")]


def test_a_row_of_another_length_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("file,patient\na.png,1\nb.png\nc.png,2,3\n")
    assert [row.ragged for row in rows(path)] == [False, True, True]


def test_what_is_no_table_says_so(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"")
    with pytest.raises(ReadError, match="table is empty"):
        rows(path)


def test_no_table_is_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        rows(tmp_path / "t.csv")


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("file,view,view\na.png,PA,AP\n")
    with pytest.raises(ReadError, match="columns 2 and 3 of the table have the same name"):
        rows(path)


@pytest.mark.parametrize(
    ("cell", "years"),
    [("63", 63.0), ("063Y", 63.0), ("63.5", 63.5), ("6M", 0.5), ("0", 0.0), ("", None), ("old", None), ("412", None), ("-3", None)],
)
def test_an_age_is_in_years_or_unknown(cell, years):
    assert age_of(cell) == years


@pytest.mark.parametrize(("cell", "sex"), [("Female", "F"), ("m", "M"), (" F ", "F"), ("Unknown", ""), ("", ""), ("O", "")])
def test_a_sex_is_f_or_m_or_unknown(cell, sex):
    assert sex_of(cell) == sex


def test_columns_go_by_their_usual_names_unless_they_are_labels(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("Image Index,Patient ID,view,mrn\na.png,'7,AP,1\n")
    table = rows_of(path, TableSource(file=str(path), rename={"view": "Edema"}, columns={"patient": "Patient ID"}))
    assert [(row.file, row.patient, row.view) for row in table.rows] == [("a.png", "7", "")]
    assert table.others == ("view", "mrn")
    assert table.columns.taken == "columns taken: 'Image Index' as file"


def test_a_column_that_may_be_meant_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("fille,sex\na.png,F\n")
    with pytest.raises(ConfigError, match=r"no column 'file' \(did you mean 'fille'\?\).*sources.0.columns.file=COLUMN"):
        rows_of(path, TableSource(file=str(path)))
    path.write_text("file,patientt\na.png,F\n")
    with pytest.raises(ConfigError, match=r"'patientt' looks like the patient's.*sources.0.columns.patient=patientt"):
        rows_of(path, TableSource(file=str(path)))
