"""`mmclip recipes`: list the recipes that come with mmclip, show one, check any."""

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
    """What was found wrong with one recipe, which recipe it builds on and in what it differs, and which of its data are not there."""

    name: str
    kind: str | None
    faults: tuple[Fault, ...] = ()
    absent: tuple[str, ...] = ()
    base: str | None = None
    differs: tuple[str, ...] = ()


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
    """Print a recipe, with all that it takes from its bases.

    As it is written; with --json, every default and override in its place.
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
    """The text of a recipe with everything that its bases give it."""
    import yaml

    assert document.base is not None
    text = yaml.safe_dump(document.values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return f"\n# {document.name}, whole: what it takes from {document.base.name} stands in its place.\n\n{text.rstrip()}"


@app.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE]...", help="Files or shipped names; all shipped ones if none is named.")
    ] = None,
    json: Json = False,
    settings: Settings = None,
) -> None:
    """Report every fault of a recipe, and the data that it lacks.

    Each fault has its line. A recipe that builds on another also says in what it differs from it.
    """
    from engine.errors import ConfigError, EngineError, Fault, RecipeError
    from engine.recipe.loader import recipe_names

    reports: list[Report] = []
    code = 0
    for name in [each for asked in names for each in _each_point(asked)] if names else recipe_names():
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
        told: dict[tuple[str, ...], str] = {}
        for report in reports:
            _say(report, told.setdefault(report.absent, report.name))
    raise typer.Exit(code)


def _each_point(name: str) -> list[str]:
    """A sweep is checked at each of its points; what cannot be read is told when its turn comes."""
    from engine.errors import EngineError
    from engine.recipe.loader import read_recipe

    with contextlib.suppress(EngineError):
        return [f"{name}@{point}" for point in read_recipe(name)[1].points] or [name]
    return [name]


def _checked(name: str, settings: list[str]) -> Report:
    from engine.data.sources.published import missing_data
    from engine.recipe.loader import KINDS, check_recipe, kind_of, label, read_recipe

    path, document = read_recipe(name)
    kind = kind_of(document.values) or "pretraining"
    called = label(path, document)
    recipe = check_recipe(document, KINDS[kind], settings, name=called)
    absent = missing_data(getattr(recipe, "sources", ()))
    base = document.base.name if document.base is not None else None
    return Report(called, kind, absent=tuple(absent), base=base, differs=tuple(_differences(document)))


def _differences(document: Document) -> list[str]:
    """`attmim.ratio: 0.75 -> 0.5` for each key in which a recipe differs from its base."""
    from engine.recipe.document import dotted
    from engine.recipe.lineage import differences, word_of

    def told(value: Value) -> str:
        return f"{len(value)} values" if isinstance(value, list | dict) else word_of(value)

    return [f"{dotted(path)}: {told(was)} -> {told(now)}" for path, (was, now) in differences(document).items()]


def _say(report: Report, first: str) -> None:
    """`first` names the report that told the same pieces of data before; its own name where it is the first."""
    count = len(report.faults)
    verdict = f"{count} fault{'s' if count != 1 else ''}" if count else f"a {report.kind} recipe without fault"
    console.say(f"{report.name}: {verdict}")
    for fault in report.faults:
        console.say(f"  {fault}")
    if report.base:
        console.say(f"  {report.base}, with {'; '.join(report.differs) or 'no difference'}")
    if report.absent and first != report.name:
        console.say(f"  data not here: as for {first}")
        return
    for piece in report.absent:
        console.say(f"  data not here: {piece}")
