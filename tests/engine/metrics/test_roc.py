"""AUROC and its intervals, against scikit-learn, a published example and slow, literal readings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from engine.metrics.roc import (
    auroc,
    average_precision,
    delong_interval,
    delong_variance,
    newcombe_interval,
    roc_curve,
)


def scores_and_labels(seed, n=60, levels=12):
    """Scores with many ties, labels with both classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:2] = 0, 1
    return (rng.integers(0, levels, n) + 3 * labels) / levels, labels


@pytest.mark.parametrize(
    ("score", "area", "error", "low", "high"),
    [
        ("albumin", 0.7366, 0.0927, 0.5549, 0.9182),
        ("total protein", 0.6478, 0.1000, 0.4518, 0.8439),
        ("K-G score", 0.7258, 0.1028, 0.5243, 0.9273),
    ],
)
def test_the_published_example_of_delong(ovarian, score, area, error, low, high):
    interval = delong_interval(ovarian[score], ovarian["benefits"])
    assert (interval.value, interval.low, interval.high) == pytest.approx((area, low, high), abs=5e-5)
    assert delong_variance(ovarian[score], ovarian["benefits"])[1] ** 0.5 == pytest.approx(error, abs=5e-5)
    assert interval.method == "delong"


@pytest.mark.parametrize("seed", range(5))
def test_areas_agree_with_scikit_learn(seed):
    scores, labels = scores_and_labels(seed)
    assert auroc(scores, labels) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores))
    assert average_precision(scores, labels) == pytest.approx(sklearn_metrics.average_precision_score(labels, scores))
    false, true, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert np.allclose(roc_curve(scores, labels), (false, true))


@pytest.mark.parametrize("seed", range(3))
def test_delong_variance_is_that_of_its_definition(seed):
    scores, labels = scores_and_labels(seed, n=30)
    x, y = scores[labels == 1], scores[labels == 0]
    wins = (x[:, None] > y).astype(float) + (x[:, None] == y) / 2
    expected = wins.mean(axis=1).var(ddof=1) / x.size + wins.mean(axis=0).var(ddof=1) / y.size
    assert delong_variance(scores, labels) == pytest.approx((wins.mean(), expected))


def test_perfect_separation_keeps_an_interval():
    interval = delong_interval([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], [0, 0, 0, 1, 1, 1])
    assert interval.value == interval.high == 1
    assert 0.4 < interval.low < 0.8
    assert interval.method == "newcombe"


def test_one_study_of_a_class_keeps_a_wide_interval():
    interval = delong_interval([0.1, 0.9, 0.5, 0.3, 0.2], [0, 0, 1, 0, 0])
    assert interval.method == "newcombe"
    assert interval.high - interval.low > 0.5


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


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [([0.1, 0.2], [1, 1], "one class"), ([0.1, np.nan], [0, 1], "finite"), ([0.1, 0.2], [0, 2], "0 or 1"), ([0.1], [0, 1], "equally long")],
)
def test_what_has_no_curve_is_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        auroc(scores, labels)
