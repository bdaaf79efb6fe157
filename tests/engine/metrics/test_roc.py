"""ROC and precision-recall curves against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from engine.metrics.roc import auroc, average_precision, roc_curve


def scores_and_labels(seed, n=60, levels=12):
    """Scores with many ties, labels with both classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:2] = 0, 1
    return (rng.integers(0, levels, n) + 3 * labels) / levels, labels


@pytest.mark.parametrize("seed", range(5))
def test_areas_agree_with_scikit_learn(seed):
    scores, labels = scores_and_labels(seed)
    assert auroc(scores, labels) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores))
    assert average_precision(scores, labels) == pytest.approx(sklearn_metrics.average_precision_score(labels, scores))
    false, true, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert np.allclose(roc_curve(scores, labels), (false, true))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [([0.1, 0.2], [1, 1], "one class"), ([0.1, np.nan], [0, 1], "finite"), ([0.1, 0.2], [0, 2], "0 or 1"), ([0.1], [0, 1], "equally long")],
)
def test_what_has_no_curve_is_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        auroc(scores, labels)
