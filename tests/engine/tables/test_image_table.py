"""Image tables as users write them."""

import pytest

from engine.errors import ConfigError
from engine.tables.image_table import TableRow, UserImageTable, is_image_table


def table(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    return UserImageTable(tmp_path / "t.csv")


def test_files_start_from_the_table_s_folder(tmp_path):
    rows = list(table(tmp_path, "File;Study;PATIENT;view\na/b.png;s;p;PA\n/abs/c.dcm;;;\n").rows())
    assert rows[0] == TableRow(tmp_path / "a/b.png", "a/b.png", "s", "p", "PA")
    assert str(rows[1].file) == "/abs/c.dcm"
    assert (rows[1].study, rows[1].patient, rows[1].view) == (None, None, None)


def test_columns_go_by_their_usual_names(tmp_path):
    found = table(tmp_path, "Image Index,Patient ID,Edema\n'a.png,p,1\nsub\\b.png,q,0\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b.png").touch()
    assert list(found.rows()) == [
        TableRow(tmp_path / "a.png", "a.png", None, "p"),
        TableRow(tmp_path / "sub/b.png", "sub\\b.png", None, "q"),
    ]
    assert found.taken == "columns taken: 'Image Index' as file, 'Patient ID' as patient"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fille\na.png\n", "no column 'file'.*'fille'"),
        ("file,patientt\na.png,1\n", "looks like the patient's"),
        ("file,view\na.png,PA\n,PA\n", "row 2 .* names no file"),
    ],
)
def test_a_table_without_files_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        table(tmp_path, text)


def test_a_table_is_known_by_its_name(tmp_path):
    table(tmp_path, "file\n")
    (tmp_path / "folder.csv").mkdir()
    assert is_image_table(tmp_path / "t.csv")
    assert not is_image_table(tmp_path / "folder.csv")
    assert not is_image_table(tmp_path / "t.dcm")
