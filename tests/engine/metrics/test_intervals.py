"""Intervals of AUROCs, against published examples, definitions and the share of simulations that they cover."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from engine.metrics.intervals import area_interval, area_of, difference_interval, mean_interval, newcombe_interval, wilson_interval


def area(scores, labels, patients=None):
    patients = np.arange(len(labels)) if patients is None else np.asarray(patients)
    return area_of(scores, labels, patients, int(patients.max()) + 1)


def simulated(seed, positives=30, negatives=40, shift=1.0):
    rng = np.random.default_rng(seed)
    labels = np.r_[np.ones(positives), np.zeros(negatives)]
    return rng.normal(size=labels.size) + shift * labels, labels


@pytest.mark.parametrize(
    ("score", "value", "error"), [("albumin", 0.7366, 0.0927), ("total protein", 0.6478, 0.1000), ("K-G score", 0.7258, 0.1028)]
)
def test_the_variance_of_delong_s_published_example(ovarian, score, value, error):
    found = area(ovarian[score], ovarian["benefits"])
    assert found.value == pytest.approx(value, abs=5e-5)
    assert math.sqrt(found.influence @ found.influence) == pytest.approx(error, abs=5e-5)


@pytest.mark.parametrize(("score", "difference", "error"), [("total protein", -0.0780, 0.1046), ("albumin", 0.0108, 0.0953)])
def test_the_covariance_of_delong_s_published_comparison(ovarian, score, difference, error):
    # SAS/STAT 13.1 User's Guide, The LOGISTIC Procedure, "Comparing Receiver Operating Characteristic Curves": contrast estimates
    one, other = (area(ovarian[name], ovarian["benefits"]) for name in (score, "K-G score"))
    gap = one.influence - other.influence
    assert one.value - other.value == pytest.approx(difference, abs=1e-4)
    assert math.sqrt(gap @ gap) == pytest.approx(error, abs=1e-4)


def test_copies_of_a_patient_s_studies_add_nothing():
    scores, labels = simulated(0)
    once = area(scores, labels)
    fourfold = area(np.repeat(scores, 4), np.repeat(labels, 4), np.repeat(np.arange(70), 4))
    assert fourfold.influence == pytest.approx(once.influence)
    assert (fourfold.positives, fourfold.negatives) == (30, 40)
    wide, narrow = area_interval(fourfold), area_interval(area(np.repeat(scores, 4), np.repeat(labels, 4)))
    assert wide.high - wide.low > 1.6 * (narrow.high - narrow.low)


def test_fewer_than_ten_patients_of_a_class_are_judged_by_newcombe():
    scores, labels = simulated(0, positives=20, negatives=200)
    patients = np.r_[np.arange(20) // 4, np.arange(5, 205)]  # twenty positive studies of five patients
    found = area_interval(area(scores, labels, patients))
    assert found.method == "newcombe"
    assert (found.low, found.high) == newcombe_interval(found.value, 5, 200)
    assert area_interval(area(scores, labels)).method == "logit_delong"


def test_perfect_separation_keeps_an_interval():
    found = area_interval(area(np.arange(40.0), np.r_[np.zeros(20), np.ones(20)]))
    assert (found.value, found.high, found.method) == (1, 1, "newcombe")
    assert 0.8 < found.low < 0.95


def test_the_interval_of_a_reversed_score_is_mirrored():
    scores, labels = simulated(1)
    there, back = area_interval(area(scores, labels)), area_interval(area(-scores, labels))
    assert (1 - back.high, 1 - back.low) == pytest.approx((there.low, there.high))


def test_the_mean_of_one_area_has_its_own_interval_and_copies_are_one():
    one, other = (area(*simulated(seed)) for seed in (0, 1))
    assert mean_interval([one]) == area_interval(one)
    copied, own = mean_interval([one, one, one]), area_interval(one)
    assert (copied.low, copied.high) == pytest.approx((own.low, own.high))
    both = mean_interval([one, other])
    assert both.value == pytest.approx((one.value + other.value) / 2)
    assert both.high - both.low < own.high - own.low


@given(st.integers(0, 1000), st.integers(3, 30))
def test_a_difference_is_fair_to_both(seed, positives):
    first, second = (area(*simulated(seed + k, positives, shift=1 + k / 2)) for k in (0, 1))
    there, back = difference_interval(first, second), difference_interval(second, first)
    assert there.value == pytest.approx(-back.value)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert -1 <= there.low <= there.value <= there.high <= 1


def test_scores_that_agree_have_a_narrower_difference_than_scores_of_their_own():
    scores, labels = simulated(0)
    noise = np.random.default_rng(1).normal(size=labels.size)
    alike, apart = scores + 0.1 * noise, simulated(7)[0]
    widths = [difference_interval(area(scores, labels), area(other, labels)) for other in (alike, apart)]
    assert widths[0].high - widths[0].low < 0.5 * (widths[1].high - widths[1].low)


@given(st.floats(0, 1), st.integers(1, 500), st.integers(1, 500))
def test_newcombe_interval_holds_the_value_and_solves_its_equation(value, m, n):
    low, high = newcombe_interval(value, m, n)
    assert 0 <= low <= value <= high <= 1
    mirrored = newcombe_interval(1 - value, m, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-6)
    for edge in (low, high):
        if 1e-9 < edge < 1 - 1e-9:
            star = (m + n) / 2 - 1
            variance = edge * (1 - edge) * (1 + star * (1 - edge) / (2 - edge) + star * edge / (1 + edge)) / (m * n)
            assert abs(value - edge) == pytest.approx(1.959964 * variance**0.5, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("positives", [3, 5, 9, 12, 20])
@pytest.mark.parametrize("clustered", [False, True])
def test_nine_of_ten_intervals_hold_the_true_area_however_few_positives(positives, clustered):
    rng = np.random.default_rng(positives)
    true, shift = 0.86, 1.5278  # Phi(shift / sqrt 2)
    patients = np.repeat(np.arange(positives + 60), 3 if clustered else 1)
    labels = (patients < positives).astype(float)
    covered = 0
    for _ in range(300):
        own = rng.normal(size=positives + 60)[patients] * (0.5**0.5 if clustered else 0)
        scores = own + rng.normal(size=labels.size) * (0.5**0.5 if clustered else 1) + shift * labels
        found = area_interval(area(scores, labels, patients))
        covered += found.low <= true <= found.high
    assert covered >= 270


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_agrees_with_scipy(case):
    hits, n = case
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(hits / n, n)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= hits / n <= high <= 1
