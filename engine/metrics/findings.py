"""One row of figures per finding, and one for their mean: the table that stands in metrics.csv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.metrics.bootstrap import Curves, Ranked, patient_weights, percentiles
from engine.metrics.calibration import brier, ece
from engine.metrics.roc import Floats, Interval, average_precision, delong_interval, newcombe_interval
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
        auroc_low, auroc_high: the 95 % interval; `interval` names its method: delong (studies of different patients), patient_bootstrap
            (some patients have several studies), newcombe (perfect separation or a single study of a class, where the others say nothing).
        auprc_low, auprc_high, f1_low, f1_high, test_max_f1_low, test_max_f1_high: 95 % by the bootstrap over patients, always; in each
            resample test_max_f1 chooses its threshold anew.
        f1, accuracy, sensitivity, specificity, mcc: at `threshold`, which does not depend on these labels (`threshold_source`).
        test_max_f1, test_max_f1_accuracy, test_max_f1_threshold: the paper's pair, at the threshold that is best on these very labels.
        brier, ece: of the scores as probabilities (see calibration.py); scores of words are none, and say so here.
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

    auroc: Floats
    auprc: Floats
    max_f1: Floats
    f1: Floats


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

    A finding with one class gets None for what needs two, a reason, and no part in the macro row.
    """
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    cuts = [Threshold(threshold)] * len(findings) if isinstance(threshold, float) else list(threshold)
    eligible = [k for k in range(len(findings)) if _two_classes(y[:, k])]
    draws = _resampled(s, y, patient, eligible, cuts, resamples, seed)
    rows = []
    for k, name in enumerate(findings):
        mine = _Draws(*(each[:, eligible.index(k)] for each in _all(draws))) if k in eligible else None
        rows.append(_finding(name, s[:, k], y[:, k], patient, cuts[k], mine))
    return [*rows, _macro([rows[k] for k in eligible], len(findings), draws.auroc)]


def _all(draws: _Draws) -> tuple[Floats, Floats, Floats, Floats]:
    return draws.auroc, draws.auprc, draws.max_f1, draws.f1


def _two_classes(column: Floats) -> bool:
    known = column[~np.isnan(column)]
    return bool((known == 1).any() and (known == 0).any())


def _resampled(
    s: Floats, y: Floats, patient: NDArray[np.intp], eligible: Sequence[int], cuts: Sequence[Threshold], resamples: int, seed: int
) -> _Draws:
    draws = _Draws(*(np.full((resamples, len(eligible)), np.nan) for _ in range(4)))
    if not eligible:
        return draws
    known = [np.flatnonzero(~np.isnan(y[:, k])) for k in eligible]
    ranked = [Ranked(s[rows, k], y[rows, k], rows) for rows, k in zip(known, eligible, strict=True)]
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
        # No positive drawn: no F1, as there is no AUROC
        draws.f1[rows] = np.where(positives > 0, 2 * hits / np.maximum(calls + positives, 1), np.nan)
        for column, each in enumerate(ranked):
            curves: Curves = each.curves(weights)
            draws.auroc[rows, column], draws.auprc[rows, column], draws.max_f1[rows, column] = curves.auroc, curves.auprc, curves.max_f1
    return draws


def _finding(name: str, s: Floats, y: Floats, patient: NDArray[np.intp], threshold: Threshold, draws: _Draws | None) -> FindingFigures:
    known = ~np.isnan(y)
    s, y, patient = s[known], y[known], patient[known]
    n, positives = int(known.sum()), int(y.sum())
    if n == 0:
        return FindingFigures(name, 0, 0, reason="no labels")
    cut = cut_at(s, y, threshold.value, threshold.source)
    at_threshold: dict[str, Any] = {
        "accuracy": cut.accuracy,
        "sensitivity": cut.sensitivity,
        "specificity": cut.specificity,
        "threshold": cut.threshold,
        "threshold_source": cut.source,
        "brier": brier(s, y),
        "ece": ece(s, y),
    }
    if draws is None:
        reason = "no study with the finding" if positives == 0 else "no study without the finding"
        return FindingFigures(name, n, positives, **at_threshold, reason=reason)
    area = delong_interval(s, y)
    if np.unique(patient).size < n and area.method == "delong":
        area = Interval(area.value, *percentiles(draws.auroc), "patient_bootstrap")
    if area.method != "delong" and (area.method == "newcombe" or area.high - area.low < 1e-9):
        # As many independent members of each class as there are patients in it
        m, k = np.unique(patient[y == 1]).size, np.unique(patient[y == 0]).size
        area = Interval(area.value, *newcombe_interval(area.value, m, k), "newcombe")
    best = test_max_f1(s, y)
    spread: dict[str, Any] = {
        f"{name}_{edge}": value
        for name, drawn in (("auprc", draws.auprc), ("f1", draws.f1), ("test_max_f1", draws.max_f1))
        for edge, value in zip(("low", "high"), percentiles(drawn), strict=True)
    }
    return FindingFigures(
        finding=name,
        n=n,
        n_positive=positives,
        auroc=area.value,
        auroc_low=area.low,
        auroc_high=area.high,
        auprc=average_precision(s, y),
        f1=cut.f1,
        mcc=cut.mcc,
        test_max_f1=best.f1,
        test_max_f1_accuracy=best.accuracy,
        test_max_f1_threshold=best.threshold,
        interval=area.method,
        **at_threshold,
        **spread,
    )


_AVERAGED = (
    "auroc", "auprc", "f1", "accuracy", "sensitivity", "specificity", "mcc", "test_max_f1", "test_max_f1_accuracy", "brier", "ece",
)  # fmt: skip


def _macro(rows: Sequence[FindingFigures], findings: int, draws: Floats) -> FindingFigures:
    """The mean over findings with both classes; its interval from the same resamples of patients for all findings."""
    if not rows:
        return FindingFigures(MACRO, 0, 0, reason="no finding has studies with and without it")
    drawn = draws[~np.isnan(draws).all(axis=1)]
    means = np.nanmean(drawn, axis=1)
    spread = bool(means.size) and float(np.ptp(means)) > 1e-9
    low, high = percentiles(means) if spread else (None, None)
    left_out = f"mean of {len(rows)} of {findings} findings: the others have one class or no labels" if len(rows) < findings else None
    averages = {name: float(np.mean([getattr(row, name) for row in rows])) for name in _AVERAGED}
    thresholds, sources = {row.threshold for row in rows}, {row.threshold_source for row in rows}
    return FindingFigures(
        finding=MACRO,
        n=len(rows),
        n_positive=sum(row.n_positive for row in rows),
        auroc_low=low,
        auroc_high=high,
        threshold=rows[0].threshold if len(thresholds) == 1 else None,
        threshold_source=", ".join(sorted(filter(None, sources))),
        interval="patient_bootstrap" if spread else None,
        reason=left_out,
        **averages,
    )
