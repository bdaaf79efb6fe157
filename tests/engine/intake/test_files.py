"""Inputs of every kind become one stream of files."""

import os

import pytest

from engine.errors import InputMissing
from engine.intake.files import check_inputs, input_files
from engine.tables.image_table import UserImageTable


def names(items):
    return [item.path.name for item in items]


@pytest.fixture
def folder(tmp_path):
    for name in ("in/b.dcm", "in/a.dcm", "in/out/scores.csv", "in/labels.csv", "in/x.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path / "in"


def test_what_is_ours_is_passed_over(folder):
    assert names(input_files([folder], {}, leave_out=[folder / "out", folder / "labels.csv"])) == ["a.dcm", "b.dcm", "x.part"]
    assert names(input_files([folder / "out"], {}, leave_out=[folder.parent / "elsewhere"])) == ["scores.csv"]


def test_what_needs_no_opening_is_decided(folder):
    decided = {item.path.name: item.decided for item in input_files([folder], {})}
    assert decided["x.part"] == ("skip", "in_progress")
    assert decided["a.dcm"] is None


def test_inputs_keep_their_order(folder):
    assert names(input_files([folder / "b.dcm", folder / "a.dcm"], {})) == ["b.dcm", "a.dcm"]


def test_rows_of_a_table_say_what_the_user_said(folder):
    text = "file,study,patient,view\na.dcm,s,p,PA\nnone.png,s,,\nb.dcm,,,lateral\n,,,\nout,,,\n"
    (folder / "t.csv").write_text(text)
    table = UserImageTable(folder / "t.csv")
    items = list(input_files([folder / "t.csv"], {folder / "t.csv": table}))
    assert [item.decided for item in items] == [None, ("reject", "vanished"), ("reject", "lateral_view"), ("skip", "not_regular")]
    assert (items[0].study, items[0].patient, items[0].view, items[0].plain_image) == ("s", "p", "PA", True)


def test_a_file_inside_a_zip_is_left_to_the_reader(folder):
    (folder / "0.zip").write_bytes(b"PK")
    (folder / "t.csv").write_text("file\n0.zip/a.png\n")
    (item,) = input_files([folder / "t.csv"], {folder / "t.csv": UserImageTable(folder / "t.csv")})
    assert item.decided is None and item.plain_image


def test_a_name_that_no_system_takes_is_a_row(folder):
    (folder / "t.csv").write_text(f"file\n{'x' * 5000}\n")
    (item,) = input_files([folder / "t.csv"], {folder / "t.csv": UserImageTable(folder / "t.csv")})
    assert item.decided == ("reject", "unreadable")


def test_a_missing_input_is_named_by_its_number(folder):
    check_inputs([folder])
    with pytest.raises(InputMissing, match="input 2 of 2 does not exist") as error:
        check_inputs([folder, folder / "DOE_JOHN"])
    assert "DOE" not in str(error.value)


def test_a_fifo_is_never_opened(folder):
    os.mkfifo(folder / "pipe")
    (folder / "t.csv").write_text("file\npipe\n")
    (item,) = input_files([folder / "t.csv"], {folder / "t.csv": UserImageTable(folder / "t.csv")})
    assert item.decided == ("skip", "not_regular")
