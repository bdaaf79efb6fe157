"""The pages are true: their links, commands, options, scripts, exit codes, recipes and lines of Python."""

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
PAGES = {
    page.relative_to(HOUSE).as_posix(): page.read_text("utf-8")
    for page in sorted([*HOUSE.glob("*.md"), *(each for top in ("engine", "recipes", "examples") for each in (HOUSE / top).rglob("*.md"))])
    if "studies" not in page.parts
}
README, OPERATION = PAGES["README.md"], PAGES["examples/README.md"]
UNITS = {name: (HOUSE / "examples" / name).read_text("utf-8") for name in ("mmclip.cron", "mmclip-score.service")}


def commands(program):
    """(page, arguments) of every line `$ ... PROGRAM ...`."""
    for name, text in PAGES.items():
        yield from ((name, line) for line in re.findall(rf"^ *\$ (?:.*\s)?{program} (.*)$", text, re.M))


def mmclip_commands():
    for name, line in commands("mmclip"):
        yield name, re.split(r"\s[12]?>|;", line)[0]
    for name, text in UNITS.items():
        yield from ((name, line) for line in re.findall(r"bin/mmclip (.*)$", text, re.M))


@cache
def help_of(*verb):
    mmclip = Path(sys.executable).with_name("mmclip")
    return subprocess.run([mmclip, *verb, "--help"], check=True, capture_output=True, text=True, timeout=60).stdout


def test_the_readme_has_at_most_two_hundred_lines():
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("where", PAGES)
def test_every_link_leads_somewhere(where):
    folder = (HOUSE / where).parent
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[where]):
        name, _, anchor = link.partition("#")
        if "://" in link:
            continue
        path = (folder / name).resolve() if name else HOUSE / where
        if not path.exists() or (anchor and anchor not in anchors(path)):
            missing.append(link)
    assert missing == []


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("where", [*PAGES, *UNITS])
def test_every_mmclip_command_has_only_options_of_its_verb(where):
    for name, line in mmclip_commands():
        if name != where:
            continue
        words = shlex.split(line)
        verb = words[:2] if words[0] in ("recipes", "models") else words[:1]
        unknown = {word for word in words if word.startswith("--")} - set(re.findall(r"--[\w-]+", help_of(*verb)))
        assert not unknown, line


@pytest.mark.parametrize(("where", "line"), list(commands("python")))
def test_every_script_and_test_of_a_command_is_there(where, line):
    for word in shlex.split(line):
        if word.startswith(("examples/", "tests/", "engine/")) and word != "examples/studies":
            assert (HOUSE / word).exists(), word


@pytest.mark.parametrize("verb", re.findall(r"^\| `mmclip (\w+)", README, re.M))
def test_every_verb_of_the_table_is_there(verb):
    assert help_of(verb).startswith(f"Usage: mmclip {verb}")


def test_every_exit_code_is_explained():
    section = OPERATION.split("## Exit codes")[1].split("\n## ")[0]
    explained = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", section, re.M) for code in row.split(",")}
    raised = {each.exit_code for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.EngineError)}
    assert explained == raised | {0, 1, 130, 141, 143}


def test_the_prompts_of_the_readme_are_a_recipe():
    (lines,) = re.findall(r"```yaml\n(version: 1\nfindings:.*?)```", README, re.S)
    recipe = check_recipe(read_document(lines.encode()), PromptRecipe, name="own.yaml")
    assert list(recipe.findings) == ["Pleural Effusion", "Tuberculosis"]


def test_the_way_back_to_a_file_works(tmp_path):
    (lines,) = re.findall(r"```py\n(.*?)```", OPERATION, re.S)
    out = tmp_path / "mmclip-out"
    (out / "private").mkdir(parents=True)
    named = {"image": ["a", "a", "b"], "file": ["1", "2", "3"]}
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
