"""What README.md and examples/README.md promise is there: files, commands, options, exit codes, the lines of Python."""

import inspect
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from engine import errors
from engine.model.bundle_folder import shipped_models
from engine.recipe.document import read_document
from engine.recipe.loader import check_recipe
from engine.recipe.prompts import PromptRecipe

HOUSE = Path(__file__).resolve().parent.parent
README = (HOUSE / "README.md").read_text("utf-8")
GUIDES = {name: (HOUSE / name).read_text("utf-8") for name in ("README.md", "examples/README.md")}
UNITS = {name: (HOUSE / "examples" / name).read_text("utf-8") for name in ("mmclip.cron", "mmclip-score.service")}


def commands():
    for name, text in GUIDES.items():
        yield from ((name, line) for line in re.findall(r"^\$ (mmclip .*)$", text, re.M))
    for name, text in UNITS.items():
        yield from ((name, "mmclip " + line) for line in re.findall(r"bin/mmclip (.*)$", text, re.M))


@cache
def help_of(*verb):
    mmclip = Path(sys.executable).with_name("mmclip")
    return subprocess.run([mmclip, *verb, "--help"], check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize(("where", "command"), list(commands()))
def test_every_command_is_one_that_mmclip_knows(where, command):
    words = shlex.split(re.split(r"\s[12]?>", command)[0])
    verb = words[1:3] if words[1] in ("recipes", "models") else words[1:2]
    options = {word for word in words if word.startswith("--")}
    assert options <= set(re.findall(r"--[\w-]+", help_of(*verb)))


@pytest.mark.parametrize("verb", re.findall(r"^\| `mmclip (\w+)", README, re.M))
def test_every_verb_of_the_table_is_there(verb):
    assert help_of(verb).startswith(f"Usage: mmclip {verb}")


def test_every_exit_code_is_explained():
    section = README.split("## Exit codes")[1].split("\n## ")[0]
    explained = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", section, re.M) for code in row.split(",")}
    raised = {each.exit_code for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.EngineError)}
    assert explained == raised | {0, 1, 130, 141, 143}


def test_the_prompts_of_one_s_own_are_a_recipe():
    (lines,) = re.findall(r"```yaml\n(version: 1\nfindings:.*?)```", README, re.S)
    recipe = check_recipe(read_document(lines.encode()), PromptRecipe, name="own.yaml")
    assert list(recipe.findings) == ["Pleural Effusion", "Tuberculosis"]


def test_the_way_back_to_a_file_is_as_told(tmp_path):
    (lines,) = re.findall(r"```py\n(.*?)```", README, re.S)
    out = tmp_path / "mmclip-out"
    (out / "private").mkdir(parents=True)
    named = {"image": ["a", "a", "b"]}
    pl.DataFrame({**named, "outcome": ["score", "reject", "reject"], "reason": [None, "truncated", "empty_file"]}).write_parquet(
        out / "images.parquet"
    )
    pl.DataFrame({**named, "path": ["whole.dcm", "cut.dcm", "none.dcm"]}).write_parquet(out / "private" / "files.parquet")
    done = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert re.findall(r"(\w+) +┆ (\w+\.dcm)", done.stdout) == [("truncated", "cut.dcm"), ("empty_file", "none.dcm")], done.stderr


def test_the_lines_of_python_run(tmp_path):
    if "tiny" not in shipped_models():
        pytest.skip("this checkout has no shipped model")
    import data_store

    radiograph = Path(data_store.__file__).parent / "data" / "RG1_UNCR.dcm"
    shutil.copy(radiograph, tmp_path / "chest.dcm")
    (lines,) = re.findall(r"```python\n(.*?)```", README, re.S)
    code = f"{lines}\nprint(tuple(cosines.shape), float(cosines.abs().max()) <= 1.0001)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.stdout == "(1, 2) True\n", done.stderr
