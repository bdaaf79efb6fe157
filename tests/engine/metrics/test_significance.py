"""Two models on the same studies: DeLong's published comparison, a case by hand, and what must hold for any scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.metrics.roc import delong_variance
from engine.metrics.significance import delong_covariance, delong_test, paired_test


def simulated(seed, n=80):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:4] = 0, 0, 1, 1
    signal = rng.normal(size=n) + labels
    return signal + rng.normal(size=n), np.round(signal + rng.normal(size=n)), labels


@pytest.mark.parametrize(
    ("score", "difference", "error", "low", "high", "chi_square"),
    [("total protein", -0.0780, 0.1046, -0.2830, 0.1271, 0.5555), ("albumin", 0.0108, 0.0953, -0.1761, 0.1976, 0.0128)],
)
def test_the_published_comparison_of_delong(ovarian, score, difference, error, low, high, chi_square):
    # SAS/STAT 13.1 User's Guide, The LOGISTIC Procedure, "Comparing Receiver Operating Characteristic Curves": contrast estimates
    found = delong_test(ovarian[score], ovarian["K-G score"], ovarian["benefits"])
    assert (found.difference, found.low, found.high) == pytest.approx((difference, low, high), abs=1e-4)
    assert (found.high - found.low) / 2 / 1.959964 == pytest.approx(error, abs=1e-4)
    assert (found.difference / error) ** 2 == pytest.approx(chi_square, abs=2e-3)


def test_a_comparison_by_hand():
    # Positives 3, 1 against negatives 2, 0 by the first, perfect order by the second:
    # V10 = (1, 1/2) and (1, 1); V01 = (1/2, 1) and (1, 1). S10 = S01 = ((1/8, 0), (0, 0)), so the variance is 1/16 + 1/16 = 1/8
    labels = [1, 1, 0, 0]
    found = delong_test([3, 1, 2, 0], [3, 2, 1, 0], labels)
    assert delong_covariance([3, 1, 2, 0], [3, 2, 1, 0], labels) == pytest.approx(np.array([[0.125, 0], [0, 0]]))
    assert found.difference == pytest.approx(-0.25)
    # z = 0.25 / sqrt(1/8) = 0.7071, two-sided p = 0.4795
    assert found.p == pytest.approx(0.4795, abs=1e-4)


@given(st.integers(0, 1000))
def test_the_comparison_is_fair_to_both(seed):
    first, second, labels = simulated(seed)
    there, back = delong_test(first, second, labels), delong_test(second, first, labels)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p == pytest.approx(back.p)
    covariance = delong_covariance(first, second, labels)
    assert covariance[0, 0] == pytest.approx(delong_variance(first, labels)[1])
    assert covariance[0, 1] == pytest.approx(covariance[1, 0])


def test_equal_scores_do_not_differ():
    first, _, labels = simulated(0)
    found = delong_test(first, np.exp(first), labels)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_studies_of_one_patient_are_drawn_together():
    first, second, labels = simulated(1)
    alone = paired_test(first, second, labels, np.arange(80))
    fourfold = [np.repeat(each, 4) for each in (first, second, labels, np.arange(80))]
    together = paired_test(*fourfold)
    assert (alone.method, together.method) == ("delong", "patient_bootstrap")
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.2)
    assert together.p == pytest.approx(alone.p, abs=0.06)


def test_a_single_positive_has_no_variance():
    with pytest.raises(ValueError, match="single study"):
        delong_test([1, 2, 3], [3, 2, 1], [1, 0, 0])
