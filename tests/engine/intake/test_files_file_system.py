"""What a file system can do to a walk and a read: odd names, links, pipes, holes, files that vanish, grow or fail."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.dicom.reasons import Refusal
from engine.intake.duplicates import DuplicateIndex
from engine.intake.files import find_files
from engine.intake.read_result import ReadResult
from engine.intake.reader import load_bytes
from engine.intake.workers import read_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="made for the file systems of Linux")
NAMES = (
    b"latin1_\xe9\xff.dcm", b"new\nline.dcm", b"tab\t.dcm", b"-rf.dcm", b"=cmd|calc.dcm", b"<script>.dcm", b'comma "x".dcm', b"1.2.3.4",
    "nfc_\u00e9.dcm".encode(), "nfd_e\u0301.dcm".encode(), "rtl_\u202egnp.dcm".encode(), b".hidden.dcm", b"a" * 251 + b".dcm",
)  # fmt: skip


@pytest.fixture
def good(make: SimpleNamespace) -> bytes:
    content: bytes = make.to_bytes(make.radiograph(make.chest(96, 80)))
    return content


def readings(folder: Path) -> dict[bytes, ReadResult]:
    """Every file of the walk by its name relative to `folder`, read by one worker and settled."""
    found = list(find_files([folder]))
    read = read_files((each.path for each in found if each.outcome is None), size=64, workers=1)
    duplicates = DuplicateIndex()
    settled = [duplicates.resolve(ReadResult(each.path, each.outcome, each.reason) if each.outcome else next(read)) for each in found]
    assert len(settled) == len(found)
    return {os.fsencode(os.path.relpath(each.path, folder)): each for each in settled}


def test_a_file_of_any_name_is_read(good: bytes, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / os.fsdecode(name)).write_bytes(good)
    got = readings(tmp_path)
    assert set(got) == set(NAMES)
    assert sorted(each.outcome for each in got.values()) == ["duplicate"] * (len(NAMES) - 1) + ["score"]


def test_what_is_no_plain_file_is_a_row(good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.dcm").write_bytes(good)
    os.link(tmp_path / "good.dcm", tmp_path / "hard.dcm")
    for name, target in {
        "self": ".",
        "up": "..",
        "a": "b",
        "b": "a",
        "zero.dcm": "/dev/zero",
        "etc": "/etc",
        "soft.dcm": "good.dcm",
    }.items():
        (tmp_path / name).symlink_to(target)
    os.mkfifo(tmp_path / "fifo.dcm")
    (tmp_path / "folder.dcm").mkdir()
    (tmp_path / "sparse.dcm").write_bytes(good[:400])
    os.truncate(tmp_path / "sparse.dcm", 1 << 40)
    os.utime(tmp_path / "good.dcm", (4e9, 4e9))
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
        listening.bind("socket.dcm")
    began = time.monotonic()
    reasons = {name.decode(): each.reason for name, each in readings(tmp_path).items()}
    assert time.monotonic() - began < 30
    assert reasons == {
        **dict.fromkeys(("self", "up", "a", "b", "zero.dcm", "etc", "soft.dcm"), "symlink"),
        **dict.fromkeys(("fifo.dcm", "socket.dcm"), "not_regular"),
        "good.dcm": None,
        "hard.dcm": "same_pixels",
        "sparse.dcm": "resource_limit",
    }


def test_a_path_beyond_the_longest_is_one_row(good: bytes, tmp_path: Path) -> None:
    (tmp_path / "good.dcm").write_bytes(good)
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 220, dir_fd=folder)
        inner = os.open("d" * 220, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("deep.dcm", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
    os.close(folder)
    try:
        assert sorted(str(each.reason) for each in readings(tmp_path).values()) == ["None", "unreadable"]
    finally:
        subprocess.run(["rm", "-rf", tmp_path / ("d" * 220)], check=True)


def test_files_that_vanish_during_the_run_are_rows(good: bytes, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:03}.dcm" for number in range(100)]
    for path in paths:
        path.write_bytes(good)
    reasons = []
    for reading in read_files((each.path for each in find_files([tmp_path])), size=64, workers=1):
        reasons.append(str(reading.reason))
        if len(reasons) == 3:  # the walk has handed over all names of the folder, the reader is a few dozen files ahead at most
            for path in paths[50:]:
                path.unlink()
    assert len(reasons) == 100
    assert set(reasons[:10]) == {"None"}
    assert set(reasons[50:]) == {"vanished"}


def test_a_growing_file_waits_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "growing.dcm"
    path.write_bytes(bytes(8 << 20))
    stop = threading.Event()

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.is_set() and file.tell() < 256 << 20:
                file.write(bytes(4096))

    grower = threading.Thread(target=grow)
    grower.start()
    reason, deadline = None, time.monotonic() + 60
    try:
        while reason is None and time.monotonic() < deadline:
            try:
                load_bytes(path, 512 << 20)
            except Refusal as refusal:
                reason = refusal.code
    finally:
        stop.set()
        grower.join()
    assert reason == "in_progress"
    assert len(load_bytes(path, 512 << 20)) == path.stat().st_size


def test_a_file_that_is_replaced_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    contents = [bytes([number]) * (1 << 20) for number in (1, 2)]
    path, stop = tmp_path / "x.dcm", threading.Event()
    path.write_bytes(contents[0])

    def replace() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            (tmp_path / "next").write_bytes(contents[turn % 2])
            (tmp_path / "next").replace(path)

    replacer = threading.Thread(target=replace)
    replacer.start()
    try:
        assert all(load_bytes(path, 2 << 20) in contents for _ in range(200))
    finally:
        stop.set()
        replacer.join()


@pytest.mark.parametrize(("when", "reason"), [("1", "not_dicom"), ("1+", "io_error")])
def test_a_read_error_is_tried_once_more(tmp_path: Path, when: str, reason: str) -> None:
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    path = tmp_path / "x.dcm"
    path.write_bytes(b"text" * 100)
    code = "import sys, pathlib; from engine.intake.reader import read_file; print(read_file(pathlib.Path(sys.argv[1]), size=64).reason)"
    command = ["strace", "-o", tmp_path / "trace", "-P", path, "-e", "trace=read", "-e", f"inject=read:error=EIO:when={when}"]
    done = subprocess.run([*command, sys.executable, "-c", code, path], capture_output=True, text=True, timeout=100)
    if "ptrace" in done.stderr:
        pytest.skip("this machine lets nobody trace")
    assert done.stdout.strip() == reason, done.stderr


STALLED = """
import sys
from pathlib import Path
from engine.intake import workers
workers._GRACE = 0.5
for reading in workers.read_files(map(Path, sys.argv[1:]), size=64, workers=1, limits=workers.Limits(seconds=3)):
    print(reading.reason, flush=True)
"""


def test_a_mount_that_stalls_costs_its_file_alone(good: bytes, tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    paths = [tmp_path / name for name in ("before.dcm", "stalled.dcm", "after.dcm")]
    for path in paths:
        path.write_bytes(good)
    # strace holds the child in its open(), where even SIGKILL does not reach it, as a hard mount would
    stall = ["-P", str(paths[1]), "-e", "trace=openat", "-e", "inject=openat:delay_enter=90000000"]
    command = ["strace", "-f", "-o", str(tmp_path / "trace"), *stall, sys.executable, "-c", STALLED, *map(str, paths)]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True) as run:
        assert run.stdout
        reasons = [run.stdout.readline().strip() for _ in paths]
        seconds = time.monotonic() - began
        os.killpg(run.pid, signal.SIGKILL)
    if not any(reasons):
        pytest.skip("this machine lets nobody trace")
    assert reasons == ["None", "decode_timeout", "None"]
    assert seconds < 80
