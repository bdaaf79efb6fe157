"""What a person or a log sees."""

import json
import math
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmclip_cli import console


@dataclass(frozen=True)
class Event:
    step: int
    loss: float
    where: Path


def test_a_log_line_is_one_json_object_where_nobody_watches(capsys):
    console.log("two\nlines", level="warning", loss=math.nan, where=Path("a"))
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "warning", "message": "two lines", "loss": None, "where": "a"}


def test_json_on_stdout_has_words_for_everything(capsys):
    console.say_json({"event": Event(1, math.inf, Path("a/b")), "many": (1, None, True)})
    assert json.loads(capsys.readouterr().out) == {"event": {"step": 1, "loss": None, "where": "a/b"}, "many": [1, None, True]}


def test_numbers_stand_right_and_words_left(capsys):
    console.table(["finding", "n", "auroc"], [["Edema", 5, 0.5], ["Pleural Effusion", 100, None], ["肺水腫", 7, math.nan]])
    assert capsys.readouterr().out.splitlines() == [
        "finding             n  auroc",
        "Edema               5  0.500",
        "Pleural Effusion  100      -",
        "肺水腫              7      -",
    ]


def test_a_table_without_rows_is_its_header(capsys):
    console.table(["a", "b"], [])
    assert capsys.readouterr().out == "a  b\n"


def test_leaving_the_loop_closes_the_verb():
    ended = []

    def events():
        try:
            yield from range(10)
        finally:
            ended.append(True)

    with console.closing(events()) as watched:
        assert next(watched) == 0
        assert not ended
    assert ended


def test_no_bar_is_drawn_where_nobody_watches(capsys):
    with console.progress(3, what="x", unit="step") as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_cannot_say_it_does_not_end_the_run(encoding):
    code = "from mmclip_cli import console; console.say('größer 肺'); console.log('größer 肺')"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, timeout=100)
    assert done.returncode == 0
    assert b"\\u80ba" in done.stdout


def on_terminal(code):
    """What a program writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # Linux ends a terminal with an error
        pass
    os.close(ours)
    assert process.wait(timeout=100) == 0
    return said.decode()


def test_on_a_terminal_lines_are_words():
    said = on_terminal(
        "from mmclip_cli import console; console.log('ready', images=3, dropped={}); console.log('bad', level='error', exit_code=2)"
    )
    assert said.split("\r\n") == ["ready: images 3", "mmclip: bad", ""]


def test_on_a_terminal_a_bar_moves_and_quiet_hides_it():
    code = "from mmclip_cli import console\nwith console.progress(3, what='toy', unit='step', quiet={}) as bar: bar.update(3)"
    assert "3/3" in on_terminal(code.format(False))
    assert on_terminal(code.format(True)) == ""


def test_warnings_of_libraries_stay_off_stderr():
    code = "import logging, warnings; from mmclip_cli import console; console.hush_libraries()"
    code += "; warnings.warn('DOE^JANE'); logging.error('DOE^JANE')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert done.stderr == ""


def test_our_paths_are_shown_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert console.shown(tmp_path / "runs" / "a") == "runs/a"
    assert console.shown(Path("/elsewhere")) == "/elsewhere"
