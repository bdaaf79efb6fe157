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
from mmclip_cli.options import DryRun, Json, LabelColumn, LabelThreshold, Quiet, Settings, Uncertain

if TYPE_CHECKING:
    from engine.data.finetune_plan import FinetunePlan
    from engine.evaluation.learning_curve import CurvePoint
    from engine.finetune import Event, FinetuneFinished
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
    findings: Annotated[
        str | None,
        typer.Option(metavar="NAME[,NAME]...", help="The findings to learn, as the table names them.", show_default="those of chest14"),
    ] = None,
    uncertain: Uncertain = None,
    label_threshold: LabelThreshold = None,
    label_column: LabelColumn = None,
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
    from engine.data.sources.published import check_there
    from engine.errors import InputMissing
    from engine.recipe.finetuning import FinetuneRecipe
    from engine.recipe.loader import find_recipe, load_recipe

    table = Path(recipe) if recipe.endswith(TABLES) else None
    path = find_recipe(recipe if table is None else OWN_TABLE)
    name = path.stem if table is None else table.name.partition(".")[0]
    options: dict[str, object] = {
        "sources.0.file": str(table) if table is not None else None,
        "sources.0.labels": label_column,
        "sources.0.unlisted": "absent" if label_column else None,
        "sources.0.uncertain": uncertain,
        "sources.0.label_threshold": label_threshold,
        "findings": [each.strip() for each in findings.split(",") if each.strip()] if findings else None,
        "model": model,
    }
    own = [f"{key}={as_json(value)}" for key, value in options.items() if value is not None]
    loaded = load_recipe(path, FinetuneRecipe, [*own, *(settings or ())])
    out = out or Path("runs") / name
    if resume and not settings and not (findings or uncertain or label_threshold or label_column or model):
        from mmclip_cli.resume import own_recipe

        loaded = own_recipe(out, loaded, quiet=quiet)
    fractions = _fractions(fraction)
    if table is not None and not table.is_file():
        raise InputMissing("there is no such table of labelled images", hint="check the path; mmclip recipes list names the recipes")
    check_there(loaded.sources)
    if dry_run:
        _plan(name, loaded, out, fractions, device, json=json, quiet=quiet)
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


def _plan(name: str, recipe: FinetuneRecipe, out: Path, fractions: tuple[float, ...], device: str, *, json: bool, quiet: bool) -> None:
    """Check what the run checks before its first image, and print what it would learn from."""
    from engine.data.finetune_plan import FinetunePlan
    from engine.finetune import finetune

    (plan,) = finetune(recipe, out, fractions=fractions, device=device, dry_run=True)
    assert isinstance(plan, FinetunePlan)  # the only event of a dry run
    if json:
        console.say_json({"recipe": name, "out": out, "fractions": fractions, "settings": recipe.model_dump(mode="json"), "plan": plan})
        return
    shares = ", ".join(f"{100 * fraction:g} %" for fraction in fractions)
    owners = {"patient": "patients", "study": "studies"}.get(plan.split_by, "images")
    console.say(f"{name}: {recipe.mode} fine-tuning of {recipe.model} on {shares} of the training {owners}, into {console.shown(out)}")
    _say_plan(plan)
    if not quiet:
        for notice in plan.notices:
            console.log(notice, level="warning")


def _say_plan(plan: FinetunePlan) -> None:
    """Print the splits and fractions with their labels, and what was left out."""
    console.say("")
    heads = ["split", "images", "patients", *(f"{name} +/-" for name in plan.findings)]
    rows: list[list[object]] = []
    for split, images in plan.images.items():
        labels = (plan.labels[split][name] for name in plan.findings)
        rows.append([split, images, plan.patients[split], *(f"{positive}/{negative}" for positive, negative in labels)])
    for drawn in plan.fractions:
        if drawn.fraction < 1:
            counts = (f"{drawn.positive[name]}/{drawn.negative[name]}" for name in plan.findings)
            rows.append([f"train, {100 * drawn.fraction:g} %", drawn.images, drawn.patients, *counts])
    console.table(heads, rows)
    left_out = [f"{reason} {count}" for reason, count in {"unlabelled": plan.unlabelled, **plan.dropped}.items() if count]
    if left_out:
        console.say(f"left out: {', '.join(left_out)}")


def _run(
    name: str, recipe: FinetuneRecipe, out: Path, fractions: tuple[float, ...], data: Path | None, *, resume: bool, device: str,
    json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Show the run's events: a progress bar on a terminal, else a log line every LOG_SECONDS."""
    from engine.data.finetune_data import FinetuneDataSummary
    from engine.evaluation.learning_curve import CurvePoint
    from engine.finetune import FinetuneFinished, FinetuneStarted, finetune
    from engine.tables.run_log import Notice
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
            if isinstance(event, FinetuneStarted):
                stop = event.stop
                if console.on_terminal() and not quiet:
                    shown.close()
                    bar = shown.enter_context(console.progress(stop, what=name, unit="step", start=event.start))
            if isinstance(event, Notice):
                if not quiet:
                    console.log(event.message, level="warning")
                continue
            if not quiet and not isinstance(event, FinetuneFinished):
                console.log(_event_name(event), **(_briefly(event) if isinstance(event, CurvePoint) else _facts(event)))
    (finished,) = events_by_name["finished"]
    assert isinstance(finished, FinetuneFinished)  # it is the last event unless the generator raised
    if json:
        console.say_json(
            {"recipe": name, "out": out, **{key: events_by_name[key] for key in ("prepared", "drawn", "chosen")}, "finished": finished}
        )
        return
    (prepared,) = events_by_name["prepared"]
    assert isinstance(prepared, FinetuneDataSummary)
    parts = ", ".join(f"{part} {prepared.images[part]} of {patients} patients" for part, patients in prepared.patients.items())
    console.say("RESEARCH USE ONLY - not for clinical use")
    console.say("")
    console.say(f"images: {parts}; " + (", ".join(f"{reason} {count}" for reason, count in prepared.dropped.items()) or "none dropped"))
    _say_curve(finished, len(prepared.findings))
    console.say("")
    for verdict in events_by_name.get("verdict", ()):
        console.say(str(verdict))
    console.say("")
    where = "finetune.html, curve.csv and curve.svg are in the same folder"
    console.say(f"classifier in {console.shown(finished.bundle)}; {where}. {finished.seconds:.0f} s")


def _say_curve(finished: FinetuneFinished, findings: int) -> None:
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
    from engine.tables.run_log import event_name

    return {"curvepoint": "measured", "validationchoice": "chosen"}.get(event_name(event), event_name(event))


def _facts(event: Event) -> dict[str, Any]:
    return {each.name: getattr(event, each.name) for each in dataclasses.fields(event)}


def _briefly(event: CurvePoint) -> dict[str, Any]:
    """The mean over the findings; curve.csv and log.jsonl have the others."""
    return {"fraction": event.fraction, "method": event.method, "macro_auroc": event.figures[-1].auroc}
