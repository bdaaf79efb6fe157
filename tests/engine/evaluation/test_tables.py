"""What judging has come to."""

import numpy as np

from engine.evaluation.output import PREDICTIONS, SCHEMAS
from engine.evaluation.studies import ScoredStudies
from engine.evaluation.tables import EvaluationTables
from engine.metrics.thresholds import Threshold

SCORES = np.array([[0.1], [0.2], [0.7], [0.9]])
SEX = {"sex": np.array(["F", "M", "F", "M"])}
TEST = ScoredStudies(("a",), SCORES, np.array([[0.0], [0], [1], [1]]), np.arange(4).astype(str), SEX)


def judge(tables, model):
    return tables.add_model("e", model, TEST, [Threshold(0.5)], names=list("wxyz"), note="4 studies", fewest=1, resamples=10, seed=0)


def test_every_model_has_its_figures_groups_cells_and_predictions():
    tables = EvaluationTables()
    measured = [judge(tables, model) for model in ("one", "two")]
    assert [(each.model, each.figures[0].auroc) for each in measured] == [("one", 1.0), ("two", 1.0)]
    for table in ("metrics", "subgroups", "table"):
        assert [row["model"] for row in tables.rows[table]] == sorted(row["model"] for row in tables.rows[table])
        assert {row["model"] for row in tables.rows[table]} == {"one", "two"}
    assert {row["group"] for row in tables.rows["subgroups"]} == {"F", "M"}
    assert tables.predictions().filter(model="two")["study"].to_list() == list("wxyz")


def test_tables_without_a_model_are_empty():
    empty = EvaluationTables()
    assert empty.rows == {name: [] for name in SCHEMAS}
    assert (empty.predictions().height, empty.predictions().columns) == (0, list(PREDICTIONS))


def test_reliability_is_told_before_and_after():
    tables = EvaluationTables()
    tables.add_reliability("e", "m", TEST, TEST.with_scores(SCORES / 2), resamples=10, seed=0)
    assert [row["scores"] for row in tables.rows["reliability"]] == ["raw", "calibrated"]
    assert [curve["scores"] for curve in tables.curves] == ["raw", "calibrated"]
