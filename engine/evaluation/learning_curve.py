"""The learning curve of a fine-tuning run: one row per fraction, way of scoring and finding, as CSV, JSON and SVG.

    curve.csv     fraction, method, train_patients, train_images, train_positive, then the columns of metrics.csv
    curve.json    the same rows, with the split's hashes
    curve.svg     macro AUROC on the test part over the share of patients trained on

`method` is full or linear (this run's classifier), raw_pixels (logistic regression on 32 x 32 grey values of the same images) or
zero_shot (prompts only, fraction 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.metrics.findings import FindingFigures, figures
from engine.tables.atomic import publish
from engine.tables.columns import METRIC_COLUMNS, NOTICE, write_csv
from engine.tables.run_log import publish_json


@dataclass(frozen=True)
class ValidationChoice:
    """The best step, or the best strength C of a linear probe, by macro AUROC on the validation split.

    Attributes:
        what: step or strength.
        auroc: there.
    """

    fraction: float
    method: str
    what: str
    value: float
    auroc: float | None


@dataclass(frozen=True)
class CurvePoint:
    """Figures on the test split: one row per finding and their mean, by method (full, linear, raw_pixels, zero_shot)."""

    fraction: float
    method: str
    figures: tuple[FindingFigures, ...]


@dataclass(frozen=True)
class HeldOutSet:
    """The labels of the test split, on which every method is judged.

    Attributes:
        findings: F names, in the order of the rows of figures.
        labels: (N, F) of 1 = present, 0 = absent, NaN = unknown.
        patients: (N,) any label of the patient that each image belongs to.
    """

    findings: tuple[str, ...]
    labels: NDArray[np.floating[Any]]
    patients: NDArray[Any]

    def measured(self, fraction: float, method: str, scored: Sequence[str], scores: NDArray[np.float64], reason: str) -> CurvePoint:
        """The figures of these scores; findings without scores have a row with the reason.

        Args:
            fraction: of the training patients; 0 for none.
            scored: S of the findings, in any order.
            scores: (N, S) in [0, 1].
            reason: why the other findings have no score.
        """
        columns = [self.findings.index(name) for name in scored]
        rows = {row.finding: row for row in figures(list(scored), scores, self.labels[:, columns], self.patients)}
        for column, name in enumerate(self.findings):
            if name not in rows:
                known = self.labels[:, column][~np.isnan(self.labels[:, column])]
                rows[name] = FindingFigures(name, len(known), int(known.sum()), reason=reason)
        return CurvePoint(fraction, method, tuple(rows[name] for name in (*self.findings, "macro")))


def curve_rows(measured: CurvePoint, patients: int = 0, images: int = 0, positive: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """The rows of curve.csv, one per row of figures.

    Args:
        patients, images: trained on.
        positive: finding -> training images that show it; the macro row has their sum, and findings left out have 0.
    """
    positive = positive or {}
    counts = {**positive, "macro": sum(positive.values())}
    return [
        {
            "fraction": measured.fraction,
            "method": measured.method,
            "train_patients": patients,
            "train_images": images,
            "train_positive": counts.get(row.finding, 0),
            **row.as_row(),
        }
        for row in measured.figures
    ]


METHODS = {"full": "fine-tuned", "linear": "linear probe", "raw_pixels": "raw pixels", "zero_shot": "zero-shot"}
"""Method -> its name in the figure."""

CURVE_COLUMNS: dict[str, type[pl.DataType]] = {
    "fraction": pl.Float64,
    "method": pl.String,
    "train_patients": pl.Int64,
    "train_images": pl.Int64,
    "train_positive": pl.Int64,
    **METRIC_COLUMNS,
}


def publish_curve(out: Path, rows: Sequence[Mapping[str, Any]], account: Mapping[str, Any]) -> None:
    """curve.csv, curve.json and curve.svg, each whole or not at all.

    Args:
        rows: a value for every column of `CURVE_COLUMNS`.
        account: further keys of curve.json.

    Raises:
        OutputError: one cannot be written.
    """
    write_csv(pl.DataFrame(list(rows), schema=CURVE_COLUMNS), out / "curve.csv")
    publish_json(out / "curve.json", {"notice": NOTICE, **account, "curve": list(rows)})
    publish(out / "curve.svg", lambda stream: stream.write(curve_svg(rows)))


def curve_svg(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The macro rows as an SVG: the same rows give the same bytes."""
    from io import BytesIO

    import matplotlib as mpl
    from matplotlib.figure import Figure

    macro = [row for row in rows if row["finding"] == "macro" and row["auroc"] is not None]
    with mpl.rc_context({"svg.hashsalt": "mmclip", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(4.2, 3.0))
        axes = figure.add_subplot()
        for method in METHODS:
            points = sorted((row for row in macro if row["method"] == method), key=lambda row: row["fraction"])
            if not points:
                continue
            values = [row["auroc"] for row in points]
            if method == "zero_shot":
                axes.axhline(values[0], linestyle="--", color="grey", label=METHODS[method])
                continue
            low = [row["auroc"] - (row["auroc_low"] if row["auroc_low"] is not None else row["auroc"]) for row in points]
            high = [(row["auroc_high"] if row["auroc_high"] is not None else row["auroc"]) - row["auroc"] for row in points]
            shares = [100 * row["fraction"] for row in points]
            axes.errorbar(shares, values, yerr=[low, high], marker="o", capsize=2, linewidth=1, label=METHODS[method])
        axes.set_xscale("log")
        axes.set_xlabel("patients trained on (%)")
        axes.set_ylabel("macro AUROC, test split (95 %)")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
        axes.set_title(NOTICE, fontsize=6)
        stream = BytesIO()
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return stream.getvalue()
