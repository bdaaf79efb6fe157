"""`mmclip score` where nobody watches: closed and full streams, a disk that fills, a clock that jumps, kills, damage between runs."""

import json
import os
import shlex
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

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, limits and streams of Linux")
SCRIPT = Path(sys.executable).with_name("mmclip")
TABLES = ("scores.csv", "images.csv", "scores.parquet", "images.parquet")


@pytest.fixture(scope="module")
def few(make_studies, tmp_path_factory):
    """Three drawn studies and a file that is cut short."""
    folder = tmp_path_factory.mktemp("few")
    make_studies.make_synthetic(folder, each=1)
    (folder / "cut.dcm").write_bytes((folder / "synthetic_01.dcm").read_bytes()[:9000])
    return folder


@pytest.fixture(scope="module")
def command_line(toy):
    """Scores with the toy model, by the installed command."""
    return shlex.join([str(SCRIPT), "score", "--prompts", "chest14", "--model", str(toy), "--fail-on", "never"])


def run_in(folder, line, **environment):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MMCLIP_", "XDG_"))}
    environment = {**clean, "HOME": str(folder), "MMCLIP_SITE_KEY": "a key for tests", **environment}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=100)


@pytest.fixture
def shell(tmp_path, command_line):
    """Type a command line into bash in an empty folder; SCORE stands for scoring with the toy model."""
    return lambda line: run_in(tmp_path, line.replace("SCORE", command_line))


@pytest.fixture(scope="module")
def usual(few, command_line, tmp_path_factory):
    """The output folder of a run with nothing in its way."""
    folder = tmp_path_factory.mktemp("usual")
    assert run_in(folder, f"{command_line} {few} --out out --quiet").returncode == 0
    return folder / "out"


def tables_of(out):
    """The bytes of a run's tables."""
    return {name: (out / name).read_bytes() for name in TABLES}


def said(text):
    return [json.loads(line)["message"] for line in text.splitlines()]


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "2>/dev/full | head -c 1"], ids=["closed", "a full log, and a reader who leaves"])
def test_streams_that_are_closed_or_full_cost_no_result(shell, few, usual, tmp_path, streams):
    done = shell(f"SCORE {few} {few} --out out {streams}")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert pl.read_csv(tmp_path / "out" / "scores.csv").equals(pl.read_csv(usual / "scores.csv"))


def test_an_error_that_nobody_can_be_told_is_still_an_exit_code(shell):
    assert shell("unset PYTHONUNBUFFERED; SCORE nowhere 2>/dev/full").returncode == 66


def test_a_bare_environment_a_strict_umask_and_no_folder_to_stand_in_change_no_byte(shell, few, usual, tmp_path):
    out = tmp_path / "out"
    paths = f"PYTHONPATH={os.environ['PYTHONPATH']} " if "PYTHONPATH" in os.environ else ""
    bare = f"env -i LC_ALL=C {paths}MMCLIP_SITE_KEY='a key for tests' SCORE {few} --out {out} --quiet"
    done = shell(f"umask 077; mkdir gone; cd gone; rmdir ../gone; {bare} <&-")
    assert done.returncode == 0, done.stderr
    assert tables_of(out) == tables_of(usual)
    assert not [path for path in (out, *out.rglob("*")) if path.stat().st_mode & 0o077]


def test_a_disk_that_fills_is_said_and_leaves_the_last_results(shell, few, usual, tmp_path):
    shutil.copytree(usual, tmp_path / "out")
    (tmp_path / "in").mkdir()
    shutil.copy(few / "synthetic_01.dcm", tmp_path / "in")
    done = shell("ulimit -f 1; SCORE in --out fresh --quiet")  # a kilobyte a file: Linux refuses the rest as a full disk would
    assert done.returncode == 73
    (message,) = said(done.stderr)
    assert "cannot write shard-" in message and "File too large" in message
    assert [path.name for path in (tmp_path / "fresh").rglob("*") if path.is_file()] == [".lock"]
    done = shell("ulimit -f 4; SCORE in --out out --quiet")
    assert done.returncode == 73
    assert not list((tmp_path / "out").rglob("*.part"))
    assert tables_of(tmp_path / "out") == tables_of(usual), "the last results stay"
    assert (tmp_path / "out" / "run.json").exists()


def test_a_clock_that_jumps_changes_no_byte(shell, few, usual, tmp_path):
    if not shutil.which("faketime"):
        pytest.skip("needs faketime")
    done = shell(f"faketime -f '@2038-01-19 03:14:05' SCORE {few} --out out --json --quiet")
    assert done.returncode == 0, done.stderr
    assert tables_of(tmp_path / "out") == tables_of(usual)
    assert all(0 <= seconds < 100 for seconds in json.loads(done.stdout)["seconds"].values())


@pytest.fixture
def pictures(tmp_path):
    """A table of 700 small pictures: more than a part of the image table."""
    lines = ["file"]
    for number, noise in enumerate(np.random.default_rng(0).integers(0, 256, (700, 64, 64), dtype=np.uint8)):
        Image.fromarray(noise).save(tmp_path / f"{number}.png", compress_level=0)
        lines.append(f"{number}.png")
    (tmp_path / "many.csv").write_text("\n".join(lines) + "\n")
    return "many.csv"


def test_kill_9_costs_a_part_at_most_and_leaves_nothing_half_written(shell, pictures, tmp_path, command_line):
    out = tmp_path / "out"
    command = [*shlex.split(command_line), pictures, "--out", "out", "--workers", "1", "--quiet"]
    environment = {**os.environ, "MMCLIP_SITE_KEY": "a key for tests"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as run:
        until = time.monotonic() + 90
        while not list(out.glob("table/*/shard-*.parquet")) and time.monotonic() < until and run.poll() is None:
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    assert not (out / "run.json").exists()
    done = shell(f"SCORE {pictures} --out out --workers 1 --json --quiet")
    assert json.loads(done.stdout)["counts"]["reused"] >= 512
    assert shell(f"SCORE {pictures} --out unbroken --workers 1 --quiet").returncode == 0
    assert tables_of(out) == tables_of(tmp_path / "unbroken")
    assert not list(out.rglob("*.part"))


def test_many_failures_end_the_run_where_that_is_asked(shell, few, tmp_path, usual):
    shutil.copytree(usual, tmp_path / "out")
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / "in" / f"{number}.dcm").write_bytes((few / "cut.dcm").read_bytes() + bytes([number]))
    done = shell("SCORE in --out out --max-failures 5 --workers 1")
    assert done.returncode == 65
    assert "6 files failed, at most 5 may" in said(done.stderr)[0]
    assert tables_of(tmp_path / "out") == tables_of(usual), "the last results stay"


def test_a_turned_bit_and_an_edited_score_are_noticed(shell, few, usual, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(usual, out)
    (part,) = out.glob("table/*/*.parquet")
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 4
    part.write_bytes(content)
    (out / "scores.csv").write_text((out / "scores.csv").read_text().replace(",0.", ",0.9"))
    done = shell(f"SCORE {few} --out out")
    assert said(done.stderr) == [
        "1 damaged shards of the feature cache were left out; their files are read again",
        "scores.csv was changed after the last run had written it; it is replaced",
    ]
    assert tables_of(out) == tables_of(usual)


def test_one_changed_byte_of_the_recipe_gives_every_row_anew(few, tmp_path, toy):
    recipe = tmp_path / "prompts.yaml"
    found = []
    for word in ("edema", "ebema"):
        recipe.write_text(f"version: 1\nfindings:\n  Edema: {{positive: [{word}], negative: [no]}}\n")
        command = [str(SCRIPT), "score", str(few), "--prompts", str(recipe), "--model", str(toy), "--fail-on", "never", "--out", "out"]
        assert run_in(tmp_path, shlex.join(command)).returncode == 0
        found.append(pl.read_parquet(tmp_path / "out" / "images.parquet").filter(pl.col("outcome") == "score")["Edema"])
    assert (found[0] != found[1]).all()
