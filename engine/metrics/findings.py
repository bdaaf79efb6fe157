"""One row of figures per finding, and one for their mean: the table that stands in metrics.csv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.metrics.roc import (
    Interval,
    average_precision,
    delong_interval,
    newcombe_interval,
    patient_weights,
    percentiles,
    resampled_auroc,
)
from engine.metrics.thresholds import cut_at, test_max_f1

Floats = NDArray[np.float64]

MACRO = "macro"
RESAMPLES = 1000
_CELLS = 4_000_000
"""Elements of the largest temporary of the bootstrap: resamples are drawn in chunks, so that memory stays flat."""


@dataclass(frozen=True)
class FindingFigures:
    """A row of metrics.csv. Figures are in [0, 1], None where they do not exist, and `reason` then says why.

    Attributes:
        n, n_positive: labelled studies, and those with the finding; of the macro row, findings averaged and their positives.
        auroc_low, auroc_high: the 95 % interval; `interval` names its method: delong (studies of different patients), patient_bootstrap
            (some patients have several studies), newcombe (perfect separation or a single study of a class, where the others say nothing).
        f1, accuracy: at `threshold`, which does not depend on these labels (`threshold_source`: fixed).
        test_max_f1, test_max_f1_accuracy, test_max_f1_threshold: the paper's pair, at the threshold that is best on these very labels.
    """

    finding: str
    n: int
    n_positive: int
    auroc: float | None = None
    auroc_low: float | None = None
    auroc_high: float | None = None
    auprc: float | None = None
    f1: float | None = None
    accuracy: float | None = None
    threshold: float | None = None
    threshold_source: str | None = None
    test_max_f1: float | None = None
    test_max_f1_accuracy: float | None = None
    test_max_f1_threshold: float | None = None
    interval: str | None = None
    reason: str | None = None

    def as_row(self) -> dict[str, Any]:
        """Column -> value."""
        return asdict(self)


def figures(
    findings: Sequence[str],
    scores: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike,
    *,
    threshold: float = 0.5,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[FindingFigures]:
    """The rows of metrics.csv: every finding in the given order, then the macro row over those with both classes.

    Args:
        findings: F names.
        scores: (N, F) in [0, 1].
        labels: (N, F) of 1 = present, 0 = absent, NaN = unknown. A study counts for a finding where its label is known.
        patients: (N,) any label of the patient that each study belongs to.
        threshold: the fixed threshold of f1 and accuracy: scores are centred on 0.5 by their making.
        resamples: of the bootstrap over patients.
        seed: of the bootstrap.

    A finding with one class gets None for what needs two, a reason, and no part in the macro row.
    """
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    eligible = [k for k in range(len(findings)) if _two_classes(y[:, k])]
    draws = _resampled(s, y, patient, eligible, resamples, seed)
    rows = [
        _finding(name, s[:, k], y[:, k], patient, threshold, draws[:, eligible.index(k)] if k in eligible else None)
        for k, name in enumerate(findings)
    ]
    return [*rows, _macro([rows[k] for k in eligible], len(findings), draws)]


def _two_classes(column: Floats) -> bool:
    known = column[~np.isnan(column)]
    return bool((known == 1).any() and (known == 0).any())


def _resampled(s: Floats, y: Floats, patient: NDArray[np.intp], eligible: Sequence[int], resamples: int, seed: int) -> Floats:
    """AUROC of each eligible finding in each resample of the patients, (resamples, eligible); the same resamples for all findings."""
    draws = np.full((resamples, len(eligible)), np.nan)
    if not eligible:
        return draws
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS // len(s))
    for start in range(0, resamples, chunk):
        weights = patient_weights(patient, min(chunk, resamples - start), rng)
        for column, k in enumerate(eligible):
            known = ~np.isnan(y[:, k])
            mine = weights if known.all() else weights[:, known]
            draws[start : start + len(weights), column] = resampled_auroc(s[known, k], y[known, k], mine)
    return draws


def _finding(name: str, s: Floats, y: Floats, patient: NDArray[np.intp], threshold: float, draws: Floats | None) -> FindingFigures:
    known = ~np.isnan(y)
    s, y, patient = s[known], y[known], patient[known]
    n, positives = int(known.sum()), int(y.sum())
    if n == 0:
        return FindingFigures(name, 0, 0, reason="no labels")
    cut = cut_at(s, y, threshold)
    if draws is None:
        reason = "no study with the finding" if positives == 0 else "no study without the finding"
        return FindingFigures(
            name, n, positives, accuracy=cut.accuracy, threshold=cut.threshold, threshold_source=cut.source, reason=reason
        )
    area = delong_interval(s, y)
    if np.unique(patient).size < n and area.method == "delong":
        area = Interval(area.value, *percentiles(draws), "patient_bootstrap")
    if area.method != "delong" and (area.method == "newcombe" or area.high - area.low < 1e-9):
        # As many independent members of each class as there are patients in it
        m, k = np.unique(patient[y == 1]).size, np.unique(patient[y == 0]).size
        area = Interval(area.value, *newcombe_interval(area.value, m, k), "newcombe")
    best = test_max_f1(s, y)
    return FindingFigures(
        finding=name,
        n=n,
        n_positive=positives,
        auroc=area.value,
        auroc_low=area.low,
        auroc_high=area.high,
        auprc=average_precision(s, y),
        f1=cut.f1,
        accuracy=cut.accuracy,
        threshold=cut.threshold,
        threshold_source=cut.source,
        test_max_f1=best.f1,
        test_max_f1_accuracy=best.accuracy,
        test_max_f1_threshold=best.threshold,
        interval=area.method,
    )


def _macro(rows: Sequence[FindingFigures], findings: int, draws: Floats) -> FindingFigures:
    """The mean over findings with both classes; its interval from the same resamples of patients for all findings."""
    if not rows:
        return FindingFigures(MACRO, 0, 0, reason="no finding has studies with and without it")

    def mean(name: str) -> float:
        return float(np.mean([getattr(row, name) for row in rows]))

    drawn = draws[~np.isnan(draws).all(axis=1)]
    means = np.nanmean(drawn, axis=1)
    spread = bool(means.size) and float(np.ptp(means)) > 1e-9
    low, high = percentiles(means) if spread else (None, None)
    left_out = f"mean of {len(rows)} of {findings} findings: the others have one class or no labels" if len(rows) < findings else None
    return FindingFigures(
        finding=MACRO,
        n=len(rows),
        n_positive=sum(row.n_positive for row in rows),
        auroc=mean("auroc"),
        auroc_low=low,
        auroc_high=high,
        auprc=mean("auprc"),
        f1=mean("f1"),
        accuracy=mean("accuracy"),
        threshold=rows[0].threshold,
        threshold_source=rows[0].threshold_source,
        test_max_f1=mean("test_max_f1"),
        test_max_f1_accuracy=mean("test_max_f1_accuracy"),
        interval="patient_bootstrap" if spread else None,
        reason=left_out,
    )
