import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engine.errors import EngineError
from engine.intake import workers as pool
from engine.intake.limits import Limits
from engine.intake.reader import read_file
from engine.intake.workers import read_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc")


@pytest.fixture
def files(make: SimpleNamespace, tmp_path: Path) -> list[Path]:
    """Five files: good, text, good, constant, good."""
    contents = [make.to_bytes(make.radiograph(make.chest(90 + number, 80))) for number in range(3)]
    contents[1:1] = [b"text" * 50]
    contents[3:3] = [make.to_bytes(make.radiograph(np.zeros((100, 100), np.uint16)))]
    paths = [tmp_path / f"{number}.dcm" for number in range(5)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def children(parent: int | None = None) -> set[int]:
    """The living worker processes of a process, from /proc."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == (parent or os.getpid()) and state != "Z" and b"engine.intake.sandbox" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def is_worker(pid: int) -> bool:
    try:
        return b"engine.intake.sandbox" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it may go between two looks
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_readings_come_in_order_and_are_those_of_this_process(files: list[Path]) -> None:
    got = list(read_files(iter(files), size=64, workers=2))
    here = [read_file(path, size=64) for path in files]
    assert [one.path for one in got] == files
    assert [(one.outcome, one.reason, one.content_hash, one.pixel_hash, one.flags) for one in got] == [
        (one.outcome, one.reason, one.content_hash, one.pixel_hash, one.flags) for one in here
    ]
    assert all((a.image is None) == (b.image is None) for a, b in zip(got, here, strict=True))
    assert np.array_equal(got[0].image, here[0].image)
    assert not children(), "no process stays behind"


def test_no_files_need_no_workers() -> None:
    assert list(read_files([], size=64)) == []


def test_a_file_that_takes_too_long_costs_itself_and_its_worker(make: SimpleNamespace, tmp_path: Path, files: list[Path]) -> None:
    slow = tmp_path / "slow.dcm"
    slow.write_bytes(make.LOSSLESS["jpegls"](np.tile(make.chest(), (8, 8)), 12))  # 5 megapixels: 60 ms at the very best
    got = list(read_files([slow, files[0]], size=64, workers=1, limits=Limits(seconds=0.02)))
    assert got[0].reason == "decode_timeout"
    assert got[1].reason in {None, "decode_timeout"}, "a busy machine may be slow with any file, never lose one"


def test_a_worker_that_is_killed_loses_only_its_file(files: list[Path]) -> None:
    """Stop the child so that it cannot answer, then kill it as a segmentation fault would: for real."""

    def crash(pid: int) -> None:
        os.kill(pid, signal.SIGSEGV)
        os.kill(pid, signal.SIGCONT)

    def paths() -> Iterator[Path]:
        yield files[0]
        yield files[2]
        (pid,) = children()  # ready by now: it has read the first file
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.3, crash, [pid]).start()
        yield files[4]
        yield files[0]

    got = list(read_files(paths(), size=64, workers=1))
    assert [one.path for one in got] == [files[0], files[2], files[4], files[0]]
    assert got[0].outcome == got[3].outcome == "score"
    assert sorted(str(one.reason) for one in got[1:3]) == ["None", "decode_crash"], "the file it was busy with, whichever it was"


def test_a_worker_that_dies_idle_costs_nothing(files: list[Path]) -> None:
    def paths() -> Iterator[Path]:
        yield files[0]
        yield files[1]
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not children())
        yield files[2]

    running = read_files(paths(), size=64, workers=1)
    assert [one.path for one in running] == files[:3]


def test_all_workers_may_die_at_once_on_their_way_and_at_work(files: list[Path]) -> None:
    def strike() -> None:
        for pid in children():
            os.kill(pid, signal.SIGSEGV)

    def paths() -> Iterator[Path]:
        for number in range(40):
            if number in (10, 25):
                strike()
            yield files[0]

    starting = threading.Timer(0.1, strike)
    starting.start()
    reasons = [one.reason for one in read_files(paths(), size=64, workers=2)]
    starting.join()
    assert len(reasons) == 40
    assert set(reasons) <= {None, "decode_crash"}
    assert reasons.count("decode_crash") <= 4, "the files that two workers were busy with, twice"


def test_a_bomb_runs_out_of_memory_in_its_worker_only(make: SimpleNamespace, tmp_path: Path, files: list[Path]) -> None:
    content = make.LOSSLESS["deflated"](make.chest(), 12)
    from engine.dicom.elements import read_meta

    body = read_meta(memoryview(content)).body
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = struct.pack("<HH", 0x0009, 0x1010) + b"OB\0\0" + struct.pack("<I", 200 << 20)
    bomb = machine.compress(head) + b"".join(machine.compress(b"\0" * (1 << 20)) for _ in range(200)) + machine.flush()
    path = tmp_path / "bomb.dcm"
    path.write_bytes(content[:body] + bomb)
    limits = Limits(memory=100 << 20, inflated_bytes=1 << 40)
    assert [one.reason for one in read_files([path, files[0]], size=64, workers=1, limits=limits)] == ["resource_limit", None]


def test_leaving_early_leaves_no_process(files: list[Path]) -> None:
    running = read_files(files * 10, size=64, workers=2)
    next(running)
    assert children()
    running.close()
    assert not children()


def test_a_child_holds_no_secret_and_no_right_it_does_not_need(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMCLIP_SITE_KEY", "CANARYKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARYPASSWORD")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    found = {}

    def paths() -> Iterator[Path]:
        yield files[0]
        yield files[2]
        (pid,) = children()
        here = Path(f"/proc/{pid}")
        found["environment"] = (here / "environ").read_bytes()
        found["status"] = (here / "status").read_bytes()
        found["open"] = b" ".join(os.fsencode(each.readlink()) for each in (here / "fd").iterdir())

    assert [one.reason for one in read_files(paths(), size=64, workers=1)] == [None, None]
    assert b"CANARY" not in found["environment"]
    assert b"LC_ALL=C.UTF-8" in found["environment"]
    assert b"NoNewPrivs:\t1" in found["status"]
    assert set(re.sub(rb"\[\d+\]", b"", found["open"]).split()) <= {b"pipe:", b"/dev/null", bytes(files[0]), bytes(files[2])}


def test_children_die_with_their_parent(files: list[Path]) -> None:
    program = (
        "import sys, time; from pathlib import Path; from engine.intake.workers import read_files\n"
        "def paths():\n    yield Path(sys.argv[1])\n    print('reading', flush=True)\n    time.sleep(60)\n"
        "print(list(read_files(paths(), size=64, workers=1)))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(files[0])], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None and parent.stdout.readline() == b"reading\n"
        kids = children(parent.pid)
        assert kids
        parent.kill()
        parent.wait()
        wait_until(lambda: not any(is_worker(pid) for pid in kids))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_workers_that_cannot_start_end_the_run_with_one_line(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EngineError, match="do not start"):
        list(read_files(files, size=64, workers=2))
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(EngineError, match="no worker process"):
        list(read_files(files, size=64, workers=2))


def test_one_trusted_file_needs_no_worker(files: list[Path]) -> None:
    got = list(read_files(files[:1], size=64, workers=0))
    assert got[0].outcome == "score" and not children()


def test_paths_are_taken_only_as_they_are_needed(files: list[Path]) -> None:
    taken = 0

    def paths() -> Iterator[Path]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield files[0]

    running = read_files(paths(), size=64, workers=1)
    next(running)
    assert taken <= 1 + pool._AHEAD
    running.close()
