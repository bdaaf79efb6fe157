"""`mmclip finetune`: labelled images and a model -> a classifier bundle and its learning curve."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from json import dumps as as_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmclip_cli import console
from mmclip_cli.options import DryRun, Json, Quiet, Settings

if TYPE_CHECKING:
    from engine.data.sources.image_table import ImageTable
    from engine.evaluation.learning_curve import CurvePoint
    from engine.finetune import Event, Finished
    from engine.recipe.finetuning import FinetuneRecipe

EXAMPLES = (
    "mmclip finetune labels.csv",
    "mmclip finetune labels.csv --fraction 0.1,1 --set mode=linear",
    "mmclip finetune own.yaml --model runs/own/bundle --out runs/classifier",
)
TABLES = (".csv", ".tsv", ".parquet", ".csv.gz")
OWN_TABLE = "finetune_table"
"""The shipped recipe that `mmclip finetune TABLE` runs."""
LOG_SECONDS = 10
"""Seconds between two log lines of steps where stderr is no terminal; out/log.jsonl has every step."""
SHOWN_FINDINGS = 3
"""With at most this many findings each is printed, with more only their mean; curve.csv has all."""


def command(
    recipe: Annotated[
        str,
        typer.Argument(metavar="[RECIPE|TABLE]", help="A table (CSV, Parquet) of labelled images, or a recipe (a file or a shipped name)."),
    ] = "finetune",
    fraction: Annotated[
        str, typer.Option(metavar="SHARE[,SHARE]...", help="Share of the training patients to learn from; several give a learning curve.")
    ] = "1",
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A shipped model, a bundle folder or a Hugging Face id.", show_default="the recipe's: tiny"),
    ] = None,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the run.", show_default="runs/NAME, after the recipe or table")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of prepared images and features; several runs can share it.", show_default="OUT/data"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device that trains.")] = "auto",
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on labelled images.

    The table has a column `file`, a column per finding (1, 0, blank = unknown), and optional patient and split columns. OUT/bundle is
    the classifier: mmclip score --model OUT/bundle, without --prompts.
    """
    from engine.data.sources import read_sources
    from engine.data.sources.published import check_there
    from engine.data.splits import wanted_findings
    from engine.errors import InputMissing
    from engine.recipe.finetuning import FinetuneRecipe
    from engine.recipe.loader import find_recipe, load_recipe

    table = Path(recipe) if recipe.endswith(TABLES) else None
    path = find_recipe(recipe if table is None else OWN_TABLE)
    name = path.stem if table is None else table.name.partition(".")[0]
    own = [f"sources.0.file={as_json(str(table))}"] if table is not None else []
    loaded = load_recipe(path, FinetuneRecipe, [*own, *(settings or ()), *([f"model={model}"] if model else [])])
    out = out or Path("runs") / name
    fractions = _fractions(fraction)
    if table is not None and not table.is_file():
        raise InputMissing("there is no such table of labelled images", hint="check the path; mmclip recipes list names the recipes")
    check_there(loaded.sources)
    if dry_run:
        images = read_sources(loaded.sources)
        findings = wanted_findings(loaded, images)  # raises if the table is unusable
        _say_plan(name, loaded, fractions, out, json=json)
        if not json:
            _say_images(images, findings)
        return
    _run(name, loaded, out, fractions, data, resume=resume, device=device, json=json, quiet=quiet)


def _fractions(text: str) -> tuple[float, ...]:
    """`0.01,0.1,1` as numbers."""
    from engine.errors import UsageError

    try:
        fractions = tuple(float(part) for part in text.split(","))
    except ValueError:
        fractions = ()
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise UsageError("--fraction holds something that is no share above 0 and at most 1", hint="--fraction 0.1, or 0.01,0.1,1")
    return fractions


def _say_plan(name: str, recipe: FinetuneRecipe, fractions: tuple[float, ...], out: Path, *, json: bool) -> None:
    if json:
        console.say_json({"recipe": name, "out": out, "fractions": fractions, "settings": recipe.model_dump(mode="json")})
        return
    shares = ", ".join(f"{100 * fraction:g} %" for fraction in fractions)
    console.say(f"{name}: {recipe.mode} fine-tuning of {recipe.model} on {shares} of the training patients, into {console.shown(out)}")


def _say_images(images: ImageTable, findings: tuple[str, ...]) -> None:
    """Print the images, patients and positives of the sources, and what was left out."""
    frame = images.frame
    found = ", ".join(f"{finding} {frame[finding].sum()} of {frame[finding].count()} labelled" for finding in findings)
    console.say(f"{frame.height} images of {frame['patient'].n_unique()} patients; with the finding: {found}")
    dropped = images.dropped.group_by("reason").len().sort("len", "reason", descending=[True, False]).rows()
    if dropped:
        console.say("left out: " + ", ".join(f"{reason} {count}" for reason, count in dropped))


def _run(
    name: str, recipe: FinetuneRecipe, out: Path, fractions: tuple[float, ...], data: Path | None, *, resume: bool, device: str,
    json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Show the run's events: a progress bar on a terminal, else a log line every LOG_SECONDS."""
    from engine.data.finetune_data import Prepared
    from engine.evaluation.learning_curve import CurvePoint
    from engine.finetune import Finished, Notice, Started, finetune
    from engine.training.loop import Step

    events = finetune(recipe, out, fractions=fractions, resume=resume, device=device, data=data)
    events_by_name: dict[str, list[Event]] = {}
    logged, stop = float("-inf"), 0
    if not quiet:
        console.log("preparing the recipe's images")
    with console.closing(events) as watched, contextlib.ExitStack() as shown:
        bar = None
        for event in watched:
            if isinstance(event, Step):
                if bar is not None:
                    bar.set_postfix({"loss": f"{event.loss:.3f}"}, refresh=False)
                    bar.update(event.step - bar.n)
                elif not quiet and (time.monotonic() - logged >= LOG_SECONDS or event.step == stop):
                    logged = time.monotonic()
                    console.log(f"step {event.step} of {stop}", **_facts(event))
                continue
            events_by_name.setdefault(_event_name(event), []).append(event)
            if isinstance(event, Started):
                stop = event.stop
                if console.on_terminal() and not quiet:
                    shown.close()
                    bar = shown.enter_context(console.progress(stop, what=name, unit="step", start=event.start))
            if isinstance(event, Notice):
                if not quiet:
                    console.log(event.message, level="warning")
                continue
            if not quiet and not isinstance(event, Finished):
                console.log(_event_name(event), **(_briefly(event) if isinstance(event, CurvePoint) else _facts(event)))
    (finished,) = events_by_name["finished"]
    assert isinstance(finished, Finished)  # it is the last event unless the generator raised
    if json:
        console.say_json(
            {"recipe": name, "out": out, **{key: events_by_name[key] for key in ("prepared", "drawn", "chosen")}, "finished": finished}
        )
        return
    (prepared,) = events_by_name["prepared"]
    assert isinstance(prepared, Prepared)
    parts = ", ".join(f"{part} {prepared.images[part]} of {patients} patients" for part, patients in prepared.patients.items())
    console.say("RESEARCH USE ONLY - not for clinical use")
    console.say("")
    console.say(f"images: {parts}; " + (", ".join(f"{reason} {count}" for reason, count in prepared.dropped.items()) or "none dropped"))
    _say_curve(finished, len(prepared.findings))
    console.say("")
    console.say(f"classifier in {console.shown(finished.bundle)}; curve.csv and curve.svg are in the same folder. {finished.seconds:.0f} s")


def _say_curve(finished: Finished, findings: int) -> None:
    """Print the AUROC on the test split by fraction and method."""
    rows: list[list[object]] = []
    without: dict[str, set[str]] = {}
    for row in finished.curve:
        if (row["finding"] == "macro") == (findings <= SHOWN_FINDINGS):
            continue
        if row["auroc"] is None:
            without.setdefault(f"{100 * row['fraction']:g} % {row['method']}: {row['reason']}", set()).add(row["finding"])
            continue
        interval = "-" if row["auroc_low"] is None else f"{row['auroc_low']:.3f} - {row['auroc_high']:.3f}"
        shown = [row["train_patients"], row["train_images"], row["train_positive"], row["finding"], row["n"], row["n_positive"]]
        rows.append([f"{100 * row['fraction']:g} %", row["method"], *shown, row["auroc"], interval, row["auprc"]])
    console.say("")
    heads = ["fraction", "method", "patients", "images", "positive", "finding", "test n", "positive", "AUROC", "95 % interval", "AUPRC"]
    console.table(heads, rows)
    for reason, names in sorted(without.items()):
        console.say(f"no AUROC, {reason}: {', '.join(sorted(names))}")


def _event_name(event: Event) -> str:
    """The event as logs and --json call it."""
    name = type(event).__name__
    return {"CurvePoint": "measured", "ValidationChoice": "chosen"}.get(name, name.lower())


def _facts(event: Event) -> dict[str, Any]:
    return {each.name: getattr(event, each.name) for each in dataclasses.fields(event)}


def _briefly(event: CurvePoint) -> dict[str, Any]:
    """The mean over the findings; curve.csv and log.jsonl have the others."""
    return {"fraction": event.fraction, "method": event.method, "macro_auroc": event.figures[-1].auroc}
