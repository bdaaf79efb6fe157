"""Points of a learning curve."""

import numpy as np

from engine.evaluation.learning_curve import HeldOutSet, curve_rows
from engine.metrics.roc import auroc

LABELS = np.array([[1, np.nan, 0], [0, 1, 0], [1, 1, 0], [0, 0, np.nan], [1, 0, 1], [0, 1, 0]], dtype=np.float32)
HELD_OUT = HeldOutSet(("Edema", "Nodule", "Fracture"), LABELS, np.array(list("abcdef")))
SCORES = np.array([[0.2, 0.9], [0.4, 0.1], [0.3, 0.8], [0.6, 0.3], [0.9, 0.6], [0.5, 0.2]])
"""Of Fracture and Edema."""


def measured():
    return HELD_OUT.measured(0.1, "linear", ("Fracture", "Edema"), SCORES, "no words")


def test_scores_are_judged_on_the_labels_of_their_own_finding():
    rows = {row.finding: row for row in measured().figures}
    assert rows["Edema"].auroc == auroc(SCORES[:, 1], LABELS[:, 0])
    known = ~np.isnan(LABELS[:, 2])
    assert rows["Fracture"].auroc == auroc(SCORES[known, 0], LABELS[known, 2])
    assert rows["macro"].auroc == (rows["Edema"].auroc + rows["Fracture"].auroc) / 2


def test_a_finding_without_scores_keeps_its_row_its_counts_and_the_reason():
    figures = measured().figures
    assert [row.finding for row in figures] == ["Edema", "Nodule", "Fracture", "macro"]
    assert (figures[1].n, figures[1].n_positive, figures[1].auroc, figures[1].reason) == (5, 3, None, "no words")


def test_rows_of_the_curve_count_what_was_learned_from():
    rows = curve_rows(measured(), 7, 9, {"Edema": 4, "Nodule": 2, "Fracture": 1})
    assert [row["train_positive"] for row in rows] == [4, 2, 1, 7]
    assert {(row["fraction"], row["method"], row["train_patients"], row["train_images"]) for row in rows} == {(0.1, "linear", 7, 9)}
    assert [row["train_positive"] for row in curve_rows(measured())] == [0, 0, 0, 0]
