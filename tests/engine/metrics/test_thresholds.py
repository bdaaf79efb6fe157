"""Cuts and the paper's threshold, against scikit-learn and by trying every threshold."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from engine.metrics.thresholds import cut_at, test_max_f1


def drawn(seed, n=40):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[0] = 1
    return np.round(rng.random(n), 1), labels


@pytest.mark.parametrize("seed", range(5))
def test_a_cut_agrees_with_scikit_learn(seed):
    scores, labels = drawn(seed)
    cut = cut_at(scores, labels, 0.5)
    assert cut.f1 == pytest.approx(f1_score(labels, scores >= 0.5))
    assert cut.accuracy == pytest.approx(accuracy_score(labels, scores >= 0.5))
    assert cut.source == "fixed"


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_beats_the_one_of_best_f1(seed):
    scores, labels = drawn(seed)
    best = test_max_f1(scores, labels)
    assert best.f1 == pytest.approx(max(f1_score(labels, scores >= threshold) for threshold in np.unique(scores)))
    assert best == cut_at(scores, labels, best.threshold, "test_max_f1")


def test_nothing_called_positive_is_an_f1_of_zero():
    assert cut_at([0.1, 0.2], [1, 0], 0.5).f1 == 0


def test_without_positives_there_is_no_best_f1():
    with pytest.raises(ValueError, match="no positive"):
        test_max_f1([0.1, 0.2], [0, 0])
