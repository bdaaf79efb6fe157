"""Report: the tables of a scoring run -> one self-contained HTML page, with no network, no script, and nothing from a file unescaped.

The page is html_report.html.jinja with report.css. It shows what became of the files, figures where there were labels, how
the scores spread, the first studies, sheets of heatmaps where they are handed in, and how it was all made.
Names of studies are those of the tables; nothing else from private/ is looked at.
"""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from engine.dicom.reasons import FAILURES, FLAG_ADVICE, FLAGS, REASONS
from engine.metrics.findings import MACRO, FindingFigures
from engine.metrics.roc import roc_curve
from engine.tables.atomic import publish
from engine.tables.columns import NOTICE, split_flags

SHOWN_STUDIES = 200
"""Rows of the table of studies; the page stays light however many there are."""
SHOWN_SHEETS = 20
"""Sheets of heatmaps in the page, about a megabyte each."""
_BINS = 20
_ORDER = ("reject", "skip", "duplicate")


def report(
    out: Path,
    *,
    run: Mapping[str, Any],
    studies: pl.LazyFrame,
    images: pl.LazyFrame,
    figures: Sequence[FindingFigures],
    labelled: pl.DataFrame,
    sheets: Mapping[str, Path] | None = None,
) -> Path:
    """Write report.html to `out`, whole; the arguments are those of `engine.score.Published`.

    With `sheets` of heatmaps, the first of which go into the page, it says that it shows patients, and only its owner may read it (0600).

    Raises:
        OutputError: it cannot be written.
    """
    text = page(run=run, studies=studies, images=images, figures=figures, labelled=labelled, sheets=sheets)

    def write(stream: BinaryIO) -> None:
        stream.write(text.encode("utf-8", "xmlcharrefreplace"))

    publish(out / "report.html", write, mode=0o600 if sheets else 0o666)
    return out / "report.html"


def page(
    *,
    run: Mapping[str, Any],
    studies: pl.LazyFrame,
    images: pl.LazyFrame,
    figures: Sequence[FindingFigures],
    labelled: pl.DataFrame,
    sheets: Mapping[str, Path] | None = None,
) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    environment.filters |= {"figure": _figure, "short": lambda name: name if len(name) <= 16 else f"{name[:12]}…"}
    findings = [name for name in labelled.columns if name != "study"]
    shown = studies.head(SHOWN_STUDIES).collect()
    return environment.get_template("html_report.html.jinja").render(
        notice=NOTICE,
        styles=Markup((here / "report.css").read_text("utf-8")),
        run=run,
        findings=findings,
        reasons=_reasons(images),
        flags=_flags(images),
        figures=[each.as_row() for each in figures],
        labelled=labelled.height,
        synthetic=synthetic_studies(studies, labelled),
        curves=_curves(studies, labelled, figures),
        spreads=[_spread(name, studies.select(name).collect()[name]) for name in findings] if shown.height else [],
        studies=[
            {
                "study": row["study"],
                "n_images": row["n_images"],
                "flags": row["flags"].replace(";", ", "),
                "scores": [row[f] for f in findings],
            }
            for row in shown.iter_rows(named=True)
        ],
        hidden=run["counts"]["studies"] - shown.height,
        sheets=_sheets(images, sheets or {}),
        all_sheets=len(sheets or {}),
        facts=_facts(run),
    )


def synthetic_studies(studies: pl.LazyFrame, labelled: pl.DataFrame) -> int:
    """How many of the labelled studies say of themselves that they were made, not acquired (flag `synthetic`)."""
    flagged = studies.filter(pl.col("study").is_in(labelled["study"].to_list())).select("flags").collect()["flags"]
    return sum("synthetic" in split_flags(cell) for cell in flagged)


def _figure(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _reasons(images: pl.LazyFrame) -> list[dict[str, Any]]:
    """Why files have no scores of their own: those that failed first, then by outcome, the most frequent reason of each first."""
    counted = images.filter(pl.col("reason").is_not_null()).group_by("outcome", "reason").len()
    rows = [
        {"outcome": outcome, "reason": reason, "files": count, "meaning": REASONS[reason].meaning, "advice": REASONS[reason].advice}
        | {"failed": reason in FAILURES}
        for outcome, reason, count in counted.collect(engine="streaming").iter_rows()
    ]
    return sorted(rows, key=lambda row: (not row["failed"], _ORDER.index(row["outcome"]), -row["files"], row["reason"]))


def _flags(images: pl.LazyFrame) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    for cell, files in images.filter(pl.col("outcome") == "score").group_by("flags").len().collect(engine="streaming").iter_rows():
        counts.update(dict.fromkeys(split_flags(cell), files))
    return [{"flag": flag, "images": count, "meaning": FLAGS[flag], "advice": FLAG_ADVICE[flag]} for flag, count in sorted(counts.items())]


def _spread(finding: str, scores: pl.Series) -> dict[str, Any]:
    """A histogram of 20 bins, the tallest of height 1, and where the scores lie."""
    values = scores.to_numpy()
    counts, _ = np.histogram(values, bins=_BINS, range=(0, 1))
    return {
        "finding": finding,
        "bars": [round(float(count / counts.max()), 3) for count in counts],
        "median": float(np.median(values)),
        "highest": float(values.max()),
    }


def _sheets(images: pl.LazyFrame, sheets: Mapping[str, Path]) -> list[dict[str, str]]:
    """The first sheets in the order of the images: study, image and the PNG as base64; one that has gone meanwhile is left out.

    So is one of a picture with the flag `burned_in`: pages are passed on more easily than folders, and its text may name the patient.
    """
    shown: dict[str, dict[str, str]] = {}
    drawn = images.filter(pl.col("outcome") == "score", pl.col("image").is_in(list(sheets))).select("image", "study", "flags")
    for image, study, flags in drawn.collect().iter_rows() if sheets else ():
        if len(shown) == SHOWN_SHEETS:
            break
        if image not in shown and "burned_in" not in split_flags(flags):
            with suppress(FileNotFoundError):
                shown[image] = {"image": image, "study": study, "png": base64.b64encode(sheets[image].read_bytes()).decode("ascii")}
    return list(shown.values())


def _curves(studies: pl.LazyFrame, labelled: pl.DataFrame, figures: Sequence[FindingFigures]) -> str:
    """ROC curves as base64 of an SVG: as an image, so that no name of a finding could ever become a tag; '' where there are none."""
    drawn = [each for each in figures if each.auroc is not None and each.finding != MACRO]
    if not drawn:
        return ""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    across = min(len(drawn), 5)
    down = math.ceil(len(drawn) / across)
    both = labelled.lazy().join(studies, on="study", how="left", maintain_order="left", suffix=" score").collect()
    with mpl.rc_context({"svg.hashsalt": "mmclip", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(2.3 * across, 2.4 * down), layout="tight")
        for place, each in enumerate(drawn, 1):
            known = both.filter(pl.col(each.finding).is_not_null())
            false, true = roc_curve(known[f"{each.finding} score"].to_numpy(), known[each.finding].to_numpy())
            axes = figure.add_subplot(down, across, place, aspect="equal")
            axes.plot([0, 1], [0, 1], color="#c5ced8", linewidth=0.8)
            axes.plot(false, true, color="#1f6fb2", linewidth=1.4)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 1), yticks=(0, 1))
            axes.set_title(f"{_ascii(each.finding)}  {each.auroc:.2f}", fontsize=8, parse_math=False)
        figure.supxlabel("false positive rate", fontsize=8)
        figure.supylabel("true positive rate", fontsize=8)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _ascii(name: str) -> str:
    """A name that every font has letters for: the plot's, unlike the page's, may lack some."""
    return name.encode("ascii", "replace").decode("ascii")


def _scored_by(recipe: Mapping[str, Any]) -> tuple[str, str]:
    if recipe.get("source") == "classifier":
        return ("classifier", f"{recipe['name']}, sha256 {recipe['sha256']}")
    return ("prompts", f"{recipe['name']}, version {recipe['version']}, sha256 {recipe['sha256']}")


def _facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    options = ", ".join(f"{name} {value}" for name, value in run["options"].items())
    return [
        ("model", f"{run['model']['name']}, sha256 {run['model']['sha256']}"),
        _scored_by(run["recipe"]),
        ("inputs", f"{run['inputs']['files']} files, sha256 of their hashes {run['inputs']['sha256']}"),
        ("device", run["device"]),
        ("options", options),
        ("versions", versions),
        ("seconds", ", ".join(f"{name} {value}" for name, value in run["seconds"].items())),
    ]
