"""Logistic regression of several findings with unknown labels, against scikit-learn on each alone."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from engine.errors import NotFinite
from engine.model.linear_probe import Fit, best_fit, fits, raw_pixels, separate_logits


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6)) * [1, 10, 0.1, 1, 1, 1] + 3
    x[:, 5] = 2.0  # a constant column
    labels = (rng.random((120, 2)) < 1 / (1 + np.exp(-(x[:, :2] - 3) / [1, 10]))).astype(np.float32)
    labels[rng.random((120, 2)) < 0.2] = np.nan
    return x, labels


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("strength", [0.001, 0.1, 10.0])
def test_a_fit_is_the_optimum_on_the_known_labels_of_each_finding(data, balanced, strength):
    x, labels = data
    (fit,) = fits(x, labels, [strength], balanced=balanced)
    mean, deviation = x.mean(axis=0), np.where(x.std(axis=0) == 0, 1, x.std(axis=0))
    for column in range(2):
        known = ~np.isnan(labels[:, column])
        exact = LogisticRegression(C=strength, class_weight="balanced" if balanced else None, solver="newton-cholesky", tol=1e-10)
        exact.fit((x[known] - mean) / deviation, labels[known, column])
        np.testing.assert_allclose(fit.logits(x)[:, column], exact.decision_function((x - mean) / deviation), atol=2e-4)


def test_fits_come_in_the_given_order_and_do_not_depend_on_each_other(data):
    x, labels = data
    many = fits(x, labels, [10.0, 0.01, 1.0], balanced=True)
    assert [fit.strength for fit in many] == [10.0, 0.01, 1.0]
    (alone,) = fits(x, labels, [1.0], balanced=True)
    np.testing.assert_allclose(many[2].weight, alone.weight, atol=1e-4)


def test_nan_features_are_refused(data):
    x, labels = data
    with pytest.raises(NotFinite):
        fits(np.where(x > 3, np.nan, x), labels, [1.0], balanced=True)


def test_raw_pixels_are_grey_values_of_small_squares():
    pictures = [np.full((40, 60), value, np.uint8) for value in (0, 51, 255)]
    rows = raw_pixels(pictures, 4)
    assert rows.shape == (3, 16)
    np.testing.assert_allclose(rows.mean(axis=1), [0, 0.2, 1])
    assert raw_pixels([], 4).shape == (0, 16)


def test_the_best_fit_is_the_first_of_equals_and_none_is_the_lowest():
    some = [Fit(strength, np.zeros((1, 1)), np.zeros(1)) for strength in (0.1, 1.0, 10.0)]
    worth = {0.1: None, 1.0: 0.7, 10.0: 0.7}
    assert best_fit(some, lambda fit: worth[fit.strength]) == (some[1], 0.7)
    assert best_fit(some, lambda fit: None) == (some[0], None)


def test_separate_logits_are_those_of_a_fit_to_the_known_rows_of_each_finding():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 4)).astype(np.float32)
    labels = np.stack([x[:, 0] > 0, x[:, 1] > 0.2, np.ones(60)], axis=1).astype(np.float32)
    labels[::3, 1] = np.nan
    rows = rng.normal(size=(7, 4)).astype(np.float32)
    found = separate_logits(x, labels, rows, 0.1)
    known = ~np.isnan(labels[:, 1])
    (alone,) = fits(x[known].astype(np.float64), labels[known, 1:2], [0.1], balanced=False)
    np.testing.assert_allclose(found[:, 1], alone.logits(rows.astype(np.float64))[:, 0])
    assert (found[:, 2] == 0).all()
    assert found.shape == (7, 3) and (found[:, :2] != 0).all()


def test_an_image_that_could_not_be_read_changes_no_fit_and_has_no_logit():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    labels, rows = (x[:, :1] > 0).astype(np.float32), x[:5].copy()
    alone = separate_logits(x[1:], labels[1:], rows[1:], 0.1)
    x[0] = rows[0] = np.nan
    found = separate_logits(x, labels, rows, 0.1)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1:], alone)
