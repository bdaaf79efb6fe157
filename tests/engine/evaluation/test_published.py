"""Our figures beside published ones: no cell is ever empty."""

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


def test_both_ways_stand_side_by_side_in_percent():
    macro = FindingFigures(MACRO, 5, 100, **FIGURES, threshold=0.5, threshold_source="val_mcc")
    cells = measured_row("CheXpert", "tiny", macro, "500 studies")
    assert (cells.auc, cells.f1, cells.accuracy) == ("90.50", "67.00", "86.00")
    assert (cells.auroc, cells.f1_at_threshold, cells.accuracy_at_threshold) == ("90.50 (89.00-92.00)", "60.00", "80.00")
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
    assert (rows["MAVL"].auc, rows["MAVL"].f1) == ("91.33", NOT_PUBLISHED)
