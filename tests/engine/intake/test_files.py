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
    left = input_files([folder], {}, out=folder / "out", leave_out=[folder / "labels.csv"])
    assert names(left) == ["a.dcm", "b.dcm", "x.part"]
    assert names(input_files([folder / "out"], {}, out=folder.parent / "elsewhere")) == ["scores.csv"]


@pytest.mark.parametrize("out", ["in", "in/.", "in/../in", "link", "in/sub"])
def test_a_folder_that_is_input_and_output_loses_only_what_is_ours(folder, out):
    (folder.parent / "link").symlink_to(folder)
    target = (folder.parent / out).resolve()
    own = (
        "scores.csv",
        "run.json",
        ".lock",
        "report.html",
        "private/files.csv",
        "table/0123456789abcdef/shard-0.parquet",
        ".scores.csv.77.part",
    )
    theirs = ("private/1.dcm", "table/2.dcm", "report.dcm", "scores/scores.csv", "private/heatmaps/3.dcm")
    for name in (*own, *theirs):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(b"x")
    found = {str(item.path.relative_to(folder)) for item in input_files([folder], {}, out=folder.parent / out)}
    base = target.relative_to(folder.resolve())
    assert {str(base / name) for name in theirs} | {"a.dcm", "b.dcm"} <= found
    assert not {str(base / name) for name in own} & found


def test_links_are_followed_into_the_inputs_alone(tmp_path):
    tree, other = tmp_path / "tree", tmp_path / "other"
    for name in ("tree/.git/annex/objects/ab/key", "tree/blobs/sha", "other/secret.dcm", "tree/sub/a.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    links = {
        "annex.dcm": ".git/annex/objects/ab/key", "snapshots/1/b.dcm": "../../blobs/sha", "linked": "sub", "out.dcm": "../other/secret.dcm",
        "away": "../other", "gone.dcm": ".git/annex/objects/cd/none", "sub/up": "..", "self": "self", "sub/same": ".",
    }  # fmt: skip
    for name, target in links.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).symlink_to(target)
    found = {str(item.path.relative_to(tree)): item.decided for item in input_files([tree], {}, follow_links=True)}
    read = {name for name, decided in found.items() if decided is None}
    assert read == {"annex.dcm", "snapshots/1/b.dcm", "linked/a.dcm", "sub/a.dcm", "blobs/sha"}
    reasons = {name: decided[1] for name, decided in found.items() if decided}
    assert reasons == {
        ".git": "os_junk", "out.dcm": "link_outside", "away": "link_outside", "gone.dcm": "link_broken", "self": "link_loop",
        "sub/up": "link_loop", "sub/same": "link_loop", "linked/up": "link_loop", "linked/same": "link_loop",
    }  # fmt: skip
    both = {str(item.path.relative_to(tmp_path)) for item in input_files([tree, other], {}, follow_links=True) if item.decided is None}
    assert {"tree/out.dcm", "tree/away/secret.dcm", "other/secret.dcm"} <= both
    plain = {str(item.path.relative_to(tree)) for item in input_files([tree], {}) if item.decided == ("skip", "symlink")}
    assert plain == set(links)


@pytest.mark.parametrize(
    ("files", "plain"),
    [
        (("a.png", "sub/b.JPG", "labels.csv", "README.md", ".DS_Store"), True),
        (("a.png", "b.dcm"), False),
        (("a.png", "IM0001"), False),
        (("labels.csv",), False),
    ],
)
def test_a_folder_of_images_alone_is_read_as_a_table_of_them(tmp_path, files, plain):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    items = list(input_files([tmp_path], {}))
    assert {item.plain_image for item in items} == {plain}
    assert ("sub/b.JPG" in {item.given for item in items}) == plain
    assert next(iter(input_files([tmp_path / files[0]], {}))).plain_image == files[0].endswith("png")


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
    assert [item.decided for item in items] == [None, ("reject", "file_missing"), ("reject", "lateral_view"), ("skip", "not_regular")]
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
