"""`mmclip pretrain`: a recipe and its data -> steps, checkpoints and a model bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmclip_cli import console
from mmclip_cli.options import DryRun, Json, Quiet, Settings

if TYPE_CHECKING:
    from engine.recipe.pretraining import PretrainRecipe


def command(
    recipe: Annotated[str, typer.Argument(help="A file, or the name of a shipped recipe with or without .yaml.", show_default=False)],
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/NAME, after the recipe")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps in all, to be resumed later.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pretrain a model as a recipe says."""
    from engine.data.sources.published import check_published
    from engine.recipe.loader import find_recipe, load_recipe
    from engine.recipe.pretraining import PretrainRecipe

    path = find_recipe(recipe)
    loaded = load_recipe(path, PretrainRecipe, settings or ())
    out = out or Path("runs") / path.stem
    check_published(loaded.sources)
    if dry_run:
        _say_plan(path.stem, loaded, out, json=json)
        return
    _run(path.stem, loaded, out, resume=resume, max_steps=max_steps, device=device, json=json, quiet=quiet)


def _say_plan(name: str, recipe: PretrainRecipe, out: Path, *, json: bool) -> None:
    if json:
        console.say_json({"recipe": name, "out": console.shown(out), "steps": recipe.steps, "settings": recipe.model_dump(mode="json")})
        return
    batch = recipe.batch
    console.say(
        f"{name}: {recipe.steps:,} steps of {batch.paired} images with a report and {batch.unpaired} without, into {console.shown(out)}"
    )


def _run(
    name: str, recipe: PretrainRecipe, out: Path, *, resume: bool, max_steps: int | None, device: str, json: bool, quiet: bool
) -> None:
    """Show the run's events as they come: steps as one line that moves (where nobody watches, a line each 50), the rest as they are."""
    from engine.pretrain import pretrain

    events = pretrain(recipe, out, resume=resume, max_steps=max_steps, device=device)
    last: dict[str, object] = {}
    total = min(recipe.steps, max_steps or recipe.steps)
    with console.closing(events) as watched, console.progress(total, what=name, unit="step", quiet=quiet) as bar:
        for event in watched:
            facts = {each.name: getattr(event, each.name) for each in dataclasses.fields(event)}
            if "losses" not in facts:
                last |= {type(event).__name__.lower(): facts}
                if not quiet:
                    console.log(type(event).__name__.lower(), **facts)
                continue
            step, losses = facts["step"], facts["losses"]
            last["step"] = facts
            bar.update(step - bar.n)
            bar.set_postfix({"loss": f"{facts['loss']:.3f}", **{each: f"{value:.3f}" for each, value in losses.items()}}, refresh=False)
            if bar.disable and not quiet and (step % 50 == 0 or step == total):
                console.log("step", **facts)
    if json:
        console.say_json({"recipe": name, "out": console.shown(out), **last})
    else:
        console.say(console.shown(out))
