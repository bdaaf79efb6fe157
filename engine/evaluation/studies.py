"""Studies with scores and labels -> all that is said about them: thresholds, figures, groups, calibration."""

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
class Studies:
    """N studies and F findings.

    Attributes:
        scores: (N, F) in [0, 1].
        labels: (N, F) of 1 = present, 0 = absent, NaN = unknown.
        patients: (N,) whose studies they are.
        groups: column (sex, age, view, source) -> (N,) group of each study, "" = unknown.
    """

    findings: tuple[str, ...]
    scores: Floats
    labels: Floats
    patients: NDArray[np.str_]
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def with_scores(self, scores: Floats) -> Studies:
        """The same studies scored otherwise."""
        return Studies(self.findings, scores, self.labels, self.patients, self.groups)

    def known(self, k: int) -> tuple[Floats, Floats, NDArray[np.str_]]:
        """Scores, labels and patients of the studies whose label of finding k is known."""
        there = ~np.isnan(self.labels[:, k])
        return self.scores[there, k], self.labels[there, k], self.patients[there]


def not_finite(test: Studies) -> dict[str, int]:
    """Finding -> labelled studies whose score is NaN or infinite; empty where all is well."""
    broken = (~np.isfinite(test.scores) & ~np.isnan(test.labels)).sum(axis=0)
    return {name: int(count) for name, count in zip(test.findings, broken, strict=True) if count}


def thresholds_on(valid: Studies | None, findings: Sequence[str], source: ThresholdSource, value: float) -> list[Threshold]:
    """One threshold per finding: the best of the validation studies, or `value`, named fixed, where they do not have both classes."""
    chosen = []
    for k in range(len(findings)):
        threshold = Threshold(value)
        if valid is not None and source != "fixed":
            s, y, _ = valid.known(k)
            if 0 < y.sum() < y.size:
                threshold = chosen_threshold(s, y, source)
        chosen.append(threshold)
    return chosen


def age_bands(ages: Sequence[float | None], edges: Sequence[float]) -> NDArray[np.str_]:
    """The band of each age in years: "under 18", "18-39", ..., "80 and over"; "" where the age is unknown."""
    between = [f"{low:g}-{high - 1:g}" for low, high in itertools.pairwise(edges)]
    names = [f"under {edges[0]:g}", *between, f"{edges[-1]:g} and over"]
    places = [-1 if age is None or np.isnan(age) else int(np.searchsorted(edges, age, side="right")) for age in ages]
    return np.array(["" if place < 0 else names[place] for place in places], dtype=str)


@dataclass(frozen=True)
class GroupFigures:
    """The figures of one group of studies; `column` says by what they are grouped."""

    column: str
    group: str
    figures: FindingFigures


def group_figures(test: Studies, thresholds: Sequence[Threshold], *, fewest: int, resamples: int, seed: int) -> list[GroupFigures]:
    """The figures of every group of every column that knows at least two; groups with fewer than `fewest` of a class have none."""
    rows = []
    for column, values in test.groups.items():
        names = sorted({str(value) for value in values} - {""})
        if len(names) < 2:
            continue
        for name in names:
            here = values == name
            labels = test.labels[here]
            few = np.minimum((labels == 1).sum(axis=0), (labels == 0).sum(axis=0)) < fewest
            judged = figures(
                test.findings,
                test.scores[here],
                np.where(few[None, :], np.nan, labels),
                test.patients[here],
                threshold=thresholds,
                resamples=resamples,
                seed=seed,
            )
            for k, row in enumerate(judged[:-1]):
                rows.append(GroupFigures(column, name, _too_few(test.findings[k], labels[:, k], fewest) if few[k] else row))
            rows.append(GroupFigures(column, name, judged[-1]))
    return rows


def _too_few(finding: str, labels: Floats, fewest: int) -> FindingFigures:
    positives, n = int((labels == 1).sum()), int((~np.isnan(labels)).sum())
    reason = f"{positives} with and {n - positives} without the finding: {fewest} of each are the least"
    return FindingFigures(finding, n, positives, reason=reason)


@dataclass(frozen=True)
class Fitted:
    """A finding's calibration: the map, None with the `reason` where none could be fitted, and what it was fitted on."""

    map: CalibrationMap | None
    n: int
    n_positive: int
    patients: int
    reason: str | None = None

    def as_section(self) -> dict[str, Any]:
        """What calibration.json says of it."""
        facts = {"n": self.n, "n_positive": self.n_positive, "patients": self.patients}
        return facts | ({"reason": self.reason} if self.map is None else {"slope": self.map.slope, "shift": self.map.shift})


def fitted_maps(valid: Studies, method: Method) -> dict[str, Fitted]:
    """Finding -> its calibration, from the validation studies alone."""
    found = {}
    for k, name in enumerate(valid.findings):
        s, y, patients = valid.known(k)
        facts: dict[str, Any] = {"n": y.size, "n_positive": int(y.sum()), "patients": np.unique(patients).size}
        try:
            found[name] = Fitted(fit_map(s, y, method), **facts)
        except ValueError as error:
            found[name] = Fitted(None, **facts, reason=str(error))
    return found


def calibrated(studies: Studies, maps: Mapping[str, CalibrationMap | None]) -> Studies:
    """The studies with calibrated scores; a finding without a map keeps its own."""
    columns = [own(studies.scores[:, k]) if (own := maps.get(name)) else studies.scores[:, k] for k, name in enumerate(studies.findings)]
    return studies.with_scores(np.stack(columns, axis=1) if columns else studies.scores)


def reliabilities(test: Studies, *, resamples: int, seed: int) -> dict[str, Reliability]:
    """Finding -> how far its scores are from probabilities, where it has labels of both kinds."""
    found = {}
    for k, name in enumerate(test.findings):
        s, y, patients = test.known(k)
        if 0 < y.sum() < y.size:
            found[name] = reliability(s, y, patients, resamples=resamples, seed=seed)
    return found


def compared(first: Studies, second: Studies) -> dict[str, PairedComparison | str]:
    """Finding -> the paired test of two models on the same studies, or why there is none."""
    found: dict[str, PairedComparison | str] = {}
    for k, name in enumerate(first.findings):
        s, y, patients = first.known(k)
        try:
            found[name] = paired_test(s, second.known(k)[0], y, patients)
        except ValueError as error:
            found[name] = str(error)
    return found


def judged(test: Studies, thresholds: Sequence[Threshold], *, resamples: int, seed: int) -> list[FindingFigures]:
    """The rows of metrics.csv of these studies, the macro row last."""
    rows = figures(test.findings, test.scores, test.labels, test.patients, threshold=thresholds, resamples=resamples, seed=seed)
    # The macro row of a single finding says what the finding's own row says, interval included
    if len(test.findings) == 1 and rows[0].auroc is not None:
        return [rows[0], FindingFigures(**rows[0].as_row() | {"finding": MACRO, "n": 1})]
    return rows
