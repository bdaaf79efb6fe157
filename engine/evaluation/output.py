"""The files of an evaluation: their columns, and writing them with run.json last.

metrics.csv, .parquet, .json          one row per evaluation, model and finding, and one of means
table.csv, .parquet                   measured and published figures, as text
subgroups.csv, .parquet               the same figures for each sex, age band, view and source
prompt_sensitivity.csv, .parquet      AUROC of every phrase by itself
comparisons.csv, .parquet             two models on the same studies
reliability.csv, .parquet             Brier score and calibration error with intervals, before and after calibration
predictions.parquet                   score and label of every study, finding and model; studies by pseudonym
evaluation.html                       page of the tables, written by html.py
calibration.json                      with --calibrate: see engine/tables/calibrations.py
run.json                              provenance, splits with their hashes, counts, a hash of every file above
table/, private/                      cached features of the images
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.tables.columns import METRIC_COLUMNS, NOTICE, write_csv, write_parquet
from engine.tables.run_log import RUN, publish_json, publish_run

Schema = dict[str, type[pl.DataType]]
BY_MODEL: Schema = {"evaluation": pl.String, "model": pl.String}
METRICS: Schema = {**BY_MODEL, **METRIC_COLUMNS}
GROUPS: Schema = {**BY_MODEL, "column": pl.String, "group": pl.String, **METRIC_COLUMNS}
PHRASES: Schema = {
    **BY_MODEL, "finding": pl.String, "side": pl.String, "phrase": pl.String, "n": pl.Int64, "n_positive": pl.Int64, "auroc": pl.Float64,
}  # fmt: skip
COMPARISONS: Schema = {
    "evaluation": pl.String, "first": pl.String, "second": pl.String, "finding": pl.String,
    "first_auroc": pl.Float64, "second_auroc": pl.Float64, "difference": pl.Float64, "low": pl.Float64, "high": pl.Float64,
    "p": pl.Float64, "method": pl.String, "reason": pl.String,
}  # fmt: skip
RELIABILITY: Schema = {
    **BY_MODEL, "finding": pl.String, "scores": pl.String, "brier": pl.Float64, "brier_low": pl.Float64, "brier_high": pl.Float64,
    "ece": pl.Float64, "ece_low": pl.Float64, "ece_high": pl.Float64,
}  # fmt: skip
CELLS: Schema = dict.fromkeys(
    (
        "evaluation", "model", "auc", "f1", "accuracy", "auroc", "f1_at_threshold", "accuracy_at_threshold", "threshold", "note",
    ),
    pl.String,
)  # fmt: skip
PREDICTIONS: Schema = {**BY_MODEL, "study": pl.String, "finding": pl.String, "score": pl.Float64, "label": pl.Int8}
SCHEMAS: dict[str, Schema] = {
    "metrics": METRICS,
    "table": CELLS,
    "subgroups": GROUPS,
    "prompt_sensitivity": PHRASES,
    "comparisons": COMPARISONS,
    "reliability": RELIABILITY,
}
PAGE = "evaluation.html"
CALIBRATION = "calibration.json"
_FILES = (
    *(f"{name}.{suffix}" for name in SCHEMAS for suffix in ("csv", "parquet")), "metrics.json", "predictions.parquet", PAGE, CALIBRATION,
)  # fmt: skip

Rows = Sequence[Mapping[str, Any]]


def predictions_of(
    evaluation: str, model: str, studies: Sequence[str], findings: Sequence[str], scores: NDArray[np.float64], labels: NDArray[np.float64]
) -> pl.DataFrame:
    """Rows of predictions.parquet, one per finding and study.

    Args:
        studies: N pseudonyms.
        scores, labels: (N, F); a label is 1, 0, or NaN where it is unknown.
    """
    frames = [
        pl.DataFrame({"study": studies, "score": scores[:, k], "label": pl.Series(labels[:, k]).fill_nan(None).cast(pl.Int8)})
        .with_columns(evaluation=pl.lit(evaluation), model=pl.lit(model), finding=pl.lit(finding))
        .select(pl.col(name).cast(kind) for name, kind in PREDICTIONS.items())
        for k, finding in enumerate(findings)
    ]
    return pl.concat([pl.DataFrame(schema=PREDICTIONS), *frames])


def clear_evaluation(out: Path) -> None:
    """Remove the files of an earlier evaluation, run.json first.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        for name in (RUN, *_FILES):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError("cannot replace the results of an earlier run", why=type(error).__name__, hint="another --out") from None


def publish_evaluation(out: Path, tables: Mapping[str, Rows], predictions: pl.DataFrame, record: Mapping[str, Any]) -> None:
    """Every table as CSV and Parquet, metrics.json with the record, the predictions. Tables are those of `SCHEMAS`.

    Raises:
        OutputError: one cannot be written.
    """
    for name, schema in SCHEMAS.items():
        frame = pl.DataFrame([{column: row.get(column) for column in schema} for row in tables.get(name, ())], schema=schema)
        write_parquet(frame, out / f"{name}.parquet")
        write_csv(frame, out / f"{name}.csv")
    write_parquet(predictions, out / "predictions.parquet")
    publish_json(out / "metrics.json", {"notice": NOTICE, **record, "metrics": list(tables.get("metrics", ()))})


def publish_evaluation_record(out: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """run.json: the record with a SHA-256 of every file that the run wrote; returned as written.

    Raises:
        OutputError: it cannot be written.
    """
    return publish_run(out, {"notice": NOTICE, **record}, _FILES)
