"""What judging has come to."""

import numpy as np

from engine.evaluation.output import PREDICTIONS, SCHEMAS
from engine.evaluation.studies import Studies
from engine.evaluation.tables import Verdicts
from engine.metrics.thresholds import Threshold

SCORES = np.array([[0.1], [0.2], [0.7], [0.9]])
SEX = {"sex": np.array(["F", "M", "F", "M"])}
TEST = Studies(("a",), SCORES, np.array([[0.0], [0], [1], [1]]), np.arange(4).astype(str), SEX)


def judge(verdicts, model):
    return verdicts.judge("e", model, TEST, [Threshold(0.5)], names=list("wxyz"), note="4 studies", fewest=1, resamples=10, seed=0)


def test_every_model_has_its_figures_groups_cells_and_predictions():
    verdicts = Verdicts()
    measured = [judge(verdicts, model) for model in ("one", "two")]
    assert [(each.model, each.figures[0].auroc) for each in measured] == [("one", 1.0), ("two", 1.0)]
    for table in ("metrics", "subgroups", "table"):
        assert [row["model"] for row in verdicts.tables[table]] == sorted(row["model"] for row in verdicts.tables[table])
        assert {row["model"] for row in verdicts.tables[table]} == {"one", "two"}
    assert {row["group"] for row in verdicts.tables["subgroups"]} == {"F", "M"}
    assert verdicts.predictions().filter(model="two")["study"].to_list() == list("wxyz")


def test_what_nobody_judged_is_empty_and_has_every_table():
    empty = Verdicts()
    assert empty.tables == {name: [] for name in SCHEMAS}
    assert (empty.predictions().height, empty.predictions().columns) == (0, list(PREDICTIONS))


def test_reliability_is_told_before_and_after():
    verdicts = Verdicts()
    verdicts.compare_reliability("e", "m", TEST, TEST.with_scores(SCORES / 2), resamples=10, seed=0)
    assert [row["scores"] for row in verdicts.tables["reliability"]] == ["raw", "calibrated"]
    assert [curve["scores"] for curve in verdicts.curves] == ["raw", "calibrated"]
