"""The bootstrap over patients, against repeating the studies one by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx
from sklearn import metrics as sklearn_metrics

from engine.metrics.bootstrap import SortedStudies, patient_weights, percentiles


@given(st.integers(0, 10_000), st.integers(2, 8))
def test_a_resample_scores_as_if_its_studies_were_repeated(seed, levels):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 20)
    labels[:2] = 0, 1
    scores = rng.integers(0, levels, 20) / levels
    weights = rng.integers(0, 3, (4, 20)).astype(np.int32)
    found = SortedStudies(scores, labels).resampled(weights)
    for auprc, best, row in zip(found.average_precision, found.max_f1, weights, strict=True):
        y, s = np.repeat(labels, row), np.repeat(scores, row)
        if y.min(initial=1) == y.max(initial=0):
            assert np.isnan([auprc, best]).all()
            continue
        assert auprc == approx(sklearn_metrics.average_precision_score(y, s))
        assert best == approx(max(sklearn_metrics.f1_score(y, s >= cut) for cut in np.unique(s)))


def test_a_patient_is_drawn_with_all_studies():
    patients = np.array([0, 0, 1, 2, 2, 2])
    weights = patient_weights(patients, 50, np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_percentiles_leave_out_what_does_not_exist():
    assert percentiles(np.array([np.nan, 0.5, 0.5])) == (0.5, 0.5)
    assert percentiles(np.array([np.nan])) == (0.0, 1.0)


def test_a_resample_of_one_class_has_no_figures():
    weights = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]], np.int32)
    found = SortedStudies([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]).resampled(weights)
    assert np.isnan(found.average_precision).tolist() == np.isnan(found.max_f1).tolist() == [True, True, False]
