"""Thresholds and what holds at them, against scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from engine.metrics.thresholds import chosen_threshold, cut_at, test_max_f1


def studies(seed, n=40, levels=9):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:2] = 0, 1
    return (rng.integers(0, levels, n) + 2 * labels) / levels, labels


@given(st.integers(0, 1000), st.floats(-0.1, 1.5))
def test_figures_at_a_threshold_agree_with_scikit_learn(seed, threshold):
    scores, labels = studies(seed)
    cut, called = cut_at(scores, labels, threshold), scores >= threshold
    assert cut.accuracy == pytest.approx(sklearn_metrics.accuracy_score(labels, called))
    assert cut.f1 == pytest.approx(sklearn_metrics.f1_score(labels, called, zero_division=0))
    assert cut.sensitivity == pytest.approx(sklearn_metrics.recall_score(labels, called))
    assert cut.specificity == pytest.approx(sklearn_metrics.recall_score(labels, called, pos_label=0))
    assert cut.mcc == pytest.approx(sklearn_metrics.matthews_corrcoef(labels, called), abs=1e-12)


@pytest.mark.parametrize(
    ("source", "worth"),
    [
        ("val_f1", sklearn_metrics.f1_score),
        ("test_max_f1", sklearn_metrics.f1_score),
        ("val_mcc", sklearn_metrics.matthews_corrcoef),
        ("val_youden", lambda y, called: sklearn_metrics.balanced_accuracy_score(y, called)),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_no_score_is_a_better_threshold(source, worth, seed):
    scores, labels = studies(seed)
    chosen = chosen_threshold(scores, labels, source)
    assert chosen.source == source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = {float(cut): worth(labels, (scores >= cut).astype(int)) for cut in np.unique(scores)}
    best = max(values.values())
    assert values[chosen.value] == pytest.approx(best)
    assert chosen.value == max(cut for cut, value in values.items() if value > best - 1e-12)


def test_the_paper_s_pair_is_chosen_on_the_test_labels():
    scores, labels = studies(3)
    best = test_max_f1(scores, labels)
    assert best.source == "test_max_f1"
    assert best.f1 == max(cut_at(scores, labels, value).f1 for value in scores)


def test_one_class_has_an_accuracy_and_no_more():
    cut = cut_at([0.2, 0.7], [0, 0], 0.5)
    assert (cut.accuracy, cut.f1, cut.sensitivity, cut.specificity, cut.mcc) == (0.5, 0.0, None, 0.5, None)


@pytest.mark.parametrize("source", ["val_f1", "val_mcc", "val_youden", "test_max_f1"])
def test_nothing_is_chosen_from_one_class(source):
    with pytest.raises(ValueError, match="one class"):
        chosen_threshold([0.1, 0.2], [0, 0], source)


def test_a_fixed_threshold_is_not_chosen():
    with pytest.raises(ValueError, match="fixed"):
        chosen_threshold([0.1, 0.2], [0, 1], "fixed")
