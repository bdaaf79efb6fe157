"""Logistic regression, against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from engine.metrics.calibration import fit_logistic, sigmoid


def data(n=120, width=7, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)) * rng.uniform(0.5, 20, width)
    y = (x[:, 0] + 8 * rng.normal(size=n) > 0).astype(int)
    return x, y


@pytest.mark.parametrize("penalty", [0.1, 1000.0])
def test_weights_agree_with_scikit_learn(penalty):
    x, y = data()
    theirs = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(x, y)
    mine = fit_logistic(x, y, penalty=penalty)
    assert mine == pytest.approx([*theirs.coef_[0], theirs.intercept_[0]], rel=1e-4, abs=1e-6)


def test_separated_classes_do_not_run_away():
    weights = fit_logistic(np.array([[-1.0], [-2], [1], [2]]), [0, 0, 1, 1])
    assert np.isfinite(weights).all()


def test_sigmoid_does_not_overflow():
    assert sigmoid([-1e5, 0, 1e5]) == pytest.approx([0, 0.5, 1])
