"""Image tables as users write them."""

import pytest

from engine.errors import ConfigError, LabelsError
from engine.tables.image_table import TableRow, UserImageTable, is_image_table


def table(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    return UserImageTable(tmp_path / "t.csv")


def test_files_start_from_the_table_s_folder(tmp_path):
    rows = list(table(tmp_path, "File;Study;PATIENT;view\na/b.png;s;p;PA\n/abs/c.dcm;;;\n").rows())
    assert rows[0] == TableRow(tmp_path / "a/b.png", "a/b.png", "s", "p", "PA")
    assert str(rows[1].file) == "/abs/c.dcm"
    assert (rows[1].study, rows[1].patient, rows[1].view) == (None, None, None)


def test_finding_columns_are_labels_by_file(tmp_path):
    found = table(tmp_path, "file,study,Edema\na.png,s,1\n").labels(["Edema"])
    assert (found.key, list(found.keys), found.values) == ("file", ["a.png"], {"Edema": [1]})
    assert table(tmp_path, "file,score\na.png,high\n").labels(["Edema"]) is None


def test_a_cell_that_is_no_label_is_refused(tmp_path):
    with pytest.raises(LabelsError, match="row 1"):
        table(tmp_path, "file,Edema\na.png,yes\n").labels(["Edema"])


@pytest.mark.parametrize(
    ("text", "message"), [("path\na.png\n", "no column 'file'"), ("file,view\na.png,PA\n,PA\n", "row 2 .* names no file")]
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
