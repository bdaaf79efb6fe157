"""`mmclip ingest`: a recipe's data, a published data set or folders of DICOM -> an image table and a pixel store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmclip_cli import console
from mmclip_cli.options import DryRun, FollowLinks, Json, Quiet, Settings

if TYPE_CHECKING:
    from engine.ingest import IngestPlan

EXAMPLES = (
    "mmclip ingest mimic_padchest --out data/prepared",
    "mmclip ingest ./dicoms --out data/ours",
    "mmclip ingest images.csv --out data/ours",
)
LOG_SECONDS = 30
"""Seconds between two log lines where stderr is no terminal."""
SHOWN_REASONS = 12


def command(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="A recipe, folders of published data sets, tables, or folders of DICOM.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the image table and its images.", show_default=False)],
    kind: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="KIND",
            help="Layout of the folders: mimic_cxr, padchest, ..., dicom.",
            show_default="detected from their tables",
        ),
    ] = None,
    settings: Settings = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of processes that read files.", show_default="cores")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare known files by content, not only by size and modification time.")
    ] = False,
    follow_links: FollowLinks = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Prepare images once for many runs.

    Writes an image table and one file with every image as a small square; pretrain and score read both.
    """
    from engine.data.build_store import StoreProgress
    from engine.ingest import IngestFinished, IngestPlan, Recognised, ingest
    from engine.tables.run_log import Notice

    events = ingest(
        inputs, out, kind=kind, settings=settings or (), workers=workers, verify=verify, follow_links=follow_links, dry_run=dry_run
    )
    run: dict[str, Any] = {}
    logged = time.monotonic()
    with console.closing(events) as watched, console.progress(None, what="ingest", unit="image", quiet=quiet, leave=False) as bar:
        for event in watched:
            match event:
                case Recognised() if not quiet:
                    console.log(f"reading {', '.join(event.kinds)}", size=event.size, resize=event.resize)
                case Notice() if not quiet:
                    console.say(event.message)
                case StoreProgress():
                    bar.total = event.total or None
                    bar.update(event.done - bar.n)
                    if bar.disable and not quiet and time.monotonic() - logged >= LOG_SECONDS:
                        logged = time.monotonic()
                        console.log("ingesting", done=event.done, total=event.total, read=event.read, dropped=event.dropped)
                case IngestPlan():
                    _say_plan(event, json=json)
                case IngestFinished():
                    run = event.run
    if run and json:
        console.say_json({**run, "out": out})
    elif run:
        _say(run, out)
    return int(bool(run) and (run["counts"]["failed"] > 0 or not run["counts"]["images"]))


def _say_plan(plan: IngestPlan, *, json: bool) -> None:
    if json:
        console.say_json(plan)
        return
    console.say(f"{plan.images:,} images to read, {sum(plan.dropped.values()):,} dropped by their tables, {plan.left_out:,} left out")
    for reason, images in plan.dropped.items():
        console.say(f"  {reason} {images:,}")
    if not plan.images:
        _say_nothing(plan.dropped)


def _say(run: dict[str, Any], out: Path) -> None:
    counts = run["counts"]
    dropped = sum(counts["dropped"].values())
    left_out = f", {counts['left_out']:,} left out by the recipe" if counts["left_out"] else ""
    console.say(run["notice"])
    console.say(f"{counts['rows']:,} rows: {counts['images']:,} images, {dropped:,} dropped{left_out}; {counts['read']:,} files read")
    console.say(f"{counts['studies']:,} studies of {counts['patients']:,} patients; {counts['paired']:,} images with text")
    if dropped:
        meanings = _meanings()
        rows = sorted(counts["dropped"].items(), key=lambda pair: -pair[1])
        console.say("")
        console.table(["dropped", "rows", "because"], [[reason, count, meanings.get(reason, "")] for reason, count in rows[:SHOWN_REASONS]])
        if len(rows) > SHOWN_REASONS:
            console.say(f"and {len(rows) - SHOWN_REASONS} more reasons in run.json")
    if not counts["images"]:
        _say_nothing(counts["dropped"])
    console.say("")
    console.say(f"{console.shown(out / 'images.parquet')} lists the images, {console.shown(out / run['store'])} has their pixels")


def _say_nothing(dropped: dict[str, int]) -> None:
    """Print that no image is left, and what to do about the most frequent reason."""
    most = max(dropped, key=lambda reason: dropped[reason], default="")
    advice = f"of {most}: {_advice(most)}" if most else "the inputs hold no file beside those that mmclip itself wrote"
    console.say(f"no image is left; {advice}")


def _advice(reason: str) -> str:
    """What to do about a reason from reading a file; "" for a reason from a table."""
    from engine.dicom.reasons import REASONS

    return REASONS[reason].advice if reason in REASONS else ""


def _meanings() -> dict[str, str]:
    """Reason code -> meaning, of rows dropped because of their table or their file."""
    from engine.data.sources.image_table import DROPS
    from engine.dicom.reasons import REASONS

    return {code: reason.meaning for code, reason in REASONS.items()} | DROPS
