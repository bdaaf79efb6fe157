"""What is said of studies, from arrays: thresholds, age bands, groups, calibration."""

import numpy as np
import pytest

from engine.evaluation.studies import (
    ScoredStudies,
    age_bands,
    calibrated,
    fit_calibration_maps,
    group_figures,
    nonfinite_counts,
    paired_comparisons,
    reliabilities,
    study_figures,
    validation_thresholds,
)
from engine.metrics.findings import MACRO, figures
from engine.metrics.thresholds import Threshold, chosen_threshold


def studies(seed=0, n=80, findings=2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (n, findings)).astype(float)
    scores = np.clip(rng.random((n, findings)) * 0.7 + 0.3 * labels, 0, 1)
    names = tuple("ab"[:findings])
    return ScoredStudies(names, scores, labels, np.arange(n).astype(str), {"sex": np.where(np.arange(n) % 4 == 0, "F", "M")})


def test_thresholds_are_chosen_finding_by_finding_and_fixed_where_there_is_one_class():
    valid = studies()
    valid.labels[:, 1] = 0
    first, second = validation_thresholds(valid, valid.findings, "val_mcc", 0.4)
    assert first == chosen_threshold(valid.scores[:, 0], valid.labels[:, 0], "val_mcc")
    assert second == Threshold(0.4, "fixed")
    assert validation_thresholds(None, valid.findings, "val_f1", 0.4) == [Threshold(0.4)] * 2


@pytest.mark.parametrize(
    ("age", "band"),
    [(0.5, "under 18"), (17.9, "under 18"), (18, "18-39"), (39.9, "18-39"), (80, "80 and over"), (None, ""), (float("nan"), "")],
)
def test_an_age_has_its_band(age, band):
    assert list(age_bands([age], (18, 40, 60, 80))) == [band]


def test_a_group_has_the_figures_of_its_studies():
    test = studies()
    cuts = [Threshold(0.5)] * 2
    rows = {(row.group, row.figures.finding): row.figures for row in group_figures(test, cuts, fewest=3, resamples=20, seed=0)}
    here = test.groups["sex"] == "F"
    alone = figures(["a", "b"], test.scores[here], test.labels[here], test.patients[here], resamples=20)
    assert rows["F", "a"] == alone[0]
    assert rows["F", MACRO].auroc == alone[-1].auroc


def test_a_small_group_says_why_it_has_no_figures():
    rows = group_figures(studies(), [Threshold(0.5)] * 2, fewest=30, resamples=20, seed=0)
    assert all(row.figures.auroc is None and row.figures.reason for row in rows)
    assert "30 of each are needed" in rows[0].figures.reason


def test_a_column_with_one_group_makes_no_table():
    test = studies()
    alike = ScoredStudies(test.findings, test.scores, test.labels, test.patients, {"sex": np.full(80, "F"), "view": np.full(80, "")})
    assert group_figures(alike, [Threshold(0.5)] * 2, fewest=3, resamples=20, seed=0) == []


def test_what_is_not_finite_is_counted_where_a_label_is_known():
    test = studies()
    test.scores[:3, 0] = np.nan
    test.labels[0, 0] = np.nan
    assert nonfinite_counts(test) == {"a": 2}


def test_a_finding_without_a_map_keeps_its_scores():
    valid = studies()
    valid.labels[:, 1] = 0
    maps = fit_calibration_maps(valid, "platt")
    assert maps["b"].map is None
    assert maps["b"].as_section()["reason"].startswith("0 positives")
    assert maps["a"].as_section().keys() == {"n", "n_positive", "patients", "slope", "shift"}
    after = calibrated(valid, {name: each.map for name, each in maps.items()})
    assert np.array_equal(after.scores[:, 1], valid.scores[:, 1])
    assert not np.array_equal(after.scores[:, 0], valid.scores[:, 0])
    assert set(reliabilities(after, resamples=20, seed=0)) == {"a"}


def test_two_models_are_compared_where_both_classes_are():
    first, second = studies(), studies()
    second = second.with_scores(1 - second.scores)
    first.labels[:, 1] = 1
    found = paired_comparisons(first, second)
    assert found["a"].difference == pytest.approx(2 * found["a"].first - 1)
    assert "one class" in found["b"]


def test_the_mean_of_one_finding_is_the_finding():
    rows = study_figures(studies(findings=1), [Threshold(0.5)], resamples=20, seed=0)
    assert rows[1].auroc_low == rows[0].auroc_low
    assert (rows[1].finding, rows[1].n) == (MACRO, 1)
