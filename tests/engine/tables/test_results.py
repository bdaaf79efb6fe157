"""From rows of files to the tables of a run."""

import numpy as np
import polars as pl
import pytest

from engine.tables import results as results_module
from engine.tables.columns import IMAGE_COLUMNS, PRIVATE_COLUMNS
from engine.tables.results import ResultRow, Results


def row(image, study, outcome="score", scores=None, flags="", reason=None):
    public = dict.fromkeys(IMAGE_COLUMNS) | {"image": image, "study": study, "outcome": outcome, "flags": flags, "reason": reason}
    private = dict.fromkeys(PRIVATE_COLUMNS) | {"path": f"/{image}", "series_instance_uid": None, "location": None}
    del private["image"]
    return ResultRow(public, private, None if scores is None else np.float32(scores))


@pytest.fixture
def results():
    found = Results(["a", "b"])
    found.add(row("1", "s", scores=[0.2, 0.4], flags="polarity;aspect"))
    found.add(row("2", "s", scores=[0.4, 0.2], flags="aspect"))
    found.add(row("2", "s", "duplicate", scores=[0.9, 0.9], reason="same_pixels"))
    found.add(row("3", None, "reject", reason="truncated"))
    found.add(row("4", "r", scores=[1.0, 0.0]))
    found.add(row("5", "q", "reject", reason="lateral_view"))
    return found


@pytest.mark.parametrize(("aggregate", "expected"), [("mean", [0.3, 0.3]), ("max", [0.4, 0.4])])
def test_a_study_is_the_mean_or_maximum_of_its_scored_images(results, aggregate, expected):
    studies = results.studies(aggregate)[0].frame()
    assert studies["study"].to_list() == ["s", "r"]
    assert studies["n_images"].to_list() == [2, 1]
    assert studies.row(0)[2:4] == pytest.approx(expected)
    assert studies["flags"].to_list() == ["aspect;polarity", ""]


def test_every_file_has_a_row_and_scores_are_null_where_there_are_none(results):
    images = results.images().frame()
    assert images["image"].to_list() == ["1", "2", "2", "3", "4", "5"]
    assert images["a"].null_count() == 2
    assert images["a"].is_nan().sum() == 0
    assert results.private().frame().columns == list(PRIVATE_COLUMNS)
    assert results.private().frame()["image"].to_list() == images["image"].to_list()


def test_counts_add_up(results):
    counts = results.counts()
    assert counts == {
        "files": 6, "score": 3, "duplicate": 1, "reject": 2, "skip": 0, "reasons": {"same_pixels": 1, "lateral_view": 1, "truncated": 1}
    }  # fmt: skip


def test_flags_found_late_reach_earlier_rows(results):
    results.reflag(lambda cells: "uid_conflict" if cells["study"] == "s" else cells["flags"])
    assert results.images().frame()["flags"].to_list() == ["uid_conflict", "uid_conflict", "", "", "", ""]
    assert results.studies("mean")[0].frame()["flags"].to_list() == ["uid_conflict", ""]


def test_nothing_is_empty_and_typed():
    results = Results(["a"])
    assert results.studies("mean")[0].frame().schema == pl.Schema(
        {"study": pl.String, "n_images": pl.Int64, "a": pl.Float32, "flags": pl.String}
    )
    assert results.images().frame().height == results.private().frame().height == results.counts()["files"] == 0


def test_rows_are_packed_as_they_come(results, monkeypatch):
    whole = results.images().frame()
    monkeypatch.setattr(results_module, "_CHUNK", 2)
    packed = Results(["a", "b"])
    for k, each in enumerate(whole.iter_rows(named=True)):
        packed.add(
            row(
                each["image"],
                each["study"],
                each["outcome"],
                None if each["a"] is None else [each["a"], each["b"]],
                each["flags"],
                each["reason"],
            )
        )
        assert packed.frame().height == k + 1
    assert packed.images().frame().equals(whole)
