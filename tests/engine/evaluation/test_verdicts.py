"""Verdicts in words on two ways of scoring the same test images, and the page of a run."""

import numpy as np
import pytest

from engine.evaluation.learning_curve import CURVE_COLUMNS
from engine.evaluation.verdicts import TestScores, Verdict, compare, finetuning_page

RNG = np.random.default_rng(0)
LABELS = np.stack([np.arange(80) % 2, np.full(80, 1.0)], axis=1).astype(float)
LABELS[:5, 0] = np.nan
PATIENTS = np.arange(80) // 2
GOOD, NOISE = LABELS[:, :1] * 2 + RNG.normal(size=(80, 1)), RNG.normal(size=(80, 1))
GOOD[np.isnan(GOOD)] = 0.0


def verdict(mine, other, findings=("Edema",)):
    one, two = TestScores("full", ("Edema",), mine), TestScores("raw_pixels", findings, other)
    return compare(0.1, one, two, ("Edema", "Fracture"), LABELS, PATIENTS)


@pytest.mark.parametrize(
    ("mine", "other", "word"),
    [(GOOD, NOISE, "ahead of"), (NOISE, GOOD, "behind"), (GOOD, GOOD, "level with"), (NOISE, -NOISE, "level with")],
)
def test_the_word_goes_by_the_paired_interval(mine, other, word):
    found = verdict(mine, other)
    assert found.word == word
    assert found.low <= found.difference <= found.high
    assert str(found).startswith(f"fine-tuned on 10 % is {word} raw pixels: macro AUROC ")


def test_what_shares_no_finding_with_both_classes_has_no_verdict():
    assert verdict(GOOD, NOISE, findings=("Nodule",)) is None
    alone = TestScores("full", ("Fracture",), NOISE)
    assert compare(1.0, alone, alone, ("Edema", "Fracture"), LABELS, PATIENTS) is None


def test_the_page_has_verdicts_curve_and_rows(tmp_path):
    row = dict.fromkeys(CURVE_COLUMNS) | {
        "fraction": 0.1,
        "method": "full",
        "train_patients": 4,
        "train_images": 4,
        "n": 9,
        "n_positive": 3,
    }
    rows = [{**row, "finding": name, "auroc": 0.8, "auroc_low": 0.7, "auroc_high": 0.9, "auprc": 0.6} for name in ("<Edema>", "macro")]
    found = Verdict(0.1, "full", "raw_pixels", ("<Edema>",), 0.1, 0.05, 0.2)
    text = finetuning_page(
        tmp_path, [*rows, {**row, "finding": "Nodule", "reason": "one class"}], [found], ["no patient column"]
    ).read_text()
    for words in (str(found), "&lt;Edema&gt;", "0.700–0.900", "<svg", "no patient column", "one class"):
        assert words in text
    assert "<script" not in text
