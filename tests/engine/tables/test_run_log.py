import hashlib
import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from engine.tables.run_log import LOG, RUN, Clock, RunLog, append_line, as_json, publish_json, publish_run, versions


@dataclass(frozen=True)
class Seen:
    step: int
    loss: float
    path: Path


def lines_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_every_event_is_a_line_and_a_second_run_adds_to_the_first(tmp_path):
    RunLog(tmp_path, {}).append(Seen(1, 0.5, Path("a/b")))
    RunLog(tmp_path, {}).append(Seen(2, float("nan"), Path("c")))
    first, second = lines_of(tmp_path)
    assert (first["event"], first["step"], first["loss"], first["path"]) == ("seen", 1, 0.5, "a/b")
    assert (second["step"], second["loss"]) == (2, None)


def test_a_line_torn_by_a_kill_spoils_no_other(tmp_path):
    log = tmp_path / "log"
    append_line(log, "whole")
    with log.open("a") as file:
        file.write("to")
    append_line(log, "next")
    assert log.read_text().splitlines() == ["whole", "to", "next"]


def test_the_summary_is_there_from_the_start_and_grows(tmp_path):
    run = RunLog(tmp_path, {"seed": 4})
    assert json.loads((tmp_path / RUN).read_text())["status"] == "running"
    run.update(status="finished", steps=9)
    told = json.loads((tmp_path / RUN).read_text())
    assert (told["status"], told["seed"], told["steps"]) == ("finished", 4, 9)


def test_a_log_that_cannot_be_written_is_counted_and_ends_nothing(tmp_path):
    run = RunLog(tmp_path, {})
    (tmp_path / LOG).mkdir()
    run.append(Seen(1, 0.0, tmp_path))
    run.update()
    assert json.loads((tmp_path / RUN).read_text())["log_lines_lost"] == 1


def test_values_become_plain_json():
    assert as_json({"a": (Path("x"), float("inf"), Seen(1, 2.0, Path("y")))}) == {"a": ["x", None, {"step": 1, "loss": 2.0, "path": "y"}]}


def test_versions_name_what_is_installed_and_no_host():
    found = versions()
    assert found["numpy"] == version("numpy") and {"python", "platform", "mmclip", "torch", "pydicom"} <= set(found)
    assert platform.node() not in found.values()


def test_a_run_that_is_not_kept_writes_nothing(tmp_path):
    run = RunLog(tmp_path, {"seed": 1}, is_kept=False)
    run.append(run)
    run.update(status="finished")
    assert run.facts["status"] == "finished"
    assert list(tmp_path.iterdir()) == []


def test_laps_and_the_time_between_them_make_the_total():
    clock = Clock()
    clock.lap("load")
    clock.lap("images")
    laps = clock.laps()
    assert list(laps) == ["load", "images", "total"]
    assert 0 <= laps["load"] + laps["images"] <= laps["total"] + 0.002


def test_a_run_that_ended_has_a_hash_of_every_output_file_that_exists(tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "b.csv").write_bytes(b"b")
    written = publish_run(tmp_path, {"notice": "n"}, ["a.csv", "private/b.csv"])
    assert written == {"notice": "n", "outputs": {"private/b.csv": hashlib.sha256(b"b").hexdigest()}}
    assert json.loads((tmp_path / RUN).read_text()) == written


def test_json_holds_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        publish_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
