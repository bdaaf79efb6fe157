"""The report of a scoring run: its tables as one self-contained HTML page without script or network access; all values are escaped.

html_report.html.jinja with report.css. Sections: outcomes of the files, figures where there are labels, distribution of the scores, first
studies, heatmaps where given, provenance. Studies have the names of the tables; private/ is not read.
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
"""Rows of the table of studies."""
SHOWN_SHEETS = 20
"""Sheets of heatmaps in the page, about a megabyte each."""
COMMON_FLAG = 0.5
"""Flags of a larger share of the scored images are shown in one line: they say little about a single image."""
CORRELATED = 0.8
"""Median rank correlation of the findings' scores from which the page warns."""
ALIKE = 0.02
"""Standard deviation of scores below which studies hardly differ."""
_FEWEST_STUDIES, _MOST_STUDIES = 20, 5000
"""Studies that a warning about scores needs, and is computed from at most."""
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
    """Write report.html to `out`, whole; the arguments are those of the event that `engine.score` yields before it.

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
    flags = _flags(images)
    common = [each for each in flags if each["images"] > COMMON_FLAG * run["counts"]["score"]]
    shown = studies.head(SHOWN_STUDIES).collect()
    return environment.get_template("html_report.html.jinja").render(
        notice=NOTICE,
        styles=Markup((here / "report.css").read_text("utf-8")),
        run=run,
        findings=findings,
        reasons=_reasons(images),
        flags=[each for each in flags if each not in common],
        common_flags=common,
        warnings=_score_warnings(studies, findings),
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
    """Number of labelled studies with the flag `synthetic`: drawn, not acquired."""
    flagged = studies.filter(pl.col("study").is_in(labelled["study"].to_list())).select("flags").collect()["flags"]
    return sum("synthetic" in split_flags(cell) for cell in flagged)


def _figure(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _reasons(images: pl.LazyFrame) -> list[dict[str, Any]]:
    """The reasons of files without scores: failures first, then by outcome and frequency."""
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


def _score_warnings(studies: pl.LazyFrame, findings: Sequence[str]) -> list[str]:
    """Sentences about scores that carry little information: findings that move together, or studies that hardly differ."""
    scores = studies.head(_MOST_STUDIES).select(findings).collect().to_numpy() if findings else np.empty((0, 0))
    if len(scores) < _FEWEST_STUDIES:
        return []
    spreads = scores.std(axis=0)
    warnings = []
    if alike := [finding for finding, spread in zip(findings, spreads, strict=True) if spread < ALIKE]:
        warnings.append(f"Studies hardly differ (standard deviation of the score below {ALIKE}): {', '.join(alike)}.")
    ranks = scores[:, spreads > 0].argsort(axis=0).argsort(axis=0)
    if ranks.shape[1] >= 3:
        correlations = np.corrcoef(ranks, rowvar=False)[np.triu_indices(ranks.shape[1], 1)]
        if (median := float(np.median(correlations))) > CORRELATED:
            warnings.append(
                f"The scores of the {ranks.shape[1]} findings move together (median rank correlation {median:.2f}): they mostly tell how "
                "abnormal an image looks to the model, not which finding it has."
            )
    return warnings


def _spread(finding: str, scores: pl.Series) -> dict[str, Any]:
    """A histogram of 20 bins, the tallest of height 1, with median and highest score."""
    values = scores.to_numpy()
    counts, _ = np.histogram(values, bins=_BINS, range=(0, 1))
    return {
        "finding": finding,
        "bars": [round(float(count / counts.max()), 3) for count in counts],
        "median": float(np.median(values)),
        "highest": float(values.max()),
    }


def _sheets(images: pl.LazyFrame, sheets: Mapping[str, Path]) -> list[dict[str, str]]:
    """The first sheets in the order of the images: study, image and the PNG as base64; missing files are left out.

    Images with the flag `burned_in` are left out too: their text may name the patient, and pages are passed on.
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
    """ROC curves as base64 of an SVG, an image, so that names of findings cannot become tags; "" where there are none."""
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
    """A name in ASCII: the fonts of the plot may lack other letters."""
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
