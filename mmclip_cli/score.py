"""`mmclip score`: folders of DICOM or image tables -> scores, figures and a report, with the table that says it all on one screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmclip_cli import console
from mmclip_cli.options import DryRun, Json, Quiet

if TYPE_CHECKING:
    from engine.score import Planned, Published

SHOWN_STUDIES = 10
SHOWN_FINDINGS = 3
SHOWN_REASONS = 12
EXAMPLES = (
    "mmclip score ./dicoms --prompts chest14",
    "mmclip score ./dicoms --prompts own.yaml --labels labels.csv --out results",
    "mmclip score pictures.csv --model runs/labels/bundle",
)
JOINED_BY = "they are joined by StudyInstanceUID, by `study` as in scores.csv, or by `file`, a path as the input has it"
LOGGED_FILES = 1000
"""Where nobody watches a progress bar, a line of log for every so many files."""


def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Folders, DICOM files, or CSV/Parquet tables with a column `file`.", show_default=False),
    ],
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="Words for each finding: a shipped name, or a file of your own. None for a classifier.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option(metavar="MODEL", help="A shipped name, a folder that mmclip wrote, or a Hugging Face id.")] = "tiny",
    labels: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="CSV/Parquet: StudyInstanceUID, study or file, and 1/0/blank per finding.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the results go.")] = Path("mmclip-out"),
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    aggregate: Annotated[Literal["mean", "max"], typer.Option(help="A study's score from those of its images.")] = "mean",
    calibration: Annotated[Path | None, typer.Option(metavar="FILE", help="calibration.json of mmclip evaluate --calibrate.")] = None,
    retain_uids: Annotated[bool, typer.Option("--retain-uids", help="Name studies and images by their UIDs, not by hashes.")] = False,
    min_age: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Leave files that changed within so many seconds for later.")
    ] = 0.0,
    min_files: Annotated[
        int, typer.Option(min=0, metavar="N", help="Fail where fewer files are found: a folder that is not mounted looks empty.")
    ] = 0,
    max_failures: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Give up when more files than these are damaged or out of reach.", show_default=False),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes that read files.", show_default="cores")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images per forward pass.", show_default="8, on a GPU 64")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="What one file may cost: seconds=30, memory_gb=2 (each worker), file_mb=512, megapixels=100, nesting=64. Repeatable.",
            show_default=False,
        ),
    ] = None,
    heatmaps: Annotated[
        bool, typer.Option("--heatmaps", help="Draw where pictures resemble the words, into OUT/private/heatmaps (pictures may identify).")
    ] = False,
    heatmaps_in_report: Annotated[
        bool, typer.Option("--heatmaps-in-report", help="Also put the first of them into report.html, which only you may read then.")
    ] = False,
    fail_on: Annotated[
        Literal["error", "reject", "never"], typer.Option(help="Exit with 1 for damaged files, for any file turned away, or never.")
    ] = "error",
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Score chest radiographs: against words, or with a classifier.

    Writes scores, a row per file, figures where there are labels, and a report into --out. A second run does only what is new.
    """
    from engine.html_report import report
    from engine.intake.limits import limits_from
    from engine.score import Drawn, Finished, Notice, Planned, Published, Seen, score

    events = score(
        inputs,
        prompts=prompts,
        model=model,
        labels=labels,
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
        dry_run=dry_run,
    )
    tables, run, seen, drawn = None, None, 0, 0
    with console.closing(events) as watched, console.progress(None, what="score", unit="file", quiet=quiet, leave=False) as bar:
        for event in watched:
            match event:
                case Seen():
                    seen += 1
                    bar.update()
                    if bar.disable and not quiet and seen % LOGGED_FILES == 0:
                        console.log("scoring", files=seen)
                case Drawn():
                    if not drawn:
                        bar.reset()
                        bar.set_description("heatmaps")
                    drawn += 1
                    bar.update()
                case Notice() if not quiet:
                    console.log(event.message, level="warning")
                case Planned():
                    bar.clear()
                    _say_plan(event, json=json)
                case Published():
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
                case Finished():
                    run = event.run
    if tables is None or run is None:
        return 0
    counts = run["counts"]
    code = int({"error": counts["failed"], "reject": counts["failed"] + counts["reject"], "never": 0}[fail_on] > 0)
    if json:
        console.say_json(_as_json(tables, run, out))
    else:
        _say(tables, run, out, code)
    return code


def _say_plan(plan: Planned, *, json: bool) -> None:
    if json:
        console.say_json(plan)
        return
    unopened = sum(plan.left_out.values())
    console.say(f"{plan.files} files: {plan.known} known, {plan.files - plan.known - unopened} to read, {unopened} left out unopened")
    for reason, files in plan.left_out.items():
        console.say(f"  {reason} {files}")


def _as_json(tables: Published, run: dict[str, Any], out: Path) -> dict[str, Any]:
    return {
        **run,
        "out": str(out),
        "scores": tables.studies.collect().to_dicts(),
        "metrics": [each.as_row() for each in tables.figures],
        "synthetic_studies": _synthetic(tables),
    }


def _synthetic(tables: Published) -> int:
    from engine.html_report import synthetic_studies

    return synthetic_studies(tables.studies, tables.labelled)


def _say(tables: Published, run: dict[str, Any], out: Path, code: int) -> None:
    """The first screen: what became of the files, the first studies, the figures, where everything is."""
    counts, seconds = run["counts"], run["seconds"]["total"]
    console.say(run["notice"])
    console.say("")
    again = f", {counts['reused']} of them known from an earlier run" if counts["reused"] else ""
    console.say(f"{_count(counts['files'], 'file')}{again}: {counts['score']} scored, {_count(counts['duplicate'], 'duplicate')}, "
                f"{counts['reject']} turned away, {counts['skip']} skipped")  # fmt: skip
    prompts = "its own head" if run["recipe"].get("source") == "classifier" else run["recipe"]["name"]
    studies = _count(counts["studies"], "study", "studies")
    console.say(f"{studies} scored by {run['model']['name']} with {prompts} on {run['device']} in {seconds:.1f} s")
    _say_left_out(tables, counts, code)
    _say_studies(tables, counts["studies"])
    if run["labels"] and not run["labels"]["matched_rows"]:
        console.say(f"\nno row of the labels matches a scored study, so there are no figures: {JOINED_BY}")
    else:
        _say_figures(tables)
    console.say("")
    if run["heatmaps"]:
        sheets = sum(run["heatmaps"].values())
        console.say(f"{sheets} sheets of heatmaps, {run['heatmaps']['drawn']} of them new, in {out / 'private' / 'heatmaps'}")
    advice = ", and what to do about each reason" if run["counts"]["reasons"] else ""
    console.say(f"{out / 'report.html'} shows it all{advice}; scores.csv, images.csv and run.json lie beside it")
    if counts["files"]:
        console.say(f"{out / 'private' / 'files.csv'} says which file, study and patient a row is: for your eyes alone")


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _say_left_out(tables: Published, counts: dict[str, Any], code: int) -> None:
    """Why files have no scores; which of that is a failure (exit code 1); and what to do where nothing at all was scored."""
    import polars as pl

    from engine.dicom.reasons import FAILURES, REASONS

    counted = tables.images.filter(pl.col("outcome").is_in(["reject", "skip"])).group_by("reason").len()
    rows = counted.sort("len", "reason", descending=[True, False]).collect(engine="streaming").rows()
    if not rows:
        return
    console.say("")
    marks = {reason: "failed: " if reason in FAILURES else "" for reason, _ in rows}
    shown = [[reason, files, marks[reason] + REASONS[reason].meaning] for reason, files in rows[:SHOWN_REASONS]]
    console.table(["not scored", "files", "because"], shown)
    if len(rows) > SHOWN_REASONS:
        console.say(f"and {len(rows) - SHOWN_REASONS} more reasons in images.csv")
    if failed := counts["failed"]:
        leaves = ", so this ends with exit code 1" if code else ""
        console.say(f"{failed} of them failed (damaged or out of reach){leaves}: images.csv has a row for each, private/files.csv its path")
    if not counts["studies"]:
        console.say(f"nothing was scored; of {rows[0][0]}: {REASONS[rows[0][0]].advice}")


def _say_studies(tables: Published, studies: int) -> None:
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


def _say_figures(tables: Published) -> None:
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
            f"These figures rest on {drawn} synthetic of {tables.labelled.height} labelled studies: drawn, not patients. "
            "They show that the line works, not how well the model reads."
        )
