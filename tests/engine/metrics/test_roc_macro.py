"""The mean AUROC that validation chooses by, and the mean loss beside it."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from engine.metrics.roc import macro_auroc, mean_log_loss


def test_it_is_the_mean_over_findings_with_both_classes_and_known_labels():
    rng = np.random.default_rng(0)
    scores = rng.random((40, 3))
    labels = (rng.random((40, 3)) < 0.5).astype(float)
    labels[:10, 0] = np.nan
    labels[:, 2] = 1
    expected = np.mean([roc_auc_score(labels[10:, 0], scores[10:, 0]), roc_auc_score(labels[:, 1], scores[:, 1])])
    assert macro_auroc(scores, labels) == pytest.approx(expected)


def test_without_two_classes_there_is_no_number():
    assert macro_auroc(np.ones((3, 1)), np.array([[1.0], [1.0], [np.nan]])) is None


def test_the_loss_is_a_mean_over_known_labels_and_stays_finite():
    scores, labels = np.array([[0.8, 0.4], [0.5, 0.3]]), np.array([[1, np.nan], [np.nan, 0]])
    assert mean_log_loss(scores, labels) == pytest.approx(-(np.log(0.8) + np.log(0.7)) / 2)
    assert mean_log_loss(np.array([[0.0]]), np.array([[1.0]])) == pytest.approx(-np.log(1e-12))
