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


def test_a_dry_run_says_what_would_be_done_and_what_the_table_lacks(work, toy):
    with (work.folder / "table.csv").open("a") as table:
        table.write("gone.png,p1,1\n")
    done = work("finetune", "toy.yaml", "--fraction", "0.1,1", "--model", toy, "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"toy: linear fine-tuning of {toy} on 10 %, 100 % of the training patients, into runs/toy"
    assert lines[2].split() == ["split", "images", "patients", "Edema", "+/-"]
    rows = [line.rsplit(maxsplit=3) for line in lines[3:-1]]
    assert [row[0].strip() for row in rows] == ["train", "validation", "test", "train, 10 %"]
    assert sum(int(row[1]) for row in rows[:3]) == 40
    assert lines[-1] == "left out: file_missing 1"
    assert not (work.folder / "runs").exists()


def test_a_table_that_is_not_there_is_no_input(work):
    done = work("finetune", "tabel.csv")
    assert done.returncode == 66
    assert "no such table of labelled images" in json.loads(done.stderr)["message"]


@pytest.mark.parametrize("fraction", ["0", "2", "ten", "0.1,,1"])
def test_a_fraction_that_is_none_is_usage(work, fraction):
    done = work("finetune", "toy.yaml", "--fraction", fraction)
    assert done.returncode == 2
    assert "--fraction" in json.loads(done.stderr)["message"]


def test_a_classifier_is_made_and_score_finds_the_figures_of_its_test_part_again(work, toy):
    done = work("finetune", "toy.yaml", "--fraction", "0.5,1", "--model", toy)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "RESEARCH USE ONLY - not for clinical use"
    assert any(line.startswith("100 %     linear ") for line in lines)
    assert lines[-1].startswith("classifier in runs/toy/bundle;")

    held_out = {f"{number}.png" for number in range(40) if drawn_out(f"0:p{number}", 0.7)}
    table = (work.folder / "table.csv").read_text().splitlines()
    (work.folder / "test.csv").write_text("\n".join([table[0], *(line for line in table if line.partition(",")[0] in held_out)]) + "\n")
    scored = work("score", "test.csv", "--model", "runs/toy/bundle", "--json", "--quiet", "--workers", "1")
    assert scored.returncode == 0, scored.stderr
    result = json.loads(scored.stdout)
    curve = json.loads((work.folder / "runs/toy/curve.json").read_text())["curve"]
    (linear,) = (row for row in curve if (row["fraction"], row["method"], row["finding"]) == (1, "linear", "Edema"))
    assert 5 < linear["n"] == len(held_out) < 20
    assert linear["auroc"] > 0.9
    figures = ("n", "n_positive", "auroc", "auprc", "f1")
    assert [result["metrics"][0][key] for key in figures] == [linear[key] for key in figures]
    assert result["recipe"]["source"] == "classifier"
    assert "a fine-tuned classifier" in (work.folder / "mmclip-out" / "report.html").read_text()

    spoken = work("score", "test.csv", "--model", "runs/toy/bundle", "--prompts", "chest14")
    assert spoken.returncode == 2
    assert "leave out --prompts" in json.loads(spoken.stderr)["message"]


def test_json_holds_the_curve(work, toy):
    done = work("finetune", "toy.yaml", "--model", toy, "--json", "--quiet")
    result = json.loads(done.stdout)
    assert result["drawn"][0]["fraction"] == 1
    assert {row["method"] for row in result["finished"]["curve"]} == {"zero_shot", "linear", "raw_pixels"}


def drawn_out(salted, share):
    """The rule of TableSource.split, written once more."""
    return int.from_bytes(hashlib.sha256(salted.encode()).digest()[:8], "big") >= share * 2**64


def test_a_table_is_all_that_a_classifier_needs(work, toy):
    (work.folder / "table.csv").rename(work.folder / "labels.csv")
    done = work("finetune", "labels.csv", "--model", toy, "--set", "mode=linear", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "classifier in runs/labels/bundle" in done.stdout
    scored = work("score", "labels.csv", "--model", "runs/labels/bundle", "--json", "--quiet")
    assert {"study", "n_images", "flags", "Edema"} == set(json.loads(scored.stdout)["scores"][0])


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("fille,patient,Edema", "no column 'file' (did you mean 'fille'?)"),
        ("file,patient,Swelling", "the sources label no finding"),
    ],
)
def test_a_dry_run_tells_what_is_wrong_with_a_table(work, toy, header, said):
    rows = (work.folder / "table.csv").read_text().splitlines()
    (work.folder / "labels.csv").write_text("\n".join([header, *rows[1:]]))
    done = work("finetune", "labels.csv", "--model", toy, "--dry-run")
    assert done.returncode == 78
    assert said in json.loads(done.stderr)["message"]
    assert not (work.folder / "runs").exists()
