"""`mmclip evaluate`: an evaluation recipe, or scores and labels, to figures with intervals."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmclip_cli import console
from mmclip_cli.options import DryRun, Json, LabelColumn, LabelThreshold, Quiet, Settings, Uncertain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.evaluation.events import EvaluationPlan, Event, ModelFigures

EXAMPLES = (
    "mmclip evaluate --scores mmclip-out --labels labels.csv",
    "mmclip evaluate --scores mmclip-out --labels labels.csv --calibrate",
    "mmclip evaluate eval/kermany --model tiny --against random:tiny",
)
LOGGED_FILES = 1000
SHOWN_FINDINGS = 30
"""Findings shown one by one in a terminal; metrics.csv has them all."""


def command(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="[RECIPE]", help="An evaluation recipe or a set of them: a file, or a shipped name.", show_default=False),
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Evaluate these scores: the --out of `mmclip score`, or a table.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Labels for --scores: StudyInstanceUID, study or file, and 1/0/blank per finding.")
    ] = None,
    uncertain: Uncertain = None,
    label_threshold: LabelThreshold = None,
    label_column: LabelColumn = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Replaces the recipe's model; random:NAME has random weights.", show_default="the recipe's"),
    ] = None,
    against: Annotated[str | None, typer.Option(metavar="MODEL", help="A second model on the same studies, with a paired test.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Fit calibration.json on patients set aside; evaluate on the others.")
    ] = False,
    settings: Settings = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Output folder; also caches image features for the next run.")] = Path(
        "mmclip-eval"
    ),
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes that read files.", show_default="cores")] = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on labelled studies, with confidence intervals.

    RECIPE names data, model and published figures for comparison; --scores and --labels evaluate the output of mmclip score.
    """
    from engine.data.label_cells import LabelPolicy
    from engine.errors import UsageError
    from engine.evaluate import evaluate
    from engine.evaluation.from_scores import judge

    _check_arguments(recipe, scores, labels)
    events: Iterator[Any]
    if recipe is not None:
        if uncertain or label_threshold or label_column:
            raise UsageError(
                "--uncertain, --label-threshold and --label-column belong to --labels", hint="--set sources.0.uncertain=present"
            )
        events = evaluate(
            recipe,
            settings=settings or (),
            model=model,
            against=against,
            calibrate=calibrate,
            out=out,
            device=device,
            workers=workers,
            dry_run=dry_run,
        )
    else:
        assert scores is not None
        assert labels is not None
        policy = LabelPolicy(uncertain or "unknown", label_threshold)
        if model or against or settings:
            raise UsageError("--model, --against and --set belong to a recipe", hint="leave them out with --scores")
        events = judge(scores, labels, label_policy=policy, label_column=label_column, calibrate=calibrate, out=out, dry_run=dry_run)
    _watch(events, out, json=json, quiet=quiet)


def _check_arguments(recipe: str | None, scores: Path | None, labels: Path | None) -> None:
    """Raise UsageError unless there is either a recipe, or scores with labels."""
    from engine.errors import UsageError

    if recipe is not None:
        if scores is not None or labels is not None:
            raise UsageError("evaluate takes a RECIPE, or --scores with --labels, not both", hint=f"mmclip evaluate {recipe}")
    elif scores is None and labels is None:
        raise UsageError("evaluate takes a RECIPE, or --scores with --labels", hint=f"{EXAMPLES[2]}, or {EXAMPLES[0]}")
    elif labels is None:
        raise UsageError("--scores needs --labels", why="figures need a table of labels", hint="--labels labels.csv")
    elif scores is None:
        raise UsageError("--labels needs --scores", why="a RECIPE brings its own labels", hint="--scores mmclip-out")


def _watch(events: Iterator[Event], out: Path, *, json: bool, quiet: bool) -> None:
    """Show progress, write the page, and print the tables."""
    from engine.evaluation.events import (
        EvaluationFinished,
        EvaluationNotice,
        EvaluationPlan,
        EvaluationSkipped,
        ImageEncoded,
        ModelFigures,
        ModelStarted,
        TablesWritten,
    )
    from engine.evaluation.html import evaluation_report

    measured: list[ModelFigures] = []
    planned: EvaluationPlan | None = None
    seen = 0
    with contextlib.ExitStack() as shown:
        watched = shown.enter_context(console.closing(events))
        bar = None
        for event in watched:
            match event:
                case EvaluationPlan():
                    planned = event
                    for row in event.rows if not quiet else ():
                        for notice in row.notices:
                            console.log(f"{row.evaluation}: {notice}", level="warning")
                case EvaluationSkipped() if not quiet:
                    console.log(f"{event.evaluation}: {event.needs}", level="warning")
                case EvaluationNotice() if not quiet:
                    console.log(event.message, level="warning")
                case ModelStarted():
                    if bar is not None:
                        bar.close()
                    bar = shown.enter_context(
                        console.progress(event.images, what=f"{event.evaluation}, {event.model}", unit="image", quiet=quiet)
                    )
                    if bar.disable and not quiet:
                        console.log(f"{event.evaluation}: {event.model}", images=event.images)
                case ImageEncoded():
                    seen += 1
                    if bar is not None:
                        bar.update()
                        if bar.disable and not quiet and seen % LOGGED_FILES == 0:
                            console.log("encoding", images=seen)
                case ModelFigures():
                    measured.append(event)
                case TablesWritten():
                    evaluation_report(event.out, run=event.run, tables=event.tables, curves=event.curves)
                case EvaluationFinished():
                    if json:
                        console.say_json({**event.run, "out": str(out), "tables": event.tables})
                    else:
                        _say(event.tables, measured, out)
                    return
    if planned is not None:
        _say_plan(planned, json=json)


def _say_plan(plan: EvaluationPlan, *, json: bool) -> None:
    """Print what a dry run found: what each row lacks, its splits, and the labels of each finding."""
    if json:
        console.say_json({"device": plan.device or None, "rows": [{**asdict(row), "needs": row.needs or None} for row in plan.rows]})
        return
    console.table(["evaluation", "ready"], [[row.evaluation, row.needs or "yes"] for row in plan.rows])
    for row in plan.rows:
        if not row.splits:
            continue
        console.say("")
        console.say(row.evaluation)
        heads = ["split", "images", "studies", "patients"]
        console.table(heads, [[name, *(counts.get(head, "-") for head in heads[1:])] for name, counts in row.splits.items()])
        splits = list(row.splits)
        heads = ["finding", *(f"{split}: {which}" for split in splits for which in ("positive", "negative"))]
        console.table(heads, [[name, *(count for split in splits for count in counts[split])] for name, counts in row.labels.items()])
    if plan.device:
        console.say("")
        console.say(f"models run on {plan.device}")


def _say(tables: dict[str, list[dict[str, Any]]], measured: list[ModelFigures], out: Path) -> None:
    """Print the models with published figures, then findings, comparisons, calibration and phrases."""
    from engine.evaluation.published import NOT_PUBLISHED, one_auroc
    from engine.tables.columns import NOTICE

    console.say(NOTICE)
    console.say("")
    console.say("AUROC with its 95 % interval; F1 and accuracy at a threshold that does not depend on the test labels.")
    cells = tables.get("table", [])
    keys = ["evaluation", "model", "auroc", "f1_at_threshold", "accuracy_at_threshold", "threshold"]
    heads = ["evaluation", "model", "AUROC (95 %)", "F1", "accuracy", "threshold"]
    if any(row["auroc"] == NOT_PUBLISHED for row in cells):
        console.say("best F1, accuracy there: at the threshold that is best on the test labels themselves, as in the papers; optimistic.")
        keys, heads = [*keys, "f1", "accuracy"], [*heads, "best F1", "accuracy there"]
    console.say("")
    rows, needs = _with_footnotes(one_auroc(cells), [*keys, "note"])
    console.table([*heads, "based on"], rows)
    for number, text in enumerate(needs, 1):
        console.say(f"({number}) {text}")
    for each in measured:
        _say_findings(each)
    _say_comparisons(tables.get("comparisons", []))
    _say_reliability(tables.get("reliability", []))
    _say_phrases(tables.get("prompt_sensitivity", []))
    _say_maps(out)
    console.say("")
    console.say(
        f"{out / 'evaluation.html'} has all figures; metrics.csv, subgroups.csv, prompt_sensitivity.csv and run.json are in the same folder"
    )


def _with_footnotes(table: list[dict[str, Any]], keys: list[str]) -> tuple[list[list[object]], list[str]]:
    """These cells of the table, with the reason of a row without figures as the number of a footnote; and the footnotes."""
    reasons = list(dict.fromkeys(row["auc"] for row in table if str(row["auc"]).startswith(("needs ", "no finding "))))
    marks = {text: f"{'needs' if text.startswith('needs ') else 'none'} ({number})" for number, text in enumerate(reasons, 1)}
    return [[marks.get(row[key], row[key]) for key in keys] for row in table], reasons


def _say_findings(each: ModelFigures) -> None:
    rows: list[list[object]] = []
    for figure in each.figures[:SHOWN_FINDINGS]:
        interval = "-" if figure.auroc_low is None else f"{figure.auroc_low:.3f}-{figure.auroc_high:.3f}"
        area = figure.reason if figure.auroc is None else figure.auroc
        at_threshold = [figure.f1, figure.accuracy, figure.sensitivity, figure.specificity, figure.mcc]
        rows.append([figure.finding, figure.n, figure.n_positive, area, interval, figure.auprc, *at_threshold])
    console.say("")
    console.say(f"{each.evaluation}, {each.model}")
    heads = ["finding", "n", "positive", "AUROC", "95 % interval", "AUPRC", "F1", "accuracy", "sensitivity", "specificity", "MCC"]
    console.table(heads, rows)


def _say_maps(out: Path) -> None:
    """Print how to use the fitted calibration, and which findings have none."""
    from engine.evaluation.output import CALIBRATION

    if not (out / CALIBRATION).is_file():
        return
    findings = loads((out / CALIBRATION).read_text("utf-8"))["findings"]
    without: dict[str, list[str]] = {}
    for name, section in findings.items():
        if "reason" in section:
            without.setdefault(section["reason"], []).append(name)
    console.say("")
    for reason, names in without.items():
        console.say(f"no calibration, {reason}: {', '.join(names)}: their scores are not calibrated")
    if len(findings) > sum(map(len, without.values())):
        console.say(f"{out / CALIBRATION} turns scores into probabilities: mmclip score --calibration {out / CALIBRATION}")


def _say_comparisons(rows: list[dict[str, Any]]) -> None:
    if rows:
        console.say("")
        heads = ["evaluation", "first", "second", "finding", "difference of AUROC", "from", "to", "p", "by"]
        keys = ("evaluation", "first", "second", "finding", "difference", "low", "high", "p")
        console.table(heads, [[*(row.get(key) for key in keys), row.get("method") or row.get("reason")] for row in rows])


def _say_reliability(rows: list[dict[str, Any]]) -> None:
    if rows:
        console.say("")
        heads = ["evaluation", "finding", "scores", "Brier", "from", "to", "ECE", "from", "to"]
        keys = ("evaluation", "finding", "scores", "brier", "brier_low", "brier_high", "ece", "ece_low", "ece_high")
        console.table(heads, [[row[key] for key in keys] for row in sorted(rows, key=lambda row: row["finding"])])


def _say_phrases(rows: list[dict[str, Any]]) -> None:
    spread: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if row["auroc"] is not None:
            spread.setdefault((row["evaluation"], row["model"], row["finding"]), []).append(row["auroc"])
    if spread:
        console.say("")
        heads = ["evaluation", "model", "finding", "phrases", "lowest AUROC by one phrase", "highest"]
        console.table(heads, [[*key, len(areas), min(areas), max(areas)] for key, areas in spread.items()])
