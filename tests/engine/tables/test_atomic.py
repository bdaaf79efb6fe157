"""Files appear whole or not at all, and one run at a time holds a folder."""

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from engine.errors import LockHeld, OutputError
from engine.tables.atomic import atomic_group, locked, make_folder, publish


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def write(text):
    return lambda stream: stream.write(text)


def test_a_file_is_replaced_whole(tmp_path):
    publish(tmp_path / "a.csv", write(b"old"))
    publish(tmp_path / "a.csv", write(b"new"))
    assert (tmp_path / "a.csv").read_bytes() == b"new"
    assert names_in(tmp_path) == ["a.csv"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    def fail(stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    publish(tmp_path / "a.csv", write(b"old"))
    with pytest.raises(OutputError, match=r"cannot write a\.csv: No space left"):
        publish(tmp_path / "a.csv", fail)
    assert (tmp_path / "a.csv").read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.csv"]


def test_files_that_go_together_wait_for_the_last_of_them(tmp_path):
    publish(tmp_path / "a", write(b"old"))
    (tmp_path / f".b.{os.getpid()}.part").mkdir()
    with pytest.raises(OutputError, match="cannot write b"), atomic_group() as files:
        files.add(tmp_path / "a", write(b"new"))
        files.add(tmp_path / "b", write(b"new"))
    assert (tmp_path / "a").read_bytes() == b"old"
    with atomic_group() as files:
        assert files.add(tmp_path / "a", write(b"new")).read_bytes() == b"new"
        files.add(tmp_path / "c", write(b"new"))
        assert (tmp_path / "a").read_bytes() == b"old"
        files.publish()
    assert names_in(tmp_path) == [f".b.{os.getpid()}.part", "a", "c"]
    assert (tmp_path / "a").read_bytes() == b"new"


def test_an_interruption_leaves_nothing_half_written(tmp_path):
    def interrupt(stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "a.csv", interrupt)
    assert names_in(tmp_path) == []


def test_a_link_beside_the_file_is_not_written_through(tmp_path):
    (tmp_path / "treasure").write_bytes(b"gold")
    (tmp_path / f".a.csv.{os.getpid()}.part").symlink_to(tmp_path / "treasure")
    with pytest.raises(OutputError):
        publish(tmp_path / "a.csv", write(b"new"))
    assert (tmp_path / "treasure").read_bytes() == b"gold"


def test_a_private_file_is_its_owner_s(tmp_path):
    publish(tmp_path / "a", write(b""), mode=0o600)
    make_folder(tmp_path / "p", mode=0o700)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_was_open_is_closed_again(tmp_path):
    (tmp_path / "p").mkdir(mode=0o755)
    make_folder(tmp_path / "p", mode=0o700)
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o700


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot make the output folder") as error, locked(tmp_path / "file" / "out"):
        pass
    assert error.value.exit_code == 73
    assert str(tmp_path) not in str(error.value)


def test_a_second_run_is_turned_away_until_the_first_has_ended(tmp_path):
    with locked(tmp_path), pytest.raises(LockHeld), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_what_a_killed_run_left_half_written_goes_with_the_next_lock(tmp_path):
    (tmp_path / "private").mkdir()
    for name in (".a.csv.123.part", "private/.files.parquet.4.part", "private/.scratch-1-ab"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "a.part").write_bytes(b"another's")
    with locked(tmp_path):
        assert names_in(tmp_path) == [".lock", "a.part", "private"]
        assert names_in(tmp_path / "private") == []


def test_a_lock_dies_with_its_process(tmp_path):
    code = f"""
    import pathlib, time
    from engine.tables.atomic import locked
    with locked(pathlib.Path({str(tmp_path)!r})):
        print("held", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockHeld), locked(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(tmp_path):
        pass


TWO = """
import pathlib, sys
from engine.errors import OutputError
from engine.tables.atomic import atomic_group
with atomic_group() as files:
    try:
        for name in "ab":
            files.add(pathlib.Path(sys.argv[1], name), lambda stream: stream.write(b"new"))
        files.publish()
    except OutputError as error:
        print(error)
"""


def traced(tmp_path, *inject):
    """What two files that go together say, and the calls that put them on the disk, in order."""
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    folder, trace = tmp_path / "out", tmp_path / "trace"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_bytes(b"old")
    command = ["strace", "-o", trace, "-e", "trace=fsync,rename", *inject, sys.executable, "-c", TWO, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    if "ptrace" in done.stderr:
        pytest.skip("this machine lets nobody trace")
    return done.stdout, re.findall(r"^(fsync|rename)\(", trace.read_text(), re.MULTILINE)


def test_files_are_on_the_disk_before_the_first_is_replaced_and_names_after_it(tmp_path):
    assert traced(tmp_path) == ("", ["fsync", "fsync", "rename", "rename", "fsync"])


@pytest.mark.parametrize(
    ("inject", "why"), [("fsync:error=EIO:when=2", "Input/output error"), ("rename:error=ENOSPC:when=1", "No space left on device")]
)
def test_a_disk_that_refuses_to_flush_or_rename_is_a_failed_write(tmp_path, inject, why):
    said, _ = traced(tmp_path, "-e", f"inject={inject}")
    assert why in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {"a": b"old", "b": b"old"}
