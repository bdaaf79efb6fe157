"""The rows of metrics.csv: the figures of each finding, and of their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.metrics.bootstrap import SortedStudies, patient_weights, percentiles
from engine.metrics.calibration import brier, ece
from engine.metrics.intervals import Area, area_interval, area_of, mean_interval, wilson_interval
from engine.metrics.roc import Floats, average_precision
from engine.metrics.thresholds import Threshold, cut_at, test_max_f1

MACRO = "macro"
RESAMPLES = 1000
_CELLS = 4_000_000
"""Elements of the largest temporary of the bootstrap: resamples are drawn in chunks, so that memory stays flat."""


@dataclass(frozen=True)
class FindingFigures:
    """A row of metrics.csv. Figures are in [0, 1] (mcc: -1 to 1), None where they do not exist, and `reason` then says why.

    Attributes:
        n, n_positive: labelled studies, and those with the finding; of the macro row, findings averaged and their positives.
        auroc_low, auroc_high: the 95 % interval; `interval` names its method (see intervals.py): newcombe (fewer than ten patients of a
            class), logit_delong, and mover for the mean of several findings.
        auprc_low, auprc_high, f1_low, f1_high, test_max_f1_low, test_max_f1_high: 95 % by the bootstrap over patients, and by Wilson
            over the patients with the finding where all resamples agree; test_max_f1 takes the best threshold of each resample.
        f1, accuracy, sensitivity, specificity, mcc: at `threshold`, which does not depend on these labels (`threshold_source`).
        test_max_f1, test_max_f1_accuracy, test_max_f1_threshold: as in the paper, at the threshold that is best on these labels.
        brier, ece: of the scores as probabilities (see calibration.py); zero-shot scores are not calibrated, and these figures show it.
    """

    finding: str
    n: int
    n_positive: int
    auroc: float | None = None
    auroc_low: float | None = None
    auroc_high: float | None = None
    auprc: float | None = None
    auprc_low: float | None = None
    auprc_high: float | None = None
    f1: float | None = None
    f1_low: float | None = None
    f1_high: float | None = None
    accuracy: float | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    mcc: float | None = None
    threshold: float | None = None
    threshold_source: str | None = None
    test_max_f1: float | None = None
    test_max_f1_low: float | None = None
    test_max_f1_high: float | None = None
    test_max_f1_accuracy: float | None = None
    test_max_f1_threshold: float | None = None
    brier: float | None = None
    ece: float | None = None
    interval: str | None = None
    reason: str | None = None

    def as_row(self) -> dict[str, Any]:
        """Column -> value."""
        return asdict(self)


@dataclass(frozen=True)
class _Draws:
    """Figures of the resamples, each (resamples, eligible findings); the same resamples for all findings."""

    auprc: Floats
    f1: Floats
    test_max_f1: Floats


def figures(
    findings: Sequence[str],
    scores: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike,
    *,
    threshold: float | Sequence[Threshold] = 0.5,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[FindingFigures]:
    """The rows of metrics.csv: every finding in the given order, then the macro row over those with both classes.

    Args:
        findings: F names.
        scores: (N, F) in [0, 1]; finite wherever a label is known.
        labels: (N, F) of 1 = present, 0 = absent, NaN = unknown. A study counts for a finding where its label is known.
        patients: (N,) any label of the patient that each study belongs to.
        threshold: of f1, accuracy and what goes with them: one fixed threshold, or one for each finding with its source.
        resamples: of the bootstrap over patients.
        seed: of the bootstrap.

    A finding with one class gets None for what needs two, and a reason; the macro row leaves it out.
    """
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    names, patient = np.unique(np.asarray(patients), return_inverse=True)
    cuts = [Threshold(threshold)] * len(findings) if isinstance(threshold, float) else list(threshold)
    eligible = [k for k in range(len(findings)) if _two_classes(y[:, k])]
    draws = _resampled(s, y, patient, eligible, cuts, resamples, seed)
    areas, rows = {}, []
    for k, name in enumerate(findings):
        known = np.flatnonzero(~np.isnan(y[:, k]))
        row = _at_threshold(name, s[known, k], y[known, k], cuts[k])
        if k in eligible:
            areas[k] = area_of(s[known, k], y[known, k], patient[known], names.size)
            row |= _ranking(s[known, k], y[known, k], areas[k])
            row |= _resampled_intervals(draws, eligible.index(k), row, areas[k].positives)
        rows.append(FindingFigures(**row))
    return [*rows, _macro([rows[k] for k in eligible], list(areas.values()), len(findings))]


def _two_classes(column: Floats) -> bool:
    known = column[~np.isnan(column)]
    return bool((known == 1).any() and (known == 0).any())


def _resampled(
    s: Floats, y: Floats, patient: NDArray[np.intp], eligible: Sequence[int], cuts: Sequence[Threshold], resamples: int, seed: int
) -> _Draws:
    draws = _Draws(*(np.full((resamples, len(eligible)), np.nan) for _ in range(3)))
    if not eligible:
        return draws
    known = [np.flatnonzero(~np.isnan(y[:, k])) for k in eligible]
    ordered = [SortedStudies(s[rows, k], y[rows, k], rows) for rows, k in zip(known, eligible, strict=True)]
    # Weighted counts of all findings at once: studies called and present, and studies called or present (2TP + FP + FN is their sum)
    called, present = s[:, eligible] >= np.array([cuts[k].value for k in eligible]), y[:, eligible] == 1
    called &= ~np.isnan(y[:, eligible])
    counted = np.concatenate([called & present, called, present], axis=1).astype(np.float32)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS // len(s))
    for start in range(0, resamples, chunk):
        weights = patient_weights(patient, min(chunk, resamples - start), rng)
        rows = slice(start, start + len(weights))
        hits, calls, positives = np.split(weights.astype(np.float32) @ counted, 3, axis=1)
        # No positive drawn: no F1
        draws.f1[rows] = np.where(positives > 0, 2 * hits / np.maximum(calls + positives, 1), np.nan)
        for column, each in enumerate(ordered):
            found = each.resampled(weights)
            draws.auprc[rows, column], draws.test_max_f1[rows, column] = found.average_precision, found.max_f1
    return draws


def _at_threshold(name: str, s: Floats, y: Floats, threshold: Threshold) -> dict[str, Any]:
    """Cells that need labels of one class only, and why there are no others."""
    n, positives = len(y), int(y.sum())
    if n == 0:
        return {"finding": name, "n": 0, "n_positive": 0, "reason": "no labels"}
    cut = cut_at(s, y, threshold.value, threshold.source)
    return {
        "finding": name,
        "n": n,
        "n_positive": positives,
        "accuracy": cut.accuracy,
        "sensitivity": cut.sensitivity,
        "specificity": cut.specificity,
        "threshold": cut.threshold,
        "threshold_source": cut.source,
        "f1": cut.f1 if 0 < positives < n else None,
        "mcc": cut.mcc,
        "brier": brier(s, y),
        "ece": ece(s, y),
        "reason": "no study with the finding" if positives == 0 else "no study without the finding" if positives == n else None,
    }


def _ranking(s: Floats, y: Floats, area: Area) -> dict[str, Any]:
    """Cells that need both classes, without those of the bootstrap."""
    interval, best = area_interval(area), test_max_f1(s, y)
    return {
        "auroc": interval.value,
        "auroc_low": interval.low,
        "auroc_high": interval.high,
        "interval": interval.method,
        "auprc": average_precision(s, y),
        "test_max_f1": best.f1,
        "test_max_f1_accuracy": best.accuracy,
        "test_max_f1_threshold": best.threshold,
    }


def _resampled_intervals(draws: _Draws, column: int, row: dict[str, Any], positives: int) -> dict[str, Any]:
    """The intervals of AUPRC and F1 of one finding; `positives` is the number of patients with it."""
    cells: dict[str, float] = {}
    for name in ("auprc", "f1", "test_max_f1"):
        low, high = percentiles(getattr(draws, name)[:, column])
        if high - low < 1e-9:
            low, high = wilson_interval(row[name], positives)
        cells |= {f"{name}_low": low, f"{name}_high": high}
    return cells


_AVERAGED = (
    "auroc", "auprc", "f1", "accuracy", "sensitivity", "specificity", "mcc", "test_max_f1", "test_max_f1_accuracy", "brier", "ece",
)  # fmt: skip


def _macro(rows: Sequence[FindingFigures], areas: Sequence[Area], findings: int) -> FindingFigures:
    """The mean over the findings with both classes."""
    if not rows:
        return FindingFigures(MACRO, 0, 0, reason="no finding has studies with and without it")
    interval = mean_interval(areas)
    left_out = f"mean of {len(rows)} of {findings} findings: the others have one class or no labels" if len(rows) < findings else None
    averages = {name: float(np.mean([getattr(row, name) for row in rows])) for name in _AVERAGED}
    thresholds, sources = {row.threshold for row in rows}, {row.threshold_source for row in rows}
    return FindingFigures(
        finding=MACRO,
        n=len(rows),
        n_positive=sum(row.n_positive for row in rows),
        auroc_low=interval.low,
        auroc_high=interval.high,
        threshold=rows[0].threshold if len(thresholds) == 1 else None,
        threshold_source=", ".join(sorted(filter(None, sources))),
        interval=interval.method,
        reason=left_out,
        **averages,
    )
