"""Shards: what was appended comes back for the same model, damage costs one shard, and folding loses nothing."""

import hashlib
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from engine.errors import ConfigError
from engine.tables import shards as module
from engine.tables.columns import NOTICE
from engine.tables.shards import ShardFolder, text_of_path

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
def shards(tmp_path):
    return ShardFolder(tmp_path, MODEL, "reader", 4)


def test_what_was_added_comes_back(shards):
    first, second = np.float32([1, 2, 3, 4]), np.float32([0.1, 0.2, 0.3, 1e-30])
    shards.append([row("a"), row("b", outcome="reject", reason="truncated")], [first, None])
    shards.append([row("c")], [second])
    found = sorted(shards.shards(), key=lambda shard: -shard.rows.height)
    assert [shard.rows.height for shard in found] == [2, 1]
    assert (found[0].features[0] == first).all()
    assert np.isnan(found[0].features[1]).all()
    assert (found[1].features[0] == second).all()
    got = found[0].rows.row(1, named=True)
    assert got == {**dict.fromkeys(got), **row("b", outcome="reject", reason="truncated"), "model": MODEL, "reader": "reader"}


def test_nothing_to_append_is_no_shard(shards):
    shards.append([], [])
    assert list(shards.shards()) == []
    assert not shards.folder.exists()


def test_identifiers_are_in_the_private_half_only(shards, tmp_path):
    shards.append([row("a")], [None])
    public, private = sorted(tmp_path.rglob("*.parquet"), key=lambda path: "private" in path.parts)
    assert not set(pl.read_parquet_schema(public)) & {"patient", "study_instance_uid", "sop_instance_uid", "series_instance_uid", "coarse"}
    assert b"CANARY" not in public.read_bytes()
    assert pl.read_parquet(private)["patient"].to_list() == ["CANARY"]
    assert private.stat().st_mode & 0o777 == 0o600
    assert pl.read_parquet_metadata(public)["notice"] == NOTICE


@pytest.mark.parametrize("model", ["cd" * 32, MODEL[:16] + "0" * 48])
def test_another_model_has_no_rows(shards, tmp_path, model):
    shards.append([row("a")], [None])
    assert sum(shard.rows.height for shard in ShardFolder(tmp_path, model, "reader", 4).shards()) == 0


def test_shards_of_earlier_builds_are_read(shards):
    """Until 2026-12-01 they were called parts, and had no columns `detail`, `path`, `bytes` and `mtime_ns`."""
    shards.append([row("a")], [np.float32([1, 2, 3, 4])])
    later = ("detail", "path", "bytes", "mtime_ns")
    digests = []
    for folder in (shards.private_folder, shards.folder):
        (path,) = folder.iterdir()
        frame = pl.read_parquet(path)
        path.unlink()
        frame.drop(set(later) & set(frame.columns)).write_parquet(folder / "old")
        digests.append(hashlib.sha256((folder / "old").read_bytes()).hexdigest()[:16])
    for folder in (shards.private_folder, shards.folder):
        (folder / "old").rename(folder / f"part-{digests[0]}-{digests[1]}.parquet")
    (shard,) = shards.shards()
    assert shard.features.tolist() == [[1, 2, 3, 4]]
    assert shard.rows.select(later).row(0) == (None,) * 4
    assert shard.rows["patient"].to_list() == ["CANARY"]


def test_a_damaged_shard_is_left_out_and_noted(shards):
    shards.append([row("a")], [None])
    shards.append([row("b")], [None])
    torn = sorted(shards.folder.iterdir())[0]
    torn.write_bytes(torn.read_bytes()[:100])
    assert sum(shard.rows.height for shard in shards.shards()) == 1
    assert shards.unreadable == [torn.name]


def test_rows_without_their_identifiers_are_not_used(shards):
    shards.append([row("a")], [None])
    next(shards.private_folder.iterdir()).unlink()
    assert list(shards.shards()) == []
    assert len(shards.unreadable) == 1


def test_a_newer_table_is_refused(shards):
    shards.folder.mkdir(parents=True)
    pl.DataFrame({"x": [1]}).write_parquet(shards.folder / "part-1.parquet", metadata={"mmclip_table_version": "2"})
    with pytest.raises(ConfigError, match="newer version"):
        list(shards.shards())


def test_two_machines_never_write_the_same_shard(shards, tmp_path):
    other = ShardFolder(tmp_path, MODEL, "reader", 4)
    shards.append([row("a")], [None])
    before = {path: path.read_bytes() for path in shards.folder.iterdir()}
    other.append([row("b")], [None])
    assert {path: path.read_bytes() for path in before} == before
    assert sum(shard.rows.height for shard in shards.shards()) == 2


# --- folding -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_ROWS", 10)


def rows_of(folder):
    """Name, reader and features of every row, in any order."""
    found = ShardFolder(folder, MODEL, "reader", 4).shards()
    return sorted(
        (content, reader, tuple(features.tolist()))
        for shard in found
        for content, reader, features in zip(shard.rows["content_hash"], shard.rows["reader"], shard.features, strict=True)
    )


def filled(tmp_path, shards=12, rows=3):
    folder = ShardFolder(tmp_path, MODEL, "reader", 4)
    for number in range(shards):
        folder.append([row(f"{number} {k}") for k in range(rows)], [np.float32([number, k, 0, 1]) for k in range(rows)])
    return folder


def test_small_shards_are_folded_and_every_row_stays(tmp_path, small_shards):
    folder = filled(tmp_path)
    before = rows_of(tmp_path)
    assert folder.compact()
    assert rows_of(tmp_path) == before
    assert sorted(shard.rows.height for shard in folder.shards()) == [6, 10, 10, 10]
    assert {path.name for path in folder.private_folder.iterdir()} == {path.name for path in folder.paths()}
    assert not folder.compact()


def test_few_small_shards_wait(tmp_path, small_shards):
    folder = filled(tmp_path, shards=module.SMALL_SHARDS)
    before = {path: path.read_bytes() for path in folder.paths()}
    assert not folder.compact()
    assert {path: path.read_bytes() for path in folder.paths()} == before


def test_a_hundred_thousand_rows_are_few_shards():
    assert 100_000 // module.SHARD_ROWS + module.SMALL_SHARDS <= 20


@pytest.mark.parametrize("step", range(12))
def test_a_kill_at_any_point_of_folding_loses_nothing(tmp_path, small_shards, monkeypatch, step):
    folder = filled(tmp_path)
    before = rows_of(tmp_path)
    steps = iter(range(1000))

    def killed_at(function):
        def call(*args, **keys):
            if next(steps) == step:
                raise KeyboardInterrupt
            return function(*args, **keys)

        return call

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "publish", killed_at(module.publish))
        patch.setattr(Path, "unlink", killed_at(Path.unlink))
        folder.compact()
    assert sorted(set(rows_of(tmp_path))) == before
    again = ShardFolder(tmp_path, MODEL, "reader", 4)
    assert sum(1 for _ in again.shards()) and not again.unreadable
    again.compact(superseded=True)
    assert rows_of(tmp_path) == before
    assert sorted(shard.rows.height for shard in again.shards()) == [6, 10, 10, 10]


def test_rows_that_were_read_again_by_another_reader_are_dropped(tmp_path, small_shards):
    filled(tmp_path, shards=4)
    newer = ShardFolder(tmp_path, MODEL, "newer", 4)
    newer.append([row("0 0"), row("1 1")], [None, None])
    assert newer.compact(superseded=True)
    readers = [reader for _, reader, _ in rows_of(tmp_path)]
    assert (readers.count("reader"), readers.count("newer")) == (10, 2)
    assert not newer.compact(superseded=True)


def test_a_shard_that_is_damaged_is_left_alone(tmp_path, small_shards):
    folder = filled(tmp_path)
    damaged = folder.paths()[0]
    damaged.write_bytes(b"damaged")
    before = rows_of(tmp_path)
    assert folder.compact()
    assert rows_of(tmp_path) == before
    assert damaged.read_bytes() == b"damaged"


def test_private_halves_without_a_public_one_are_removed_after_a_day(tmp_path, small_shards):
    folder = filled(tmp_path)
    orphans = [folder.private_folder / f"shard-{name}-0.parquet" for name in ("old", "new")]
    for path in orphans:
        path.write_bytes(b"CANARY")
    os.utime(orphans[0], (0, 0))
    folder.compact()
    assert [path.exists() for path in orphans] == [False, True]


def test_any_path_is_text():
    assert text_of_path(Path("/a/é.dcm")) == "/a/é.dcm"
    odd = text_of_path(Path(os.fsdecode(b"/a/\xff.dcm")))
    assert odd == "/a/\\xff.dcm"
    assert_frame_equal(pl.DataFrame({"x": [odd]}), pl.DataFrame({"x": [odd]}))
