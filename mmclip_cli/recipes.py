"""`mmclip recipes`: list the recipes that come with mmclip, show one, check any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mmclip_cli import console
from mmclip_cli.options import Json, Settings

if TYPE_CHECKING:
    from engine.errors import Fault

app = typer.Typer(help="List, show and check recipes.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A file, or the name of a shipped recipe with or without .yaml.", show_default=False)]


@dataclass(frozen=True)
class Report:
    """What was found wrong with one recipe, and which of its data are not there."""

    name: str
    kind: str | None
    faults: tuple[Fault, ...] = ()
    absent: tuple[str, ...] = ()


@app.command("list")
def list_recipes(json: Json = False) -> None:
    """List the recipes that come with mmclip."""
    from engine.recipe.kinds import kind_of
    from engine.recipe.loader import read_recipe, recipe_name, shipped_recipes

    found = []
    for path in shipped_recipes():
        values = read_recipe(path)[1].values
        top = values if isinstance(values, dict) else {}
        found.append({"name": recipe_name(path), "kind": kind_of(values), "version": top.get("version"), "source": top.get("source") or ""})
    if json:
        console.say_json({"recipes": found})
    else:
        console.table(["name", "kind", "version", "source"], [[*each.values()] for each in found])


@app.command()
def show(name: Name, json: Json = False, settings: Settings = None) -> None:
    """Print a recipe as it is written; with --json, whole, with every default and override in its place."""
    from engine.errors import UsageError
    from engine.recipe.kinds import KINDS, kind_of
    from engine.recipe.loader import check_recipe, read_recipe, recipe_name

    path, document = read_recipe(name)
    if not json:
        if settings:
            raise UsageError("--set changes nothing in the text of a recipe", hint="--json, which shows the recipe as a run would read it")
        console.say(path.read_text("utf-8-sig", errors="backslashreplace").rstrip("\n"))
        return
    kind = kind_of(document.values) or "pretraining"
    recipe = check_recipe(document, KINDS[kind], settings or (), name=path.name)
    console.say_json({"name": recipe_name(path), "kind": kind, "recipe": recipe.model_dump(mode="json")})


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Recipes; all shipped ones if none is named.")] = None,
    json: Json = False,
    settings: Settings = None,
) -> None:
    """Report every fault of a recipe, each with its line, and which of its data are not there."""
    from engine.errors import ConfigError, EngineError, Fault, RecipeError
    from engine.recipe.loader import shipped_recipes

    reports: list[Report] = []
    code = 0
    for name in names or [str(path) for path in shipped_recipes()]:
        try:
            reports.append(_checked(name, settings or []))
        except RecipeError as error:
            code = ConfigError.exit_code
            reports.append(Report(error.recipe, None, faults=error.faults))
        except EngineError as error:
            if names and len(names) == 1:
                raise
            code = code or error.exit_code
            reports.append(Report(name, None, faults=(Fault(0, "", str(error)),)))
    if json:
        console.say_json({"recipes": reports})
    else:
        for report in reports:
            _say(report)
    raise typer.Exit(code)


def _checked(name: str, settings: list[str]) -> Report:
    from engine.data.sources.published import missing_data
    from engine.recipe.kinds import KINDS, kind_of
    from engine.recipe.loader import check_recipe, read_recipe
    from engine.recipe.pretraining import PretrainRecipe

    path, document = read_recipe(name)
    kind = kind_of(document.values) or "pretraining"
    recipe = check_recipe(document, KINDS[kind], settings, name=path.name)
    absent = missing_data(recipe.sources) if isinstance(recipe, PretrainRecipe) else []
    return Report(path.name, kind, absent=tuple(absent))


def _say(report: Report) -> None:
    count = len(report.faults)
    verdict = f"{count} fault{'s' if count != 1 else ''}" if count else f"a {report.kind} recipe without fault"
    console.say(f"{report.name}: {verdict}")
    for fault in report.faults:
        console.say(f"  {fault}")
    for piece in report.absent:
        console.say(f"  data not here: {piece}")
