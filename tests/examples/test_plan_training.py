"""The plan of a run, on a toy recipe."""

import runpy
import sys
from pathlib import Path

import yaml

SCRIPT = Path(__file__).parents[2] / "examples" / "plan_training.py"
TOY = {
    "version": 1,
    "sources": [{"kind": "table", "file": "t.csv"}],
    "model": {
        "image": {"width": 32, "layers": 1, "heads": 2, "size": 32, "patch": 16},
        "text": {"width": 32, "layers": 1, "heads": 2, "context": 16},
        "projection": 16,
        "image_decoder": {"width": 32, "layers": 1, "heads": 2},
        "text_decoder": {"layers": 1, "heads": 2},
    },
    "tokenizer": {"vocab": 512},
    "batch": {"paired": 8, "unpaired": 8},
    "steps": 10,
}


def rows(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in capsys.readouterr().out.splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_twice_the_gpus_take_half_the_time_and_parts_less_memory(tmp_path, capsys, monkeypatch):
    whole, parts = tmp_path / "whole.yaml", tmp_path / "parts.yaml"
    whole.write_text(yaml.safe_dump(TOY))
    parts.write_text(yaml.safe_dump(TOY | {"compute": {"micro_batch": 4}}))
    one, two = rows(capsys, monkeypatch, whole, parts, "--gpus", 1, 2, "--tflops", 1e-7)
    hours = [float(one[f"hours on {count}"]) for count in (1, 2)]
    assert hours[0] > 0 and abs(hours[0] / hours[1] - 2) < 0.1
    assert float(two["hours on 1"]) > hours[0], "a step in parts goes forward once more"
    assert float(one["kept, MiB an image"]) >= 0
    assert one["million weights"] == two["million weights"]
