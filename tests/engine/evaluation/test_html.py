"""The page of an evaluation: whole, escaped, without script or network."""

import re

import numpy as np

from engine.evaluation.html import evaluation_report, page
from engine.evaluation.published import measured_row, missing_row
from engine.evaluation.studies import ScoredStudies
from engine.evaluation.tables import metric_rows, phrase_row, reliability_rows
from engine.metrics.calibration import reliability
from engine.metrics.findings import FindingFigures

BAD = "<script>alert(1)</script>"
FIGURES = FindingFigures("macro", 1, 10, auroc=0.9, auroc_low=0.8, auroc_high=0.95, reason=BAD)
TEST = ScoredStudies((BAD,), np.array([[0.1], [0.9]]), np.array([[0.0], [1]]), np.array(["a", "b"]))


def whole():
    rows, curves = reliability_rows("e", BAD, "raw", {BAD: reliability([0.1, 0.9], [0, 1], [0, 1], resamples=10)})
    cells = [measured_row(BAD, "tiny", FIGURES, "3 studies"), missing_row("e", "m", "needs data set x at roots.x")]
    tables = {
        "table": [each.as_row() for each in cells],
        "metrics": metric_rows("e", "m", [FIGURES]),
        "subgroups": [{"column": "sex", "group": BAD, **metric_rows("e", "m", [FIGURES])[0]}],
        "prompt_sensitivity": [phrase_row("e", "m", TEST, BAD, "positive", BAD, TEST.scores[:, 0])],
        "comparisons": [{"evaluation": "e", "first": "m", "second": BAD, "finding": "a", "reason": "one class"}],
        "reliability": rows,
    }
    return page(run={"recipe": BAD}, tables=tables, curves=curves)


def test_nothing_becomes_a_tag():
    text = whole()
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 6
    assert "needs data set x at roots.x" in text


def test_the_page_needs_no_network():
    assert re.findall(r"(?:src|href)=\"(?!data:)", whole()) == []
    assert "default-src 'none'" in whole()


def test_an_empty_evaluation_is_a_page(tmp_path):
    path = evaluation_report(tmp_path, run={}, tables={}, curves=[])
    assert path.name == "evaluation.html"
    assert "RESEARCH USE ONLY" in path.read_text()
