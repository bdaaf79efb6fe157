"""Brier score, calibration error and the maps, against scikit-learn, by hand, and against what they were made from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from engine.metrics.calibration import BINS, CalibrationMap, brier, ece, fit_map, logits, reliability, sigmoid
from engine.metrics.roc import auroc


def drawn(n=4000, seed=0, slope=1.0, shift=0.0):
    """Scores of which `CalibrationMap(slope, shift)` is the probability of the label."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.05, 0.95, n)
    return scores, (rng.random(n) < CalibrationMap(slope, shift)(scores)).astype(int)


def test_brier_agrees_with_scikit_learn():
    scores, labels = drawn(300)
    assert brier(scores, labels) == pytest.approx(sklearn_metrics.brier_score_loss(labels, scores))


def test_calibration_error_by_hand():
    # Two bins of 15: scores 0.01, 0.05 (one of two present) and 0.99, 1.0 (both present)
    assert ece([0.01, 0.05, 0.99, 1.0], [0, 1, 1, 1]) == pytest.approx((abs(0.06 - 1) + abs(1.99 - 2)) / 4)


def test_the_curve_agrees_with_scikit_learn():
    scores, labels = drawn(500)
    found = reliability(scores, labels, np.arange(500), resamples=10).curve
    shares, means = calibration_curve(labels, scores, n_bins=BINS)
    assert [mean for mean, _, _ in found] == pytest.approx(list(means))
    assert [share for _, share, _ in found] == pytest.approx(list(shares))
    assert sum(count for *_, count in found) == 500


def test_intervals_hold_their_figures_and_widen_with_clusters():
    scores, labels = drawn(200, slope=0.5, shift=1.0)
    alone = reliability(scores, labels, np.arange(200))
    together = reliability(*(np.repeat(each, 4) for each in (scores, labels, np.arange(200))))
    assert alone.brier_low < alone.brier < alone.brier_high
    assert together.brier_high - together.brier_low == pytest.approx(alone.brier_high - alone.brier_low, rel=0.25)
    assert (together.brier, together.ece) == pytest.approx((alone.brier, alone.ece))


@pytest.mark.parametrize(("method", "slope", "shift"), [("platt", 0.4, -1.2), ("platt", 3.0, 0.7), ("temperature", 2.0, 0.0)])
def test_a_map_finds_what_made_the_labels_and_keeps_the_order(method, slope, shift):
    scores, labels = drawn(20_000, slope=slope, shift=shift)
    found = fit_map(scores, labels, method)
    assert (found.slope, found.shift) == pytest.approx((slope, shift), rel=0.06, abs=0.06)
    assert auroc(found(scores), labels) == auroc(scores, labels)
    assert ece(found(scores), labels) < ece(scores, labels)


def test_separated_classes_have_a_finite_map():
    scores = np.linspace(0.01, 0.99, 20)
    found = fit_map(scores, (scores > 0.5).astype(int), "platt")
    assert np.isfinite([found.slope, found.shift]).all()


@pytest.mark.parametrize(
    ("scores", "labels", "why"),
    [
        (np.linspace(0, 1, 20), np.r_[np.ones(4), np.zeros(16)], "4 positives"),
        (np.full(20, 0.3), np.r_[np.ones(10), np.zeros(10)], "all scores are equal"),
        (np.linspace(0, 1, 20), np.r_[np.ones(10), np.zeros(10)], "do not rise"),
    ],
)
def test_what_cannot_be_calibrated_says_why(scores, labels, why):
    with pytest.raises(ValueError, match=why):
        fit_map(scores, labels, "platt")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.01, 20), st.floats(-10, 10))
def test_a_map_stays_in_bounds_and_never_turns_two_scores_round(scores, slope, shift):
    found = CalibrationMap(slope, shift)(np.sort(scores))
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()


def test_logits_of_certainty_are_finite():
    assert np.isfinite(logits([0.0, 1.0])).all()
    assert CalibrationMap(1.0, 0.0)([0.3]) == pytest.approx([0.3])


def test_a_platt_map_gives_its_studies_the_smoothed_share_of_positives():
    # At the optimum the mean probability is the mean of Platt's targets, (P + 1) / (P + 2) for P positives and 1 / (N + 2) for N negatives
    scores = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    labels = np.r_[np.zeros(5), np.ones(6)]
    assert fit_map(scores, labels, "platt")(scores).mean() == pytest.approx((6 * 7 / 8 + 5 * 1 / 7) / 11)


def test_sigmoid_does_not_overflow():
    assert sigmoid([-1e5, 0, 1e5]) == pytest.approx([0, 0.5, 1])
