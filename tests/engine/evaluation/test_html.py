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
    return page(run={"recipe": BAD, "evaluations": [{"models": [{"name": BAD, "summary": BAD}]}]}, tables=tables, curves=curves)


def test_nothing_becomes_a_tag():
    text = whole()
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 6
    assert "&lt;b&gt;: &lt;script&gt;" in text.replace("</b>", "&lt;b&gt;")
    assert "needs data set x at roots.x" in text


def test_the_page_needs_no_network():
    assert re.findall(r"(?:src|href)=\"(?!data:)", whole()) == []
    assert "default-src 'none'" in whole()


def test_an_empty_evaluation_is_a_page(tmp_path):
    path = evaluation_report(tmp_path, run={}, tables={}, curves=[])
    assert path.name == "evaluation.html"
    assert "RESEARCH USE ONLY" in path.read_text()


def test_auroc_has_one_scale_and_one_column_published_or_measured():
    published = measured_row("e", "paper", FIGURES, "a paper").as_row() | {"auc": "0.9133", "auroc": "not published"}
    own = measured_row("e", "tiny", FIGURES, "3 studies").as_row()
    with_papers, alone = (page(run={}, tables={"table": rows}, curves=[]) for rows in ([own, published], [own]))
    assert "0.900 (0.800-0.950)" in alone
    assert "0.9133" in with_papers
    assert "best F1 on test labels" in with_papers
    assert "best F1 on test labels" not in alone
    assert "ublished" not in alone


def test_findings_and_groups_without_figures_are_counted_not_listed():
    few = FindingFigures("Hernia", 3, 0, reason="no study with the finding")
    tables = {"metrics": metric_rows("e", "m", [few]), "subgroups": [{"column": "sex", "group": "F", **metric_rows("e", "m", [few])[0]}]}
    text = page(run={}, tables=tables, curves=[])
    assert "No AUROC (no study with the finding): Hernia." in text
    assert "<h2>Findings</h2>" not in text
