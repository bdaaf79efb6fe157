import json
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.training.run_log import LOG, RUN, RunRecord, append_line, device_facts, plain, versions


@dataclass(frozen=True)
class Seen:
    step: int
    loss: float
    path: Path


def lines_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_every_event_is_a_line_and_a_second_run_adds_to_the_first(tmp_path):
    RunRecord(tmp_path, {}).log(Seen(1, 0.5, Path("a/b")))
    RunRecord(tmp_path, {}).log(Seen(2, float("nan"), Path("c")))
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
    record = RunRecord(tmp_path, {"seed": 4})
    assert json.loads((tmp_path / RUN).read_text())["status"] == "running"
    record.say(status="finished", steps=9)
    told = json.loads((tmp_path / RUN).read_text())
    assert (told["status"], told["seed"], told["steps"]) == ("finished", 4, 9)


def test_a_log_that_cannot_be_written_is_counted_and_ends_nothing(tmp_path):
    record = RunRecord(tmp_path, {})
    (tmp_path / LOG).mkdir()
    record.log(Seen(1, 0.0, tmp_path))
    record.say()
    assert json.loads((tmp_path / RUN).read_text())["log_lines_lost"] == 1


def test_values_become_plain_json():
    assert plain({"a": (Path("x"), float("inf"), Seen(1, 2.0, Path("y")))}) == {"a": ["x", None, {"step": 1, "loss": 2.0, "path": "y"}]}


def test_versions_name_what_is_installed_and_leave_out_the_rest():
    found = versions(["torch", "no-such-package-of-ours"])
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0], "a build for CUDA may name it in one of the two alone"
    assert "no-such-package-of-ours" not in found


def test_a_cpu_is_told_with_its_threads():
    assert device_facts(torch.device("cpu"))["threads"] == torch.get_num_threads()


def test_a_record_that_is_not_kept_writes_nothing(tmp_path):
    record = RunRecord(tmp_path, {"seed": 1}, is_kept=False)
    record.log(record)
    record.say(status="finished")
    assert record.facts["status"] == "finished"
    assert list(tmp_path.iterdir()) == []
