"""The learning curve of a fine-tuning run: one row per fraction, way of scoring and finding, as CSV, JSON and a picture.

    curve.csv     fraction, method, train_patients, train_images, train_positive, then the columns of metrics.csv
    curve.json    the same rows, with the split's hashes
    curve.svg     macro AUROC on the test part over the share of patients trained on

`method` is full or linear (this run's classifier), raw_pixels (logistic regression on small grey pictures, on the same images) or
zero_shot (words alone, fraction 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from engine.tables.columns import METRIC_COLUMNS, NOTICE, write_csv
from engine.tables.publish import publish
from engine.tables.run_record import publish_json

METHODS = {"full": "fine-tuned", "linear": "linear probe", "raw_pixels": "raw pixels", "zero_shot": "zero-shot"}
"""Method -> how the picture calls it."""

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
        account: what else curve.json says.

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
        axes.set_ylabel("macro AUROC, test part (95 %)")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
        axes.set_title(NOTICE, fontsize=6)
        stream = BytesIO()
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return stream.getvalue()
