"""One place where errors become one line and an exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import ConfigError, EngineError, Fault, InputMissing, LockHeld, OutputError, ReadError, RecipeError, UsageError
from mmclip_cli.app import VERBS, _exit_code

SCRIPT = Path(sys.executable).with_name("mmclip")
SECRET = "DOE^JANE 1.2.840.999"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (InputMissing("x"), 66),
        (EngineError("x"), 70),
        (OutputError("x"), 73),
        (ReadError("x"), 74),
        (LockHeld("x"), 75),
        (ConfigError("x"), 78),
        (RecipeError("x.yaml", [Fault(1, "a", "wrong")]), 78),
        (ValueError(SECRET), 70),
        (MemoryError(SECRET), 70),
        (RecursionError(SECRET), 70),
        (PermissionError(13, "Permission denied", SECRET), 74),
        (OSError(28, "No space left on device", SECRET), 74),
        (SystemExit(3), 3),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else str(each),
)
def test_every_error_has_its_exit_code_and_at_most_one_line(error, code, capsys):
    assert _exit_code(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == (0 if isinstance(error, SystemExit) else 1)
    assert SECRET not in err


@pytest.mark.parametrize(("words", "place", "found"), [("mmclip sco", 1, "score"), ("mmclip score --prom", 2, "--prompts")])
def test_a_shell_may_ask_for_completions(words, place, found):
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(place), "_MMCLIP_COMPLETE": "complete_bash"}
    done = subprocess.run([SCRIPT], env={**os.environ, **asked}, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.split()) == (0, [found])


def test_an_unexpected_error_names_type_module_and_line_but_no_value(capsys):
    from engine.recipe.document import read_document

    try:
        read_document(None)
    except TypeError as error:
        assert _exit_code(error) == 70
    line = json.loads(capsys.readouterr().err)
    assert line["message"].startswith("internal error: TypeError in engine.recipe.document, line ")
    assert "MMCLIP_DEBUG=1" in line["message"]


def test_a_traceback_only_where_it_is_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("MMCLIP_DEBUG", "1")
    _exit_code(ValueError("told on request"))
    assert "ValueError: told on request" in capsys.readouterr().err


def test_faults_of_a_recipe_are_also_told_one_by_one_to_machines(capsys):
    _exit_code(RecipeError("x.yaml", [Fault(2, "b", "wrong"), Fault(1, "a", "wrong")]))
    assert json.loads(capsys.readouterr().err)["faults"] == ["line 1: a: wrong", "line 2: b: wrong"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scroe"], "Did you mean 'score'"),
        (["recipes", "shw"], "Did you mean 'show'"),
        (["pretrain"], "Missing argument 'RECIPE|TABLE'"),
        (["pretrain", "tiny", "--device", "tpu"], "tpu"),
        (["pretrain", "tiny", "--max-steps", "0"], "max-steps"),
        (["doctor", "--frobnicate"], "--frobnicate"),
        (["pretrain", "tiny", "--set", "stepz=3"], "Try: steps"),
    ],
)
def test_usage_errors_are_one_line_and_2(mmclip, arguments, words):
    done = mmclip(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    line = json.loads(done.stderr)
    assert words in line["message"]
    assert (line["level"], line["exit_code"]) == ("error", 2)


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        (["scroe"], "Did you mean 'score'. See mmclip --help."),
        (["score"], "See mmclip score --help."),
        (["recipes", "shw"], "See mmclip recipes --help."),
        (["score", "x", "--prompt", "chest14"], "See mmclip score --help."),
    ],
)
def test_a_usage_error_names_the_help_that_helps(mmclip, arguments, end):
    assert json.loads(mmclip(*arguments).stderr)["message"].endswith(end)


def test_the_list_of_verbs_cuts_no_sentence_short(mmclip):
    pages = [mmclip(*words, "--help").stdout for words in ([], ["recipes"], ["models"])]
    listed = [page.partition("Commands:")[2] for page in pages]
    assert all(each.strip() for each in listed)
    assert [line for each in listed for line in each.splitlines() if line.endswith("...")] == []


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("recipes", "models")])
def test_help_ends_with_examples_of_the_verb(mmclip, verb):
    examples = mmclip(verb, "--help").stdout.partition("Examples:")[2].strip().splitlines()
    assert examples
    assert all(line.strip().startswith(f"mmclip {verb}") for line in examples)


@pytest.mark.parametrize("arguments", [[], ["recipes"], ["models"]])
def test_a_bare_verb_shows_its_help_and_is_a_usage_error(mmclip, arguments):
    done = mmclip(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: mmclip")


WATCHED = """
import contextlib, io, resource, sys
from mmclip_cli import app
said = io.StringIO()
with contextlib.redirect_stdout(said):
    code = app.run(sys.argv[1:])
assert code == 0 and said.getvalue().startswith("Usage: mmclip") and "\\x1b" not in said.getvalue(), said.getvalue()
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, *sys.modules)
"""
BARE = "import typer, resource; used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime)"


def said_by(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True, timeout=60).stdout.split()


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_quick_and_plain(verb):
    ratios = []
    for _ in range(3):
        bare = float(said_by(BARE)[0])
        seconds, *modules = said_by(WATCHED, *([verb] if verb else []), "--help")
        ratios.append(float(seconds) / bare)
        assert not {name.split(".")[0] for name in modules} & {
            "torch",
            "transformers",
            "polars",
            "numpy",
            "spacy",
            "pydicom",
            "rich",
            "engine",
        }
    assert min(ratios) < 5  # 1.3 to 3 measured; 5 is 0.3 s where importing Typer takes 0.06 s


def test_the_version_is_the_package_s(mmclip):
    from importlib.metadata import version

    assert mmclip("--version").stdout == f"mmclip {version('mmclip')}\n"


def test_nobody_reading_is_no_error_to_talk_about(mmclip):
    process = subprocess.Popen(
        [SCRIPT, "recipes", "show", "mimic_padchest"],
        env=mmclip.environment,
        cwd=mmclip.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=100) == 141


ENDLESS = """
import sys, time
from pathlib import Path
from mmclip_cli import app, console

def steps():
    try:
        for step in range(10_000):
            yield step
            time.sleep(0.01)
    finally:
        Path("committed").write_text(str(step))

def command():
    with console.closing(steps()) as watched:
        for step in watched:
            if step == 3:
                print("going", flush=True)

app.app.command("endless")(command)
sys.exit(app.run(["endless"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_what_was_done_is_committed(tmp_path, number, code):
    process = subprocess.Popen([sys.executable, "-c", ENDLESS], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "going\n"
    time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=100)
    assert process.returncode == code
    assert int((tmp_path / "committed").read_text()) >= 3
    assert json.loads(err)["message"] == f"stopped by {number.name}; what was done is kept"


def test_an_output_that_cannot_be_written_is_74(mmclip):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [SCRIPT, "recipes", "list"], env=mmclip.environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=100
        )
    assert done.returncode == 74
    assert "No space left" in json.loads(done.stderr)["message"]
