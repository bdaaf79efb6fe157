import os
import socket
import sys
import time
from pathlib import Path

import pytest

from engine.errors import InputMissing
from engine.intake.files import find_files


def outcomes(folder: Path, **options: float) -> dict[str, str | None]:
    return {os.fsencode(found.path.relative_to(folder)).decode("latin-1"): found.reason for found in find_files([folder], **options)}


def test_files_come_once_and_sorted_by_the_bytes_of_their_names(tmp_path: Path) -> None:
    for name in ("b/2.dcm", "b/10.dcm", "a", "C.DCM", "ä.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = [str(found.path.relative_to(tmp_path)) for found in find_files([tmp_path])]
    assert names == ["C.DCM", "a", "ä.dcm", "b/10.dcm", "b/2.dcm"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Thumbs.db", "os_junk"),
        (".DS_Store", "os_junk"),
        ("._IM0001.dcm", "os_junk"),
        ("Icon\r", "os_junk"),
        (".nfs00000000abcd0001", "os_junk"),
        ("~$findings.docx", "os_junk"),
        ("DICOMDIR", "dicomdir"),
        ("x.dcm.download", "in_progress"),
        ("x.dcm.!ut", "in_progress"),
        (".x.dcm.swo", "in_progress"),
        ("temp", None),
        ("download.dcm", None),
        ("x.dcm.part", "in_progress"),
        ("x.dcm.tmp", "in_progress"),
        (".x.dcm.Xa81Qz", "in_progress"),
        (".hidden.dcm", None),
        ("IM000001", None),
        ("README", None),
        ("1.2.3.4", None),
    ],
)
def test_names_decide_only_what_names_can(tmp_path: Path, name: str, reason: str | None) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert outcomes(tmp_path) == {name: reason}
    assert [found.reason for found in find_files([tmp_path / name])] == [reason]


@pytest.mark.parametrize("name", ["__MACOSX", ".Spotlight-V100", ".Trash-1000", "@eaDir", "RECYCLER"])
def test_a_folder_of_the_system_is_one_row(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "x.dcm").write_bytes(b"x")
    assert outcomes(tmp_path) == {name: "os_junk"}


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/self").symlink_to(tmp_path / "in")
    (tmp_path / "in/dangling.dcm").symlink_to("/nonexistent/x.dcm")
    (tmp_path / "in/zero.dcm").symlink_to("/dev/zero")
    (tmp_path / "in/outside").symlink_to("/etc")
    assert set(outcomes(tmp_path / "in").values()) == {"symlink"}
    assert len(outcomes(tmp_path / "in")) == 4


def test_nothing_that_blocks_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.dcm")
    (tmp_path / "folder.dcm").mkdir()
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(tmp_path)
        try:
            listening.bind("socket.dcm")
        finally:
            os.chdir(here)
    assert outcomes(tmp_path) == {"fifo.dcm": "not_regular", "socket.dcm": "not_regular"}


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system refuses such names")
def test_names_need_not_be_text(tmp_path: Path) -> None:
    names = [b"latin1_\xe9\xff.dcm", b"new\nline.dcm", b"=cmd|calc.dcm", b"-rf.dcm", b"a" * 251 + b".dcm"]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(b"x")  # noqa: PTH118 - bytes
    assert {os.fsencode(found.path.name) for found in find_files([tmp_path])} == set(names)


def test_young_files_wait_for_the_next_run(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"x")
    assert outcomes(tmp_path, min_age=60) == {"x.dcm": "in_progress"}
    assert outcomes(tmp_path, min_age=0) == {"x.dcm": None}
    old, future = time.time() - 3600, time.time() + 1e9
    os.utime(tmp_path / "x.dcm", (future, future))
    assert outcomes(tmp_path, min_age=60) == {"x.dcm": None}, "a clock that is ahead does not hide a file for years"
    os.utime(tmp_path / "x.dcm", (old, old))


def test_an_absent_input_is_an_error_and_an_empty_folder_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputMissing) as raised:
        list(find_files([tmp_path / "CANARYNAME"]))
    assert "CANARYNAME" not in str(raised.value)
    assert list(find_files([tmp_path])) == []


def test_a_folder_without_rights_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    (tmp_path / "open.dcm").write_bytes(b"x")
    if os.access(tmp_path / "locked", os.R_OK):
        pytest.skip("root may read everything")
    assert outcomes(tmp_path) == {"locked": "unreadable", "open.dcm": None}
