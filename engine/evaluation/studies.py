"""Scored and labelled studies: thresholds, figures, subgroups, calibration and comparison of models."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.metrics.calibration import CalibrationMap, Method, Reliability, fit_map, reliability
from engine.metrics.findings import MACRO, FindingFigures, figures
from engine.metrics.roc import Floats
from engine.metrics.significance import PairedComparison, paired_test
from engine.metrics.thresholds import Threshold, ThresholdSource, chosen_threshold


@dataclass(frozen=True)
class ScoredStudies:
    """N studies and F findings.

    Attributes:
        scores: (N, F) in [0, 1].
        labels: (N, F) of 1 = present, 0 = absent, NaN = unknown.
        patients: (N,) the patient of each study.
        groups: column (sex, age, view, source) -> (N,) group of each study, "" = unknown.
    """

    findings: tuple[str, ...]
    scores: Floats
    labels: Floats
    patients: NDArray[np.str_]
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def with_scores(self, scores: Floats) -> ScoredStudies:
        """The same studies with other scores."""
        return ScoredStudies(self.findings, scores, self.labels, self.patients, self.groups)

    def known(self, k: int) -> tuple[Floats, Floats, NDArray[np.str_]]:
        """Scores, labels and patients of the studies whose label of finding k is known."""
        known = ~np.isnan(self.labels[:, k])
        return self.scores[known, k], self.labels[known, k], self.patients[known]


def nonfinite_counts(test: ScoredStudies) -> dict[str, int]:
    """Finding -> number of labelled studies whose score is NaN or infinite; findings without one are left out."""
    broken = (~np.isfinite(test.scores) & ~np.isnan(test.labels)).sum(axis=0)
    return {name: int(count) for name, count in zip(test.findings, broken, strict=True) if count}


def validation_thresholds(valid: ScoredStudies | None, findings: Sequence[str], source: ThresholdSource, value: float) -> list[Threshold]:
    """One threshold per finding: the best on the validation studies, or `value` (source: fixed) where they lack a class."""
    thresholds = []
    for k in range(len(findings)):
        threshold = Threshold(value)
        if valid is not None and source != "fixed":
            s, y, _ = valid.known(k)
            if 0 < y.sum() < y.size:
                threshold = chosen_threshold(s, y, source)
        thresholds.append(threshold)
    return thresholds


def age_bands(ages: Sequence[float | None], edges: Sequence[float]) -> NDArray[np.str_]:
    """The band of each age in years: "under 18", "18-39", ..., "80 and over"; "" where the age is unknown."""
    between = [f"{low:g}-{high - 1:g}" for low, high in itertools.pairwise(edges)]
    names = [f"under {edges[0]:g}", *between, f"{edges[-1]:g} and over"]
    places = [-1 if age is None or np.isnan(age) else int(np.searchsorted(edges, age, side="right")) for age in ages]
    return np.array(["" if place < 0 else names[place] for place in places], dtype=str)


@dataclass(frozen=True)
class GroupFigures:
    """The figures of one subgroup: studies with the value `group` in `column`."""

    column: str
    group: str
    figures: FindingFigures


def group_figures(test: ScoredStudies, thresholds: Sequence[Threshold], *, fewest: int, resamples: int, seed: int) -> list[GroupFigures]:
    """The figures of every group of each column with at least two; none where a group has fewer than `fewest` of a class."""
    rows = []
    for column, values in test.groups.items():
        names = sorted({str(value) for value in values} - {""})
        if len(names) < 2:
            continue
        for name in names:
            here = values == name
            labels = test.labels[here]
            few = np.minimum((labels == 1).sum(axis=0), (labels == 0).sum(axis=0)) < fewest
            rows_of_group = figures(
                test.findings,
                test.scores[here],
                np.where(few[None, :], np.nan, labels),
                test.patients[here],
                threshold=thresholds,
                resamples=resamples,
                seed=seed,
            )
            for k, row in enumerate(rows_of_group[:-1]):
                rows.append(GroupFigures(column, name, _too_few(test.findings[k], labels[:, k], fewest) if few[k] else row))
            rows.append(GroupFigures(column, name, rows_of_group[-1]))
    return rows


def _too_few(finding: str, labels: Floats, fewest: int) -> FindingFigures:
    positives, n = int((labels == 1).sum()), int((~np.isnan(labels)).sum())
    reason = f"{positives} with and {n - positives} without the finding; {fewest} of each are needed"
    return FindingFigures(finding, n, positives, reason=reason)


@dataclass(frozen=True)
class FittedMap:
    """The calibration map of a finding, and the data it was fitted on; `reason` says why there is no map."""

    map: CalibrationMap | None
    n: int
    n_positive: int
    patients: int
    reason: str | None = None

    def as_section(self) -> dict[str, Any]:
        """The entry of calibration.json."""
        counts = {"n": self.n, "n_positive": self.n_positive, "patients": self.patients}
        return counts | ({"reason": self.reason} if self.map is None else {"slope": self.map.slope, "shift": self.map.shift})


def fit_calibration_maps(valid: ScoredStudies, method: Method) -> dict[str, FittedMap]:
    """Finding -> calibration map fitted on the validation studies."""
    found = {}
    for k, name in enumerate(valid.findings):
        s, y, patients = valid.known(k)
        counts: dict[str, Any] = {"n": y.size, "n_positive": int(y.sum()), "patients": np.unique(patients).size}
        try:
            found[name] = FittedMap(fit_map(s, y, method), **counts)
        except ValueError as error:
            found[name] = FittedMap(None, **counts, reason=str(error))
    return found


def calibrated(studies: ScoredStudies, maps: Mapping[str, CalibrationMap | None]) -> ScoredStudies:
    """The studies with calibrated scores; findings without a map keep theirs."""
    columns = [
        fitted(studies.scores[:, k]) if (fitted := maps.get(name)) else studies.scores[:, k] for k, name in enumerate(studies.findings)
    ]
    return studies.with_scores(np.stack(columns, axis=1) if columns else studies.scores)


def reliabilities(test: ScoredStudies, *, resamples: int, seed: int) -> dict[str, Reliability]:
    """Finding -> agreement of its scores with probabilities, for findings with both classes."""
    found = {}
    for k, name in enumerate(test.findings):
        s, y, patients = test.known(k)
        if 0 < y.sum() < y.size:
            found[name] = reliability(s, y, patients, resamples=resamples, seed=seed)
    return found


def paired_comparisons(first: ScoredStudies, second: ScoredStudies) -> dict[str, PairedComparison | str]:
    """Finding -> paired test of two models on the same studies, or the reason why there is none."""
    found: dict[str, PairedComparison | str] = {}
    for k, name in enumerate(first.findings):
        s, y, patients = first.known(k)
        try:
            found[name] = paired_test(s, second.known(k)[0], y, patients)
        except ValueError as error:
            found[name] = str(error)
    return found


def study_figures(test: ScoredStudies, thresholds: Sequence[Threshold], *, resamples: int, seed: int) -> list[FindingFigures]:
    """The rows of metrics.csv of these studies, the macro row last."""
    rows = figures(test.findings, test.scores, test.labels, test.patients, threshold=thresholds, resamples=resamples, seed=seed)
    # The mean of a single finding is that finding, with the intervals of AUPRC and F1
    if len(test.findings) == 1 and rows[0].auroc is not None:
        return [rows[0], FindingFigures(**rows[0].as_row() | {"finding": MACRO, "n": 1})]
    return rows
