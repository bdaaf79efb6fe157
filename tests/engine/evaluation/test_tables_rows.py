"""Judgements as rows of tables."""

import numpy as np

from engine.evaluation.output import COMPARISONS, PHRASES, RELIABILITY
from engine.evaluation.studies import ScoredStudies, paired_comparisons
from engine.evaluation.tables import comparison_rows, phrase_row, reliability_rows
from engine.metrics.calibration import reliability

LABELS = np.array([[0.0], [0], [1], [1], [np.nan]])
TEST = ScoredStudies(("a",), np.array([[0.1], [0.3], [0.2], [0.9], [0.5]]), LABELS, np.arange(5).astype(str))


def test_a_phrase_is_judged_where_labels_are_known():
    row = phrase_row("e", "m", TEST, "a", "positive", "words", TEST.scores[:, 0])
    assert (row["n"], row["n_positive"], row["auroc"]) == (4, 2, 0.75)
    assert row.keys() == PHRASES.keys()


def test_a_phrase_with_one_class_has_no_area():
    one = ScoredStudies(("a",), TEST.scores, np.ones((5, 1)), TEST.patients)
    assert phrase_row("e", "m", one, "a", "negative", "words", TEST.scores[:, 0])["auroc"] is None


def test_comparisons_have_a_test_or_a_reason():
    (row,) = comparison_rows("e", "m", "o", paired_comparisons(TEST, TEST.with_scores(1 - TEST.scores)))
    assert (row["difference"], row["method"]) == (0.5, "mover")
    (row,) = comparison_rows("e", "m", "o", {"a": "no label"})
    assert row["reason"] == "no label"
    assert row.keys() <= COMPARISONS.keys()


def test_curves_go_to_the_page_and_figures_to_the_table():
    rows, curves = reliability_rows("e", "m", "raw", {"a": reliability([0.1, 0.9], [0, 1], [0, 1], resamples=10)})
    assert rows[0].keys() == RELIABILITY.keys()
    assert sum(count for *_, count in curves[0]["curve"]) == 2
