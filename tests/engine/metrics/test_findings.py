"""The rows of metrics.csv: one per finding, none disturbing another, and their mean."""

import dataclasses

import numpy as np
import pytest

from engine.metrics.findings import MACRO, figures


def table(seed=0, n=40, findings=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (n, findings)).astype(float)
    labels[:2] = [[0] * findings, [1] * findings]
    return np.clip(rng.random((n, findings)) + 0.3 * labels, 0, 1), labels, np.arange(n)


def test_a_finding_with_one_class_is_null_and_shifts_nothing():
    scores, labels, patients = table()
    whole = {row.finding: row for row in figures(["a", "b", "c"], scores, labels, patients)}
    labels[:, 1] = 0
    broken = {row.finding: row for row in figures(["a", "b", "c"], scores, labels, patients)}
    assert broken["a"] == whole["a"]
    assert broken["c"] == whole["c"]
    assert broken["b"].auroc is broken["b"].f1 is broken["b"].auprc is broken["b"].test_max_f1 is None
    assert broken["b"].reason == "no study with the finding"
    assert broken[MACRO].auroc == pytest.approx((whole["a"].auroc + whole["c"].auroc) / 2)
    assert broken[MACRO].n == 2
    assert "2 of 3" in broken[MACRO].reason


def test_unknown_labels_are_left_out():
    scores, labels, patients = table()
    labels[5:, 0] = np.nan
    row = figures(["a", "b", "c"], scores, labels, patients)[0]
    few = figures(["a"], scores[:5, :1], labels[:5, :1], patients[:5])[0]
    assert row == few
    assert row.n == 5


def test_no_labels_at_all_is_said():
    scores, labels, patients = table()
    labels[:] = np.nan
    rows = figures(["a", "b", "c"], scores, labels, patients)
    assert [row.reason for row in rows[:3]] == ["no labels"] * 3
    assert rows[3].auroc is None


def test_no_studies_at_all_is_no_error():
    rows = figures(["a"], np.empty((0, 1)), np.empty((0, 1)), np.empty(0))
    assert [(row.finding, row.n) for row in rows] == [("a", 0), (MACRO, 0)]


def test_reordering_findings_reorders_rows():
    scores, labels, patients = table()
    order = [2, 0, 1]
    rows = figures(["a", "b", "c"], scores, labels, patients)
    moved = figures(["c", "a", "b"], scores[:, order], labels[:, order], patients)
    assert moved[:3] == [rows[k] for k in order]
    assert moved[3].auroc == pytest.approx(rows[3].auroc)
    assert moved[3].auroc_low == pytest.approx(rows[3].auroc_low)


def test_studies_of_one_patient_widen_the_interval():
    scores, labels, patients = table(n=60)
    alone = figures(["a", "b", "c"], scores, labels, patients)[0]
    fourfold = [np.repeat(each, 4, axis=0) for each in (scores, labels, patients)]
    together = figures(["a", "b", "c"], *fourfold)[0]
    independent = figures(["a", "b", "c"], *fourfold[:2], np.arange(240))[0]
    assert (alone.interval, together.interval, independent.interval) == ("logit_delong", "logit_delong", "logit_delong")
    width = together.auroc_high - together.auroc_low
    assert width > 1.6 * (independent.auroc_high - independent.auroc_low)
    assert width == pytest.approx(alone.auroc_high - alone.auroc_low, rel=0.05)


def test_perfect_separation_of_few_patients_stays_uncertain():
    labels = np.array([[0.0], [0], [0], [1], [1], [1]])
    row = figures(["a"], labels, labels, ["p", "p", "q", "r", "r", "s"])[0]
    assert (row.auroc, row.auroc_high, row.interval) == (1, 1, "newcombe")
    assert row.auroc_low < 0.5
    for low, high in ((row.auprc_low, row.auprc_high), (row.f1_low, row.f1_high), (row.test_max_f1_low, row.test_max_f1_high)):
        assert low < 0.5 < high == 1


def test_the_threshold_of_the_honest_pair_is_fixed_and_the_paper_s_is_named():
    scores, labels, patients = table()
    row = figures(["a", "b", "c"], scores, labels, patients)[0]
    assert (row.threshold, row.threshold_source) == (0.5, "fixed")
    assert row.test_max_f1 >= row.f1
    assert set(row.as_row()) == {each.name for each in dataclasses.fields(row)}
