"""Tables as users have them: encodings, separators, and what spreadsheets add."""

import gzip
import io
import itertools
import zipfile

import polars as pl
import pytest

from engine.errors import ConfigError, InputMissing, ReadError
from engine.tables.text_tables import plain_key, read_text_rows, read_text_table

FRAME = pl.DataFrame({"file": ["ä.png", "b.png"], "Edema": ["1", None]})
TEXT = "file,Edema\nä.png,1\nb.png,\n"


def read(path, content):
    path.write_bytes(content)
    return read_text_table(path, ConfigError)


def zipped(text):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("table.csv", text)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("cp1252"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace(",", ";").encode(),
        TEXT.replace(",", "\t").encode(),
        TEXT.replace(",", "|").encode(),
        ("sep=;\r\n" + TEXT.replace(",", ";")).encode(),
        ("\n" + TEXT + "\n\n").encode(),
        "file,Edema,,\nä.png,1,,\nb.png,,,\n".encode(),
        "file,Edema\nä.png,1,\nb.png,,\n".encode(),
        ",file,Edema\n0,ä.png,1\n1,b.png,\n".encode(),
        '" file ", Edema\nä.png,1\nb.png,\n'.encode(),
        gzip.compress(TEXT.encode()),
        zipped(TEXT),
    ],
    ids=itertools.count(),
)
def test_one_table_in_every_dialect(tmp_path, content):
    assert read(tmp_path / "t.csv", content).equals(FRAME)


def test_parquet_reads_like_csv_without_the_index_of_pandas(tmp_path):
    frame = FRAME.with_columns(pl.Series("Edema", [1.0, None]), pl.Series("__index_level_0__", [0, 1]))
    frame.write_parquet(tmp_path / "t.parquet")
    assert read_text_table(tmp_path / "t.parquet", ConfigError).to_dict(as_series=False) == {
        "file": ["ä.png", "b.png"],
        "Edema": ["1.0", None],
    }


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", ConfigError, "is empty"),
        (b"\x81\x8d\xff,a\n1,2\n", ConfigError, "encoding of the table is not known"),
        (b"a,b\n1,\x00\n", ConfigError, "is no text"),
        (b"a,a\n1,2\n", ConfigError, "columns 1 and 2 of the table have the same name"),
        (b"a,b\n1,2,3\n", ConfigError, "row 1 of the table has 3 cells where the header has 2"),
        (b'a,b\n"1,2\n', ConfigError, "cannot be read as CSV beyond line"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ConfigError, "Git-LFS pointer"),
        (b"\x1f\x8bnot gzip at all", ReadError, "cannot be read"),
        (b"PAR1 and no more", ConfigError, "Parquet table is damaged"),
    ],
)
def test_what_is_no_table_says_so(tmp_path, content, error, message):
    with pytest.raises(error, match=message):
        read(tmp_path / "t.csv", content)


def test_a_missing_table_is_a_missing_input(tmp_path):
    with pytest.raises(InputMissing):
        read_text_table(tmp_path / "t.csv", ConfigError)


def test_rows_of_another_length_are_kept_as_they_are_where_the_caller_judges_them(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1\n1,2,3\n1,2\n")
    assert read_text_rows(tmp_path / "t.csv", ConfigError).rows == [["1"], ["1", "2", "3"], ["1", "2"]]


@pytest.mark.parametrize("text", ["1.2.3", "'1.2.3", '"1.2.3"', '="1.2.3"', " 1.2.3 ", "'1.2.3'"])
def test_a_key_loses_what_a_spreadsheet_put_around_it(text):
    assert plain_key(text) == "1.2.3"
