"""`mmclip score` as it is typed: what it prints, what it leaves behind, and how it ends."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from engine.tables.atomic import locked
from engine.tables.columns import NOTICE

SCRIPT = Path(sys.executable).with_name("mmclip")


@pytest.fixture(scope="module")
def studies(make_studies, tmp_path_factory):
    """Real files and nine drawn studies, with labels, as examples/make_studies.py lays them out."""
    folder = tmp_path_factory.mktemp("studies")
    make_studies.copy_real(folder / "real")
    rows = make_studies.make_synthetic(folder / "synthetic", each=3)
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return folder


def said(done):
    return [json.loads(line)["message"] for line in done.stderr.splitlines()]


def test_the_first_screen(mmclip, studies, toy):
    done = mmclip("score", studies, "--prompts", "chest14", "--model", toy, "--labels", studies / "labels.csv")
    assert done.returncode == 0, done.stderr
    for words in (
        NOTICE,
        "16 files: 13 scored, 0 duplicates, 3 rejected, 0 skipped",
        "10 studies scored by toy with chest14",
        "wrong_body_part      2  tagged as another part of the body",
        "Lung Opacity",
        "95 % interval",
        "9 of the 9 labelled studies are synthetic (drawn, not patients)",
        "mmclip-out/report.html",
    ):
        assert words in done.stdout
    assert said(done) == ["scored studies without labels: 1"]
    out = mmclip.folder / "mmclip-out"
    record = json.loads((out / "run.json").read_text())
    assert set(record["outputs"]) == {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} - {
        "run.json", ".lock", *(str(path.relative_to(out)) for path in out.rglob("shard-*.parquet"))
    }  # fmt: skip
    assert NOTICE in (out / "report.html").read_text("utf-8")
    assert (mmclip.folder.parent / "home" / ".config" / "mmclip" / "site.key").stat().st_mode & 0o777 == 0o600


def test_heatmaps_lie_in_private_and_in_the_report_only_when_asked(mmclip, studies, toy):
    command = ["score", studies / "synthetic", "--prompts", "chest14", "--model", toy]
    out = mmclip.folder / "mmclip-out"
    done = mmclip(*command, "--heatmaps-in-report")
    assert done.returncode == 0, done.stderr
    assert "9 sheets of heatmaps, 9 of them new, in mmclip-out/private/heatmaps" in done.stdout
    assert (out / "report.html").read_text("utf-8").count("data:image/png;base64,") == 9
    assert (out / "report.html").stat().st_mode & 0o077 == 0
    again = mmclip(*command, "--heatmaps", "--json", "--quiet")
    assert json.loads(again.stdout)["heatmaps"] == {"drawn": 0, "reused": 9}
    assert "data:image/png" not in (out / "report.html").read_text("utf-8")
    assert (out / "report.html").stat().st_mode & 0o044
    pictures = [path for path in mmclip.folder.rglob("*") if path.is_file() and path.read_bytes()[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0")]
    assert {path.parent for path in pictures} == {out / "private" / "heatmaps"}
    assert len(pictures) == 9


def test_json_is_one_object_and_a_damaged_file_is_exit_1(mmclip, studies, toy, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(studies / "synthetic", folder)
    (folder / "DOE_JOHN.dcm").write_bytes((folder / "synthetic_01.dcm").read_bytes()[:9000])
    done = mmclip("score", folder, "--prompts", "chest14", "--model", toy, "--json", "--quiet", "--out", "new/folder")
    assert done.returncode == 1
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["notice"] == NOTICE
    assert found["counts"]["reasons"] == {"truncated": 1}
    assert len(found["scores"]) == found["counts"]["studies"] == 9
    assert "DOE" not in done.stdout
    again = mmclip("score", folder, "--prompts", "chest14", "--model", toy, "--quiet", "--out", "new/folder")
    assert again.returncode == 1
    assert "10 files, 10 of them known from an earlier run" in again.stdout
    assert "1 of them failed (damaged or unreadable), so this ends with exit code 1: images.csv has a row for each" in again.stdout
    assert "truncated       1  failed: " in again.stdout


def test_a_policy_reject_is_exit_1_only_when_asked(mmclip, studies, toy, tmp_path):
    only_ct = tmp_path / "in"
    only_ct.mkdir()
    shutil.copy(studies / "real" / "693_J2KR.dcm", only_ct)
    assert mmclip("score", only_ct, "--prompts", "chest14", "--model", toy, "--fail-on", "reject").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere", "--prompts", "chest14"], 66, "input 1 of 1 does not exist"),
        ([".", "--prompts", "chest41"], 66, "chest14"),
        ([".", "--prompts", "chest14", "--model", "huge"], 66, "no model named huge"),
        ([".", "--prompts", "chest14", "--labels", "bad.csv"], 78, "row 1 of the labels, column 'Edema', holds text"),
        ([".", "--prompts", "bad.yaml"], 78, "line 3"),
        (["."], 2, "--prompts"),
        ([".", "--prompts", "chest14", "--batch-size", "0"], 2, "batch-size"),
        (
            [".", "--prompts", "chest14", "--limit", "second=9", "--limit", "file_mb=-1"],
            2,
            "did you mean seconds?; file_mb should be",
        ),
        ([".", "--prompts", "chest14", "--out", "bad.yaml"], 73, "cannot make the output folder"),
    ],
    ids=["input", "prompts", "model", "labels", "recipe", "no prompts", "batch", "limit", "output"],
)
def test_what_cannot_be_done_is_said_in_one_line(mmclip, arguments, code, words):
    (mmclip.folder / "bad.csv").write_text("StudyInstanceUID,Edema\n1.2,severe\n")
    (mmclip.folder / "bad.yaml").write_text("version: 1\nfindings:\n  A: {positiv: [x]}\n")
    done = mmclip("score", *arguments)
    assert done.returncode == code
    assert done.stdout == ""
    (line,) = said(done)
    assert words in line


def test_without_a_home_a_key_of_one_s_own_serves(mmclip, toy):
    (mmclip.folder / "empty").mkdir()
    arguments = ["score", "empty", "--prompts", "chest14", "--model", toy]
    done = mmclip(*arguments, HOME="/dev/null")
    assert done.returncode == 73
    assert "MMCLIP_SITE_KEY" in said(done)[0]
    done = mmclip(*arguments, HOME="/dev/null", MMCLIP_SITE_KEY="mine")
    assert done.returncode == 0, "an empty folder is no error"
    assert "0 files: 0 scored" in done.stdout
    assert pl.read_parquet(mmclip.folder / "mmclip-out" / "scores.parquet").height == 0


def test_a_second_run_on_one_folder_leaves_at_once(mmclip, toy):
    (mmclip.folder / "empty").mkdir()
    with locked(mmclip.folder / "mmclip-out"):
        done = mmclip("score", "empty", "--prompts", "chest14", "--model", toy)
    assert done.returncode == 75
    assert "another run" in said(done)[0]


def test_a_dry_run_writes_nothing(mmclip, studies, toy):
    done = mmclip("score", studies, "--prompts", "chest14", "--model", toy, "--dry-run")
    assert done.returncode == 0
    assert done.stdout == "17 files: 0 known, 17 to read, 0 left out unopened\n"
    assert not (mmclip.folder / "mmclip-out").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_run_and_keeps_what_was_done(mmclip, toy, number, code):
    many = mmclip.folder / "many.csv"
    many.write_text("file\n" + "".join(f"{k}.png\n" for k in range(4000)))
    # Small pictures, but so many that the signal, sent after the first part, arrives in their midst
    for k, noise in enumerate(np.random.default_rng(0).integers(0, 256, (4000, 64, 64), dtype=np.uint8)):
        Image.fromarray(noise).save(mmclip.folder / f"{k}.png", compress_level=0)
    command = [SCRIPT, "score", many, "--prompts", "chest14", "--model", toy, "--workers", "1"]
    with subprocess.Popen(
        command, cwd=mmclip.folder, env=mmclip.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        table = mmclip.folder / "mmclip-out" / "table"
        until = time.monotonic() + 90
        while not list(table.rglob("shard-*.parquet")) and time.monotonic() < until and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(number)
        stdout, stderr = run.communicate(timeout=100)
    assert run.returncode == code, stderr
    assert stdout == ""
    assert "what was done is kept" in stderr
    assert not (mmclip.folder / "mmclip-out" / "run.json").exists()
    assert sum(pl.read_parquet(part)["features"].count() for part in table.rglob("shard-*.parquet")) > 0


def test_help_is_quick_and_offers_no_stubs(mmclip):
    done = mmclip("score", "--help")
    assert done.returncode == 0
    promised = (
        "--prompts --model --labels --out --aggregate --retain-uids --min-age --limit --heatmaps --fail-on --dry-run --keep --follow-links"
    )
    for option in promised.split():
        assert option in done.stdout
    for option in ("--backend", "--sr", "--engine"):
        assert option not in done.stdout


def test_a_folder_in_which_nothing_can_be_scored_says_so(mmclip, toy):
    mixed = mmclip.folder / "mixed"
    mixed.mkdir()
    Image.new("L", (64, 64), 90).save(mixed / "a.png")
    (mixed / "notes.bin").write_bytes(b"no image at all " * 20)
    done = mmclip("score", "mixed", "--prompts", "chest14", "--model", toy, "--quiet", "--out", "mixed")
    assert done.returncode == 0, done.stderr
    assert "nothing was scored; of not_dicom:" in done.stdout


def test_labels_that_match_nothing_are_told_with_the_results(mmclip, studies, toy):
    (mmclip.folder / "labels.csv").write_text("StudyInstanceUID,Pneumonia\n1.2.3,1\n1.2.4,0\n")
    done = mmclip("score", studies / "synthetic", "--prompts", "chest14", "--model", toy, "--labels", "labels.csv", "--quiet")
    assert done.returncode == 78, done.stderr
    assert "no row of the labels matches a scored study, so there are no metrics (exit code 78): they are joined by" in done.stdout
    assert "a key of the labels has the form 9.9.9" in done.stdout
    assert "AUROC" not in done.stdout
