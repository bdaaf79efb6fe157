"""Two models on the same studies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.metrics.significance import paired_test


def simulated(seed, n=80, shift=0.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:4] = 0, 0, 1, 1
    signal = rng.normal(size=n) + labels
    return signal + rng.normal(size=n) + shift * labels, np.round(signal + rng.normal(size=n)), labels


@given(st.integers(0, 1000), st.floats(0, 2), st.integers(8, 60))
def test_p_is_below_5_percent_where_0_is_outside_the_interval(seed, shift, n):
    first, second, labels = simulated(seed, n, shift)
    found = paired_test(first, second, labels, np.arange(n))
    outside = not found.low <= 0 <= found.high
    assert (found.p < 0.05) is outside
    back = paired_test(second, first, labels, np.arange(n))
    assert (back.difference, back.p) == pytest.approx((-found.difference, found.p))


def test_scores_in_the_same_order_do_not_differ():
    first, _, labels = simulated(0)
    found = paired_test(first, np.exp(first), labels, np.arange(80))
    assert (found.difference, found.p) == (0, 1)
    assert found.low < 0 < found.high


def test_chance_is_rejected_one_time_in_twenty_and_a_difference_is_found():
    chance = [paired_test(*simulated(seed), np.arange(80)).p < 0.05 for seed in range(200)]
    real = [paired_test(*simulated(seed, shift=2.0), np.arange(80)).p < 0.05 for seed in range(50)]
    assert sum(chance) <= 20
    assert sum(real) >= 35


def test_copies_of_a_patient_s_studies_make_no_significance():
    first, second, labels = simulated(1)
    alone = paired_test(first, second, labels, np.arange(80))
    fourfold = paired_test(*(np.repeat(each, 4) for each in (first, second, labels, np.arange(80))))
    assert (fourfold.difference, fourfold.low, fourfold.high, fourfold.p) == pytest.approx(
        (alone.difference, alone.low, alone.high, alone.p), abs=0.01
    )


def test_one_class_has_no_test():
    with pytest.raises(ValueError, match="one class"):
        paired_test([1, 2, 3], [3, 2, 1], [1, 1, 1], [0, 1, 2])
