"""The image table: what was added comes back, for the same model and code, and damage costs a part and no more."""

import hashlib
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from engine.errors import ConfigError
from engine.tables.columns import NOTICE
from engine.tables.shards import ImageTable, text_of_path

MODEL = "ab" * 32


def row(name, **changes):
    cells = {
        "content_hash": hashlib.sha256(name.encode()).hexdigest(),
        "pixel_hash": None,
        "outcome": "score",
        "reason": None,
        "detail": "",
        "flags": "",
    }
    cells |= {"modality": "DX", "view": "PA", "transfer_syntax": "1.2", "sop_class": "1.3", "rows": 10, "columns": 20}
    cells |= {
        "sop_instance_uid": f"1.{len(name)}",
        "series_instance_uid": "2",
        "study_instance_uid": "3",
        "patient": "CANARY",
        "coarse": b"x",
    }
    return cells | changes


@pytest.fixture
def table(tmp_path):
    return ImageTable(tmp_path, MODEL, "reader", 4)


def test_what_was_added_comes_back(table):
    first, second = np.float32([1, 2, 3, 4]), np.float32([0.1, 0.2, 0.3, 1e-30])
    table.add([row("a"), row("b", outcome="reject", reason="truncated")], [first, None])
    table.add([row("c")], [second])
    parts = sorted(table.parts(), key=lambda part: -part.rows.height)
    assert [part.rows.height for part in parts] == [2, 1]
    assert (parts[0].features[0] == first).all()
    assert np.isnan(parts[0].features[1]).all()
    assert (parts[1].features[0] == second).all()
    assert parts[0].rows.row(1, named=True) == {**row("b", outcome="reject", reason="truncated"), "model": MODEL, "reader": "reader"}


def test_nothing_to_add_is_no_part(table):
    table.add([], [])
    assert list(table.parts()) == []
    assert not table.folder.exists()


def test_identifiers_stand_in_the_private_half_alone(table, tmp_path):
    table.add([row("a")], [None])
    public, private = sorted(tmp_path.rglob("*.parquet"), key=lambda path: "private" in path.parts)
    assert not set(pl.read_parquet_schema(public)) & {"patient", "study_instance_uid", "sop_instance_uid", "series_instance_uid", "coarse"}
    assert b"CANARY" not in public.read_bytes()
    assert pl.read_parquet(private)["patient"].to_list() == ["CANARY"]
    assert private.stat().st_mode & 0o777 == 0o600
    assert pl.read_parquet_metadata(public)["notice"] == NOTICE


@pytest.mark.parametrize(("model", "reader"), [("cd" * 32, "reader"), (MODEL, "newer"), (MODEL[:16] + "0" * 48, "reader")])
def test_another_model_or_another_reader_knows_nothing(table, tmp_path, model, reader):
    table.add([row("a")], [None])
    assert sum(part.rows.height for part in ImageTable(tmp_path, model, reader, 4).parts()) == 0


def test_rows_of_an_equal_reader_are_used_and_others_counted(table, tmp_path):
    table.add([row("a"), row("b")], [None, None])
    table.add([row("c")], [None])
    equal = ImageTable(tmp_path, MODEL, "newer", 4, same=["reader"])
    assert sum(part.rows.height for part in equal.parts()) == 3
    assert equal.outdated == {}
    other = ImageTable(tmp_path, MODEL, "newer", 4)
    assert sum(part.rows.height for part in other.parts()) == 0
    assert other.outdated == {"reader": (2, 3)}


def test_a_torn_part_is_left_out_and_noted(table):
    table.add([row("a")], [None])
    table.add([row("b")], [None])
    torn = sorted(table.folder.iterdir())[0]
    torn.write_bytes(torn.read_bytes()[:100])
    assert sum(part.rows.height for part in table.parts()) == 1
    assert table.unreadable == [torn.name]


def test_rows_without_their_identifiers_are_not_used(table):
    table.add([row("a")], [None])
    next(table.private_folder.iterdir()).unlink()
    assert list(table.parts()) == []
    assert len(table.unreadable) == 1


def test_a_newer_table_is_refused(table):
    table.folder.mkdir(parents=True)
    pl.DataFrame({"x": [1]}).write_parquet(table.folder / "part-1.parquet", metadata={"mmclip_table_version": "2"})
    with pytest.raises(ConfigError, match="newer version"):
        list(table.parts())


def test_two_machines_never_write_the_same_part(table, tmp_path):
    other = ImageTable(tmp_path, MODEL, "reader", 4)
    table.add([row("a")], [None])
    before = {path: path.read_bytes() for path in table.folder.iterdir()}
    other.add([row("b")], [None])
    assert {path: path.read_bytes() for path in before} == before
    assert sum(part.rows.height for part in table.parts()) == 2


def test_any_path_is_text():
    assert text_of_path(Path("/a/é.dcm")) == "/a/é.dcm"
    odd = text_of_path(Path(os.fsdecode(b"/a/\xff.dcm")))
    assert odd == "/a/\\xff.dcm"
    assert_frame_equal(pl.DataFrame({"x": [odd]}), pl.DataFrame({"x": [odd]}))
