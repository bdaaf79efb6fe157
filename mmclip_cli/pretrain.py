"""`mmclip pretrain`: a recipe and its data -> steps, checkpoints and a model bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from json import dumps as as_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmclip_cli import console
from mmclip_cli.options import DryRun, Json, Quiet, Settings

if TYPE_CHECKING:
    from engine.pretrain import Event
    from engine.recipe.pretraining import PretrainRecipe

EXAMPLES = (
    "mmclip pretrain mimic_padchest --dry-run",
    "mmclip pretrain images.csv --dry-run",
    "mmclip pretrain own.yaml --max-steps 20 --out runs/try",
    "mmclip pretrain own.yaml --out runs/own --resume",
)
TABLES = (".csv", ".tsv", ".parquet", ".csv.gz")
OWN_TABLE = "pretrain_table"
"""The shipped recipe that `mmclip pretrain TABLE` runs."""
LOG_SECONDS = 10
"""Seconds between two log lines of images or steps where stderr is no terminal; out/log.jsonl has every step."""


def command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|TABLE",
            help="A recipe (a file or a shipped name), or a table (CSV, Parquet) of images with a column report.",
            show_default=False,
        ),
    ],
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the run.", show_default="runs/NAME, after the recipe")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of prepared data, as written by `mmclip ingest`.", show_default="OUT/data"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint of the run in --out.")] = False,
    force_resume: Annotated[
        bool,
        typer.Option(
            "--force-resume", help="Continue even if recipe, data or code have changed since the checkpoint; run.json records it."
        ),
    ] = False,
    max_steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after N steps in total; --resume continues later.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device that trains.")] = "auto",
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pretrain a model on images and reports.

    On eight GPUs: torchrun --standalone --nproc-per-node 8 --no-python mmclip pretrain RECIPE
    """
    from engine.data.sources.published import check_published
    from engine.errors import InputMissing
    from engine.recipe.loader import load_recipe, run_name
    from engine.recipe.pretraining import PretrainRecipe

    table = Path(recipe) if recipe.endswith(TABLES) else None
    name = run_name(recipe) if table is None else table.name.partition(".")[0]
    own = [f"sources.0.file={as_json(str(table))}"] if table is not None else []
    loaded = load_recipe(recipe if table is None else OWN_TABLE, PretrainRecipe, [*own, *(settings or ())])
    if table is not None and not table.is_file():
        raise InputMissing("there is no such table of images and reports", hint="check the path; mmclip recipes list names the recipes")
    out = out or Path("runs") / name
    if resume and not settings:
        from mmclip_cli.resume import own_recipe

        loaded = own_recipe(out, loaded, quiet=quiet)
    check_published(loaded.sources)
    if dry_run:
        _plan(name, loaded, out, data, device, json=json, quiet=quiet)
        return
    _run(name, loaded, out, data=data, resume=resume, force=force_resume, max_steps=max_steps, device=device, json=json, quiet=quiet)


def _plan(name: str, recipe: PretrainRecipe, out: Path, data: Path | None, device: str, *, json: bool, quiet: bool) -> None:
    """Check what the run checks before its first image, and print what it would train on."""
    from engine.data.pretrain_plan import PretrainPlan
    from engine.pretrain import pretrain

    (plan,) = pretrain(recipe, out, data=data, device=device, dry_run=True)
    assert isinstance(plan, PretrainPlan)  # the only event of a dry run
    if json:
        console.say_json({"recipe": name, "out": out, "steps": recipe.steps, "settings": recipe.model_dump(mode="json"), "plan": plan})
        return
    batch = recipe.batch
    console.say(
        f"{name}: {recipe.steps:,} steps of {batch.paired} images with a report and {batch.unpaired} without, into {console.shown(out)}"
    )
    console.say(
        f"{plan.paired:,} training images with text and {plan.unpaired:,} without, of {plan.patients:,} patients; {plan.texts:,} different "
        f"texts; {plan.held_out:,} images held out; {plan.store_bytes / 1e6:,.0f} MB of pixels"
    )
    if plan.dropped:
        console.say(f"left out: {', '.join(f'{reason} {count}' for reason, count in plan.dropped.items())}")
    for notice in plan.notices if not quiet else ():
        console.log(notice, level="warning")


def _run(
    name: str,
    recipe: PretrainRecipe,
    out: Path,
    *,
    data: Path | None,
    resume: bool,
    force: bool,
    max_steps: int | None,
    device: str,
    json: bool,
    quiet: bool,
) -> None:
    """Show the run's events, images first, then steps: a progress bar on a terminal, else a log line every LOG_SECONDS.

    Under torchrun only the first process yields events.
    """
    from engine.data.build_store import StoreProgress
    from engine.data.pretrain_data import PretrainDataSummary
    from engine.pretrain import PretrainFinished, PretrainStarted, pretrain
    from engine.tables.run_log import event_name
    from engine.training.checkpoint import Saved
    from engine.training.loop import Step
    from engine.training.monitor import FigureWritten, Vitals

    events = pretrain(recipe, out, data=data, resume=resume, force=force, max_steps=max_steps, device=device)
    last: dict[str, object] = {}
    logged = vitals_logged = float("-inf")
    filled = time.monotonic()
    stop = recipe.steps
    if not quiet and os.environ.get("RANK", "0") == "0":
        console.log("preparing the recipe's images and texts")
    with console.closing(events) as watched, contextlib.ExitStack() as shown:
        bar = preparing = None
        for event in watched:
            if isinstance(event, StoreProgress):
                if preparing is None:
                    preparing = shown.enter_context(console.progress(event.total, what="images", unit="image", quiet=quiet))
                preparing.update(event.done - preparing.n)
                if preparing.disable and not quiet and time.monotonic() - filled >= LOG_SECONDS:
                    filled = time.monotonic()
                    console.log("preparing images", **_facts(event))
                continue
            if isinstance(event, PretrainDataSummary) and preparing is not None:
                preparing.close()
            last[event_name(event)] = event
            if isinstance(event, Step):
                if bar is not None:
                    shown_losses = {each: f"{loss:.3f}" for each, loss in event.losses.items()}
                    bar.set_postfix(shown_losses | {"loss": f"{event.loss:.3f}"}, refresh=False)
                    bar.update(event.step - bar.n)
                elif not quiet and (time.monotonic() - logged >= LOG_SECONDS or event.step == stop):
                    logged = time.monotonic()
                    console.log(f"step {event.step} of {stop}", **_facts(event))
                continue
            if isinstance(event, PretrainStarted):
                stop = event.stop
                if console.on_terminal() and not quiet:
                    bar = shown.enter_context(console.progress(stop, what=name, unit="step", start=event.start))
            if isinstance(event, Vitals):
                if bar is not None or time.monotonic() - vitals_logged < LOG_SECONDS:
                    continue
                vitals_logged = time.monotonic()
            if not quiet and not isinstance(event, PretrainFinished) and not (bar is not None and isinstance(event, Saved | FigureWritten)):
                console.log(event_name(event), **_facts(event))
    finished = last.get("finished")
    if not isinstance(finished, PretrainFinished):
        return
    if json:
        console.say_json({"recipe": name, "out": out, **last})
    else:
        console.say(f"{finished.steps:,} steps, model in {console.shown(finished.bundle)}")


def _facts(event: Event) -> dict[str, Any]:
    return {each.name: getattr(event, each.name) for each in dataclasses.fields(event)}
