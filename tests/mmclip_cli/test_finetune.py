"""`mmclip finetune`, and `mmclip score` with what it leaves, through the installed command."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

TOY = """\
version: 1
sources: [{kind: table, name: toy, file: table.csv, split: {train: 0.7}, reports: none}]
validation: {share: 0.3}
mode: linear
linear: {strengths: [0.01, 1.0]}
baseline: {side: 8}
"""


@pytest.fixture
def work(mmclip, toy):
    """Forty patients; Edema is a bright lower half."""
    rng = np.random.default_rng(0)
    rows = ["file,patient,Edema"]
    for number in range(40):
        picture = rng.integers(0, 120, (72, 72))
        picture[36:] += 100 * (number % 2)
        Image.fromarray(picture.astype(np.uint8)).save(mmclip.folder / f"{number}.png")
        rows.append(f"{number}.png,p{number},{number % 2}")
    (mmclip.folder / "table.csv").write_text("\n".join(rows) + "\n")
    (mmclip.folder / "toy.yaml").write_text(TOY)
    return mmclip


def test_the_bare_command_says_what_to_set_where_the_data_are_not_there(mmclip):
    done = mmclip("finetune", "--fraction", "0.1")
    assert done.returncode == 78
    message = json.loads(done.stderr)["message"]
    assert "sources.0.file: no table there; set it to a CSV or Parquet file with a column `file`" in message
    assert list(mmclip.folder.iterdir()) == []


def test_a_dry_run_says_what_would_be_done(work, toy):
    done = work("finetune", "toy.yaml", "--fraction", "0.1,1", "--model", toy, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"toy: linear fine-tuning of {toy} on 10 %, 100 % of the training patients, into runs/toy\n"
    assert not (work.folder / "runs").exists()


@pytest.mark.parametrize("fraction", ["0", "2", "ten", "0.1,,1"])
def test_a_fraction_that_is_none_is_usage(work, fraction):
    done = work("finetune", "toy.yaml", "--fraction", fraction)
    assert done.returncode == 2
    assert "--fraction" in json.loads(done.stderr)["message"]


def test_a_classifier_is_made_and_scores_a_folder_without_prompts(work, toy):
    done = work("finetune", "toy.yaml", "--fraction", "0.5,1", "--model", toy)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "RESEARCH USE ONLY - not for clinical use"
    assert any(line.startswith("100 %     linear ") for line in lines)
    assert lines[-1].startswith("classifier in runs/toy/bundle;")

    scored = work("score", "table.csv", "--model", "runs/toy/bundle", "--json", "--quiet", "--workers", "1")
    assert scored.returncode == 0, scored.stderr
    result = json.loads(scored.stdout)
    (edema, macro) = result["metrics"]
    assert (edema["finding"], edema["n"], macro["finding"]) == ("Edema", 40, "macro")
    assert edema["auroc"] > 0.95
    assert result["recipe"]["source"] == "classifier"
    assert "a classifier made by fine-tuning" in (work.folder / "mmclip-out" / "report.html").read_text()
    again = json.loads(work("score", "table.csv", "--model", "runs/toy/bundle", "--json", "--quiet", "--workers", "1").stdout)
    assert again["counts"]["reused"] == 40
    assert again["scores"] == result["scores"]


def test_score_finds_the_figures_of_the_test_part_again(work, toy):
    assert work("finetune", "toy.yaml", "--model", toy, "--quiet").returncode == 0
    held_out = {f"{number}.png" for number in range(40) if drawn_out(f"0:p{number}", 0.7)}
    lines = (work.folder / "table.csv").read_text().splitlines()
    (work.folder / "test.csv").write_text("\n".join([lines[0], *(line for line in lines if line.partition(",")[0] in held_out)]) + "\n")
    done = work("score", "test.csv", "--model", "runs/toy/bundle", "--json", "--quiet", "--workers", "1")
    scored = json.loads(done.stdout)["metrics"][0]
    curve = json.loads((work.folder / "runs/toy/curve.json").read_text())["curve"]
    (linear,) = (row for row in curve if row["method"] == "linear" and row["finding"] == "Edema")
    assert 5 < scored["n"] < 20
    assert [scored[key] for key in ("n", "n_positive", "auroc", "auprc", "f1")] == [
        linear[key] for key in ("n", "n_positive", "auroc", "auprc", "f1")
    ]


def drawn_out(salted, share):
    """The rule of TableSource.split, written once more."""
    return int.from_bytes(hashlib.sha256(salted.encode()).digest()[:8], "big") >= share * 2**64


def test_prompts_and_a_classifier_contradict_each_other(work, toy):
    assert work("finetune", "toy.yaml", "--model", toy, "--quiet").returncode == 0
    done = work("score", "table.csv", "--model", "runs/toy/bundle", "--prompts", "chest14")
    assert done.returncode == 2
    assert "leave out --prompts" in json.loads(done.stderr)["message"]


def test_json_holds_the_curve_and_a_run_is_not_written_over(work, toy):
    done = work("finetune", "toy.yaml", "--model", toy, "--json", "--quiet")
    result = json.loads(done.stdout)
    assert result["drawn"][0]["fraction"] == 1
    assert {row["method"] for row in result["finished"]["curve"]} == {"zero_shot", "linear", "raw_pixels"}
    assert work("finetune", "toy.yaml", "--model", toy).returncode == 2
