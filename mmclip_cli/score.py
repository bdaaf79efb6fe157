"""`mmclip score`: folders of DICOM or image tables -> scores, metrics and a report, with a summary on stdout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmclip_cli import console
from mmclip_cli.options import DryRun, FollowLinks, Json, LabelColumn, LabelThreshold, Quiet, Uncertain

OUTSIDE = "outside_training_population"

if TYPE_CHECKING:
    from engine.score import ScoresPublished, ScoringPlan

SHOWN_STUDIES = 10
SHOWN_FINDINGS = 3
SHOWN_REASONS = 12
EXAMPLES = (
    "mmclip score ./dicoms --prompts chest14",
    "mmclip score ./dicoms --prompts own.yaml --labels labels.csv --out results",
    "mmclip score pictures.csv --model runs/labels/bundle",
)
JOINED_BY = "they are joined by StudyInstanceUID, by `study` as in scores.csv, or by `file`, the path as the input gives it"
NO_LABELS = 78
"""Exit code of a run whose labels match no scored study: that of unusable labels."""
LOGGED_FILES = 1000
"""Files per log line where stderr is no terminal."""


def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Folders, DICOM files, or CSV/Parquet tables with a column `file`.", show_default=False),
    ],
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="Prompts for each finding: a shipped recipe's name or a file. Omit for a fine-tuned classifier.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option(metavar="MODEL", help="A shipped model, a bundle folder or a Hugging Face id.")] = "tiny",
    labels: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="CSV/Parquet: StudyInstanceUID, study or file; a column per finding (1, 0)."),
    ] = None,
    uncertain: Uncertain = None,
    label_threshold: LabelThreshold = None,
    label_column: LabelColumn = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the results.")] = Path("mmclip-out"),
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device that runs the model.")] = "auto",
    aggregate: Annotated[Literal["mean", "max"], typer.Option(help="How the scores of a study's images are combined.")] = "mean",
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Apply the calibration.json that mmclip evaluate --calibrate wrote.")
    ] = None,
    retain_uids: Annotated[bool, typer.Option("--retain-uids", help="Name studies and images by their UIDs instead of hashes.")] = False,
    min_age: Annotated[
        float, typer.Option(min=0, metavar="N", help="Skip files modified in the last N seconds; they are picked up by the next run.")
    ] = 0.0,
    min_files: Annotated[int, typer.Option(min=0, metavar="N", help="Fail if fewer files are found; an unmounted folder looks empty.")] = 0,
    max_failures: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Stop with exit code 65 when more than N files are damaged or unreadable.", show_default=False
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of processes that read files.", show_default="cores")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images per forward pass.", show_default="8, on a GPU 64")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Limit per file: seconds=30, memory_gb=2 (each worker), file_mb=512, megapixels=100, nesting=64. Repeatable.",
            show_default=False,
        ),
    ] = None,
    heatmaps: Annotated[
        bool, typer.Option("--heatmaps", help="Write patch-text similarity heatmaps to OUT/private/heatmaps (contain patient images).")
    ] = False,
    force_heatmaps: Annotated[
        bool, typer.Option("--force-heatmaps", help="Draw heatmaps even if the model's card says that they do not point at findings.")
    ] = False,
    heatmaps_in_report: Annotated[
        bool, typer.Option("--heatmaps-in-report", help="Also show the first heatmaps in report.html, which then has mode 0600.")
    ] = False,
    fail_on: Annotated[
        Literal["error", "reject", "never"],
        typer.Option(help="Exit with code 1 if a file was damaged (error) or rejected at all (reject), or never."),
    ] = "error",
    follow_links: FollowLinks = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Also report studies of earlier runs whose files were moved away; adds the column last_seen.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Score chest radiographs with text prompts or a classifier.

    Writes scores per study, one row per file, metrics if there are labels, and a report to --out. Files that an earlier run has read
    are not read again. scores.csv and images.csv hold the files of this run's inputs; with --keep also those of earlier runs into the
    same --out, which were moved away since.
    """
    from engine.data.label_cells import LabelPolicy
    from engine.html_report import report
    from engine.intake.limits import limits_from
    from engine.score import FileDone, HeatmapSheet, ScoresPublished, ScoringFinished, ScoringPlan, score
    from engine.tables.run_log import Notice

    events = score(
        inputs,
        prompts=prompts,
        model=model,
        labels=labels,
        label_policy=LabelPolicy(uncertain or "unknown", label_threshold),
        label_column=label_column,
        out=out,
        device=device,
        aggregate=aggregate,
        calibration=calibration,
        retain_uids=retain_uids,
        min_age=min_age,
        min_files=min_files,
        max_failures=max_failures,
        workers=workers,
        batch_size=batch_size,
        limits=limits_from(limit or ()),
        heatmaps=heatmaps or heatmaps_in_report,
        force_heatmaps=force_heatmaps,
        follow_links=follow_links,
        keep=keep,
        dry_run=dry_run,
    )
    tables, run, seen, drawn = None, None, 0, 0
    with console.closing(events) as watched, console.progress(None, what="score", unit="file", quiet=quiet, leave=False) as bar:
        for event in watched:
            match event:
                case FileDone():
                    seen += 1
                    bar.update()
                    if bar.disable and not quiet and seen % LOGGED_FILES == 0:
                        console.log("scoring", files=seen)
                case HeatmapSheet():
                    if not drawn:
                        bar.reset()
                        bar.set_description("heatmaps")
                    drawn += 1
                    bar.update()
                case Notice() if not quiet:
                    console.log(event.message, level="warning")
                case ScoringPlan():
                    bar.clear()
                    _say_plan(event, json=json)
                case ScoresPublished():
                    tables = event
                    report(
                        out,
                        run=event.run,
                        studies=event.studies,
                        images=event.images,
                        figures=event.figures,
                        labelled=event.labelled,
                        sheets=event.sheets if heatmaps_in_report else None,
                    )
                case ScoringFinished():
                    run = event.run
    if tables is None or run is None:
        return 0
    counts = run["counts"]
    code = int({"error": counts["failed"], "reject": counts["failed"] + counts["reject"], "never": 0}[fail_on] > 0)
    if run["labels"] and not run["labels"]["matched_rows"]:
        code = NO_LABELS
    if json:
        console.say_json(_as_json(tables, run, out))
    else:
        _say(tables, run, out, code)
    return code


def _say_plan(plan: ScoringPlan, *, json: bool) -> None:
    if json:
        console.say_json(plan)
        return
    unopened = sum(plan.left_out.values())
    console.say(f"{plan.files} files: {plan.known} known, {plan.files - plan.known - unopened} to read, {unopened} left out unopened")
    for reason, files in plan.left_out.items():
        console.say(f"  {reason} {files}")
    if plan.files == unopened:
        _say_nothing(plan.left_out)


def _as_json(tables: ScoresPublished, run: dict[str, Any], out: Path) -> dict[str, Any]:
    return {
        **run,
        "out": str(out),
        "scores": tables.studies.collect().to_dicts(),
        "metrics": [each.as_row() for each in tables.figures],
        "synthetic_studies": _synthetic(tables),
    }


def _synthetic(tables: ScoresPublished) -> int:
    from engine.html_report import synthetic_studies

    return synthetic_studies(tables.studies, tables.labelled)


def _say(tables: ScoresPublished, run: dict[str, Any], out: Path, code: int) -> None:
    """Print the summary: outcomes of the files, the first studies, the metrics, and where the results are."""
    counts, seconds = run["counts"], run["seconds"]["total"]
    console.say(run["notice"])
    console.say("")
    again = f", {counts['reused']} of them known from an earlier run" if counts["reused"] else ""
    console.say(f"{_count(counts['files'], 'file')}{again}: {counts['score']} scored, {_count(counts['duplicate'], 'duplicate')}, "
                f"{counts['reject']} rejected, {counts['skip']} skipped")  # fmt: skip
    if counts["kept"]:
        console.say(
            f"{_count(counts['kept'], 'file')} of earlier runs kept (--keep); last_seen in images.csv has the date of their last run"
        )
    prompts = "its own head" if run["recipe"].get("source") == "classifier" else run["recipe"]["name"]
    studies = _count(counts["studies"], "study", "studies")
    console.say(f"{studies} scored by {run['model']['name']} with {prompts} on {run['device']} in {seconds:.1f} s")
    if counts["outside"]:
        console.say(
            f"{_count(counts['outside'], 'image')} of patients outside the model's training population (age or view): "
            f"flag {OUTSIDE}; `mmclip models show {run['model']['name']}` tells whom it was trained on"
        )
    _say_left_out(tables, counts, code)
    _say_studies(tables, counts["studies"])
    if run["labels"] and not run["labels"]["matched_rows"]:
        console.say(f"\nno row of the labels matches a scored study, so there are no metrics (exit code {NO_LABELS}): {JOINED_BY}")
        console.say(f"a key of the labels has the form {run['labels']['key_form']}")
    else:
        _say_figures(tables)
    console.say("")
    if run["heatmaps"]:
        sheets = sum(run["heatmaps"].values())
        console.say(f"{sheets} sheets of heatmaps, {run['heatmaps']['drawn']} of them new, in {out / 'private' / 'heatmaps'}")
    advice = ", and what to do about each reason" if run["counts"]["reasons"] else ""
    console.say(f"{out / 'report.html'} has all results{advice}; scores.csv, images.csv and run.json are in the same folder")
    if counts["files"]:
        console.say(f"{out / 'private' / 'files.csv'} maps rows to files and patients (contains identifiers)")


def _say_nothing(reasons: Mapping[str, int]) -> None:
    """Print that there is nothing to score, and what to do about the most frequent reason."""
    from engine.dicom.reasons import REASONS

    most = max(reasons, key=lambda reason: reasons[reason], default="")
    advice = f"of {most}: {REASONS[most].advice}" if most else "the inputs hold no file beside those that mmclip itself wrote"
    console.say(f"nothing was scored; {advice}")


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _say_left_out(tables: ScoresPublished, counts: dict[str, Any], code: int) -> None:
    """Print why files have no scores, which of them failed (exit code 1), and what to do if nothing was scored."""
    import polars as pl

    from engine.dicom.reasons import FAILURES, REASONS

    counted = tables.images.filter(pl.col("outcome").is_in(["reject", "skip"])).group_by("reason").len()
    rows = counted.sort("len", "reason", descending=[True, False]).collect(engine="streaming").rows()
    if not rows:
        if not counts["studies"]:
            _say_nothing({})
        return
    console.say("")
    marks = {reason: "failed: " if reason in FAILURES else "" for reason, _ in rows}
    shown = [[reason, files, marks[reason] + REASONS[reason].meaning] for reason, files in rows[:SHOWN_REASONS]]
    console.table(["not scored", "files", "because"], shown)
    if len(rows) > SHOWN_REASONS:
        console.say(f"and {len(rows) - SHOWN_REASONS} more reasons in images.csv")
    if failed := counts["failed"]:
        leaves = ", so this ends with exit code 1" if code else ""
        console.say(f"{failed} of them failed (damaged or unreadable){leaves}: images.csv has a row for each, private/files.csv its path")
    if not counts["studies"]:
        _say_nothing(dict(rows))


def _say_studies(tables: ScoresPublished, studies: int) -> None:
    if not studies:
        return
    findings = [name for name in tables.labelled.columns if name != "study"]
    rows = []
    for row in tables.studies.head(SHOWN_STUDIES).collect().iter_rows(named=True):
        highest = sorted(findings, key=lambda name: -row[name])[:SHOWN_FINDINGS]
        rows.append([_short(row["study"]), row["n_images"], row["flags"] or "-", *(f"{row[name]:.2f} {name}" for name in highest)])
    console.say("")
    heads = ["study", "images", "flags", "highest scores", *[""] * (min(SHOWN_FINDINGS, len(findings)) - 1)]
    console.table(heads, rows)
    if studies > len(rows):
        console.say(f"and {studies - len(rows)} more in scores.csv")


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:12]}..."


def _say_figures(tables: ScoresPublished) -> None:
    if not tables.figures:
        return
    rows: list[list[object]] = []
    without: dict[str, list[str]] = {}
    for each in tables.figures:
        if each.auroc is None:
            without.setdefault(each.reason or "", []).append(each.finding)
            continue
        interval = "-" if each.auroc_low is None else f"{each.auroc_low:.2f} - {each.auroc_high:.2f}"
        rows.append([each.finding, each.n, each.n_positive, each.auroc, interval, each.auprc, each.f1, each.accuracy])
    console.say("")
    if rows:
        console.table(["finding", "n", "positive", "AUROC", "95 % interval", "AUPRC", "F1 at 0.5", "accuracy"], rows)
    for reason, names in without.items():
        console.say(f"no AUROC, {reason}: {', '.join(names)}")
    drawn = _synthetic(tables)
    if drawn:
        console.say(
            f"{drawn} of the {tables.labelled.height} labelled studies are synthetic (drawn, not patients): "
            "these figures test the installation, not the model."
        )
