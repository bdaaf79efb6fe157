"""Measured and published figures: no cell is empty."""

from hypothesis import given
from hypothesis import strategies as st

from engine.evaluation.published import NOT_PUBLISHED, measured_row, missing_row, published_rows
from engine.metrics.findings import MACRO, FindingFigures
from engine.recipe import load_recipe
from engine.recipe.evaluation import PublishedFigures

FIGURES = {
    "auroc": 0.905,
    "auroc_low": 0.89,
    "auroc_high": 0.92,
    "f1": 0.6,
    "accuracy": 0.8,
    "test_max_f1": 0.67,
    "test_max_f1_accuracy": 0.86,
}


def test_figures_at_both_thresholds_are_between_0_and_1():
    macro = FindingFigures(MACRO, 5, 100, **FIGURES, threshold=0.5, threshold_source="val_mcc")
    cells = measured_row("CheXpert", "tiny", macro, "500 studies")
    assert (cells.auc, cells.f1, cells.accuracy) == ("0.905", "0.670", "0.860")
    assert (cells.auroc, cells.f1_at_threshold, cells.accuracy_at_threshold) == ("0.905 (0.890-0.920)", "0.600", "0.800")
    assert cells.threshold == "val_mcc"


@given(st.sets(st.sampled_from(sorted(FIGURES))))
def test_a_figure_that_does_not_exist_says_why(absent):
    kept = {name: value for name, value in FIGURES.items() if name not in absent}
    macro = FindingFigures(MACRO, 0, 0, **kept, reason="no finding has studies with and without it")
    row = measured_row("a", "b", macro, "c").as_row()
    assert all(row.values())


def test_what_cannot_be_measured_says_what_it_needs_in_every_cell():
    row = missing_row("CheXpert", "tiny", "needs data set chexpert at sources.0.root").as_row()
    assert list(row.values())[2:-1] == ["needs data set chexpert at sources.0.root"] * 7


def test_published_rows_keep_their_own_source():
    table = load_recipe("eval/published", PublishedFigures).tables["chexpert"]
    rows = {row.model: row for row in published_rows("CheXpert", table)}
    assert rows["MMCLIP"].note == "MMCLIP (arXiv 2407.19546), Table I"
    assert rows["MAVL"].note.startswith("MAVL")
    assert (rows["MAVL"].auc, rows["MAVL"].f1) == ("0.9133", NOT_PUBLISHED)
