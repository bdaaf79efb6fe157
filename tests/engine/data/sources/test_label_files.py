"""Label tables as data sets publish them."""

import gzip
import zipfile

import pytest

from engine.data.sources.label_files import label_text, published_file, read_label_file
from engine.errors import ConfigError, InputMissing, ReadError

TEXT = "Path,Sex,Age\na.jpg, Female ,61\nb.jpg,,\n"


def test_a_table_is_the_same_plain_gzipped_or_zipped(tmp_path):
    (tmp_path / "t.csv").write_text(TEXT)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(TEXT.encode()))
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("t.csv", TEXT)
    assert {label_text(tmp_path / name) for name in ("t.csv", "t.csv.gz", "t.csv.zip")} == {TEXT}


def test_a_packed_table_is_found_under_its_plain_name(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b'x,y\n010,"a\nb"\n'))
    assert read_label_file(tmp_path / "t.csv", ["y", "x"]).rows() == [("a\nb", "010")]
    assert published_file(tmp_path / "t.csv") == tmp_path / "t.csv.gz"


def test_cells_are_text_without_the_space_around_it_and_blank_ones_are_null(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    frame = read_label_file(tmp_path / "t.csv", ["Age", "Path"], ["Sex", "AP/PA"])
    assert frame.rows() == [("61", "a.jpg", "Female", None), (None, "b.jpg", None, None)]


def test_all_missing_columns_are_named_at_once_each_with_the_nearest(tmp_path):
    (tmp_path / "t.csv").write_text(TEXT)
    with pytest.raises(ConfigError, match=r"no column 'Pat' \(did you mean 'Path'\?\); no column 'Frontal/Lateral'"):
        read_label_file(tmp_path / "t.csv", ["Pat", "Sex", "Frontal/Lateral"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"a,b\nPATIENT,1,2\n", "a row does not fit the header"),
        (b"\xff\xfe\x00", "UnicodeDecodeError"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-9], "EOFError"),
        (b"PK\x03\x04 no zip", "BadZipFile"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git-LFS pointer"),
    ],
)
def test_what_is_no_table_is_an_error_that_quotes_none_of_it(tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ReadError, match=words) as caught:
        read_label_file(tmp_path / "t.csv", ["a"])
    assert "PATIENT" not in str(caught.value)


def test_a_zip_of_several_files_is_not_guessed_at(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("one.csv", TEXT)
        archive.writestr("two.csv", TEXT)
    with pytest.raises(ReadError, match="holds 2 files"):
        label_text(tmp_path / "t.zip")


def test_a_missing_table_is_named_without_its_folder(tmp_path):
    with pytest.raises(InputMissing, match=r"t\.csv is not there, neither as it is nor as \.gz or \.zip") as caught:
        label_text(tmp_path / "t.csv")
    assert str(tmp_path) not in str(caught.value)
