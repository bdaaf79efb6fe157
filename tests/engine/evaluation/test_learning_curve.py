"""The learning curve's files."""

import json
import xml.etree.ElementTree as ET

import polars as pl

from engine.evaluation.learning_curve import CURVE_COLUMNS, curve_svg, publish_curve
from engine.tables.columns import METRIC_COLUMNS, NOTICE


def row(fraction, method, value, finding="macro"):
    figures = dict.fromkeys(METRIC_COLUMNS) | {"finding": finding, "n": 10, "n_positive": 4, "auroc": value}
    if value is not None and method != "zero_shot":
        figures |= {"auroc_low": value - 0.1, "auroc_high": min(1.0, value + 0.1)}
    return {"fraction": fraction, "method": method, "train_patients": 3, "train_images": 5, "train_positive": 2, **figures}


ROWS = [row(0.0, "zero_shot", 0.7), *(row(share, method, 0.8) for share in (0.01, 1.0) for method in ("full", "raw_pixels"))]


def test_the_three_files_say_the_same(tmp_path):
    publish_curve(tmp_path, [*ROWS, row(1.0, "full", None, "Edema")], {"split_sha256": {"test": "abc"}})
    frame = pl.read_csv(tmp_path / "curve.csv")
    assert frame.columns == [*CURVE_COLUMNS, NOTICE]
    assert frame.height == 6
    told = json.loads((tmp_path / "curve.json").read_text())
    assert told["split_sha256"] == {"test": "abc"}
    assert [each["method"] for each in told["curve"]] == frame["method"].to_list()


def test_the_picture_is_svg_names_every_method_and_is_the_same_again():
    picture = curve_svg(ROWS)
    assert ET.fromstring(picture).tag.endswith("svg")
    for name in (b"fine-tuned", b"raw pixels", b"zero-shot", b"RESEARCH USE ONLY"):
        assert name in picture
    assert b"linear probe" not in picture
    assert curve_svg(list(reversed(ROWS))) == picture


def test_without_figures_there_is_a_picture_all_the_same():
    assert curve_svg([row(1.0, "full", None)]).startswith(b"<?xml")
