"""`mmclip recipes`: list, show and check recipes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mmclip_cli import console
from mmclip_cli.options import Json, Settings

if TYPE_CHECKING:
    from engine.errors import Fault
    from engine.recipe.document import Document, Value

app = typer.Typer(help="List, show and check recipes.", no_args_is_help=True)

Name = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A file, or the name of a shipped recipe with or without .yaml.", show_default=False)
]


@dataclass(frozen=True)
class Report:
    """The check of one recipe: its faults, its base and the keys that differ from it, and the data that is missing."""

    name: str
    kind: str | None
    faults: tuple[Fault, ...] = ()
    absent: tuple[str, ...] = ()
    base: str | None = None
    differs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@app.command("list")
def list_recipes(json: Json = False) -> None:
    """List the recipes that come with mmclip."""
    from engine.recipe.loader import kind_of, read_recipe, recipe_names

    found = []
    for name in recipe_names():
        values = read_recipe(name)[1].values
        top = values if isinstance(values, dict) else {}
        found.append({"name": name, "kind": kind_of(values), "version": top.get("version"), "source": top.get("source") or ""})
    if json:
        console.say_json({"recipes": found})
    else:
        console.table(["name", "kind", "version", "source"], [[*each.values()] for each in found])


@app.command()
def show(name: Name, json: Json = False, settings: Settings = None) -> None:
    """Print a recipe, with everything it inherits from its bases.

    Without --json as written in the file; with --json after defaults and overrides.
    """
    from engine.errors import UsageError
    from engine.recipe.loader import KINDS, check_recipe, kind_of, label, read_recipe

    path, document = read_recipe(name)
    if not json:
        if settings:
            raise UsageError("--set changes nothing in the text of a recipe", hint="--json, which shows the recipe as a run would read it")
        console.say(path.read_text("utf-8-sig", errors="backslashreplace").rstrip("\n"))
        if document.base is not None and not document.points:
            console.say(_whole(document))
        return
    kind = kind_of(document.values) or "pretraining"
    recipe = check_recipe(document, KINDS[kind], settings or (), name=label(path, document))
    base = {"base": document.base.name, "differs": _differences(document)} if document.base is not None else {}
    console.say_json({"name": document.name, "kind": kind, **base, "recipe": recipe.model_dump(mode="json")})


def _whole(document: Document) -> str:
    """The text of a recipe merged with its bases."""
    import yaml

    assert document.base is not None
    text = yaml.safe_dump(document.values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return f"\n# {document.name}, merged with its base {document.base.name}:\n\n{text.rstrip()}"


@app.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE]...", help="Files or shipped names; all shipped ones if none is named.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Also report phrases that are too long for this model.", show_default=False),
    ] = None,
    json: Json = False,
    settings: Settings = None,
) -> None:
    """Report every fault of a recipe, and missing data.

    Each fault has its line. For a recipe with a base, the keys that differ from it are listed.
    """
    from engine.errors import ConfigError, EngineError, Fault, RecipeError
    from engine.recipe.loader import recipe_names

    reports: list[Report] = []
    code = 0
    for name in [each for asked in names for each in _each_point(asked)] if names else recipe_names():
        try:
            reports.append(_checked(name, settings or [], model))
            code = code or (ConfigError.exit_code if reports[-1].faults else 0)
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
        first: dict[tuple[str, ...], str] = {}  # missing data -> the first recipe that lacks it
        for report in reports:
            _say(report, first.setdefault(report.absent, report.name))
    raise typer.Exit(code)


def _each_point(name: str) -> list[str]:
    """The recipes that a name represents: each point of a sweep. One that cannot be read is returned as it is and reported later."""
    from engine.errors import EngineError
    from engine.recipe.loader import read_recipe

    with contextlib.suppress(EngineError):
        return [f"{name}@{point}" for point in read_recipe(name)[1].points] or [name]
    return [name]


def _checked(name: str, settings: list[str], model: str | None) -> Report:
    from engine.data.sources.published import missing_data
    from engine.errors import ConfigError, Fault
    from engine.recipe.loader import KINDS, check_recipe, kind_of, label, read_recipe

    path, document = read_recipe(name)
    kind = kind_of(document.values) or "pretraining"
    called = label(path, document)
    recipe = check_recipe(document, KINDS[kind], settings, name=called)
    absent = missing_data(getattr(recipe, "sources", ()))
    base = document.base.name if document.base is not None else None
    faults: list[Fault] = []
    warnings: list[str] = []
    if model is not None:
        from engine.scoring.targets import prompt_warnings

        try:
            warnings = prompt_warnings(recipe, model)
        except ConfigError as error:
            faults = [Fault(0, "", str(error))]
    return Report(called, kind, tuple(faults), tuple(absent), base, tuple(_differences(document)), tuple(warnings))


def _differences(document: Document) -> list[str]:
    """`attmim.ratio: 0.75 -> 0.5` for each key that differs from the base."""
    from engine.recipe.composition import differences, word_of
    from engine.recipe.document import dotted

    def brief(value: Value) -> str:
        return f"{len(value)} values" if isinstance(value, list | dict) else word_of(value)

    return [f"{dotted(path)}: {brief(was)} -> {brief(now)}" for path, (was, now) in differences(document).items()]


def _say(report: Report, first: str) -> None:
    """Print a report. `first`: the first recipe with the same missing data; the list is printed for that one only."""
    count = len(report.faults)
    verdict = f"{count} fault{'s' if count != 1 else ''}" if count else f"a {report.kind} recipe without faults"
    console.say(f"{report.name}: {verdict}")
    for fault in report.faults:
        console.say(f"  {fault}")
    if report.base:
        console.say(f"  {report.base}, with {'; '.join(report.differs) or 'no difference'}")
    for warning in report.warnings:
        console.say(f"  warning: {warning}")
    if report.absent and first != report.name:
        console.say(f"  missing data: as for {first}")
        return
    for piece in report.absent:
        console.say(f"  missing data: {piece}")
