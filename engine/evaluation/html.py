"""The page of an evaluation: its tables as one self-contained HTML file without script or network access."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from engine.evaluation.output import PAGE
from engine.evaluation.published import NOT_PUBLISHED, one_auroc
from engine.tables.atomic import publish
from engine.tables.columns import NOTICE

SHOWN_GROUPS = 400
"""Rows of the table of subgroups on the page; subgroups.csv has all."""
SHOWN_CURVES = 10
LONGEST_FACT = 400
"""Characters of a value of run.json on the page; run.json has all."""


def evaluation_report(
    out: Path, *, run: Mapping[str, Any], tables: Mapping[str, Sequence[Mapping[str, Any]]], curves: Sequence[Mapping[str, Any]]
) -> Path:
    """Write evaluation.html to `out`, whole; the arguments are those of `engine.evaluation.events.TablesWritten`.

    Raises:
        OutputError: it cannot be written.
    """
    text = page(run=run, tables=tables, curves=curves)

    def write(stream: BinaryIO) -> None:
        stream.write(text.encode("utf-8", "xmlcharrefreplace"))

    publish(out / PAGE, write)
    return out / PAGE


def page(*, run: Mapping[str, Any], tables: Mapping[str, Sequence[Mapping[str, Any]]], curves: Sequence[Mapping[str, Any]]) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    environment.filters |= {"figure": _figure}
    measured, groups = ([row for row in tables.get(name, ()) if row.get("auroc") is not None] for name in ("metrics", "subgroups"))
    return environment.get_template("evaluation.html.jinja").render(
        notice=NOTICE,
        styles=Markup((here.parent / "report.css").read_text("utf-8")),
        run=run,
        summaries=_summaries(run),
        models=one_auroc(tables.get("table", ())),
        published=any(row["auroc"] == NOT_PUBLISHED for row in tables.get("table", ())),
        figures=measured,
        unmeasured=_unmeasured(tables.get("metrics", ())),
        groups=groups[:SHOWN_GROUPS],
        hidden_groups=max(0, len(groups) - SHOWN_GROUPS),
        small_groups=len(tables.get("subgroups", ())) - len(groups),
        spreads=_spreads(tables.get("prompt_sensitivity", ())),
        comparisons=tables.get("comparisons", ()),
        reliability=sorted(tables.get("reliability", ()), key=lambda row: str(row["finding"])),
        curves=_reliability_curves(curves),
        facts=list(_facts(run)),
    )


def _figure(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _summaries(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(model, first paragraph of its card), of the models that have one."""
    models = [model for row in run.get("evaluations", ()) for model in row["models"]]
    models += [run["scores"]["model"]] if "scores" in run else []
    return list({model["name"]: summary for model in models if (summary := model.get("summary"))}.items())


def _unmeasured(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(reason, findings) of the findings without an AUROC."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.get("auroc") is None and row["reason"]:
            found.setdefault(row["reason"], []).append(row["finding"])
    return [(reason, ", ".join(dict.fromkeys(names))) for reason, names in found.items()]


def _facts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of run.json by dotted key, each at most `LONGEST_FACT` characters; the notice is on the page already."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if (name, key) != ("", "notice"):
                yield from _facts(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
        for number, each in enumerate(value):
            yield from _facts(each, f"{name}.{number}")
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else "–" if value is None else str(value)
        yield name, text if len(text) <= LONGEST_FACT else f"{text[:LONGEST_FACT]}…"


def _spreads(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """AUROC by phrase: lowest, highest and standard deviation of each evaluation, model and finding."""
    found: dict[tuple[str, str, str], list[tuple[float, str]]] = {}
    for row in rows:
        if row["auroc"] is not None:
            found.setdefault((row["evaluation"], row["model"], row["finding"]), []).append((row["auroc"], row["phrase"]))
    spreads = []
    for (evaluation, model, finding), areas in found.items():
        mean = sum(area for area, _ in areas) / len(areas)
        deviation = math.sqrt(sum((area - mean) ** 2 for area, _ in areas) / len(areas))
        spreads.append(
            {
                "evaluation": evaluation, "model": model, "finding": finding, "phrases": len(areas),
                "lowest": min(areas), "highest": max(areas), "deviation": deviation,
            }
        )  # fmt: skip
    return spreads


def _reliability_curves(curves: Sequence[Mapping[str, Any]]) -> str:
    """Reliability curves before and after calibration as base64 of an SVG; "" where nothing was calibrated."""
    findings = list(dict.fromkeys(curve["finding"] for curve in curves))[:SHOWN_CURVES]
    if not findings:
        return ""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    across = min(len(findings), 5)
    down = math.ceil(len(findings) / across)
    with mpl.rc_context({"svg.hashsalt": "mmclip", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(2.3 * across, 2.4 * down), layout="tight")
        for place, finding in enumerate(findings, 1):
            axes = figure.add_subplot(down, across, place, aspect="equal")
            axes.plot([0, 1], [0, 1], color="#c5ced8", linewidth=0.8)
            for scores, colour in (("raw", "#b2561f"), ("calibrated", "#1f6fb2")):
                points = [curve["curve"] for curve in curves if curve["finding"] == finding and curve["scores"] == scores]
                for curve in points[:1]:
                    axes.plot([mean for mean, _, _ in curve], [share for _, share, _ in curve], color=colour, marker="o", markersize=2.5)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 1), yticks=(0, 1))
            axes.set_title(str(finding).encode("ascii", "replace").decode("ascii"), fontsize=8, parse_math=False)
        figure.supxlabel("mean score of a bin (orange: raw, blue: calibrated)", fontsize=8)
        figure.supylabel("share with the finding", fontsize=8)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return base64.b64encode(stream.getvalue()).decode("ascii")
