from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.store import PixelStore, StoreWriter, filling
from engine.errors import ConfigError, InputMissing, OutputError, ReadError

SIDE = 16


def grey(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def add(writer: StoreWriter, image: str, seed: int | None) -> None:
    reason = None if seed is not None else "truncated"
    writer.add(image, None if seed is None else grey(seed), size=7, mtime_ns=3, sha256="ab", reason=reason)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with filling(tmp_path / "store", SIDE, "squash") as writer:
        for seed in range(3):
            add(writer, f"i{seed}", seed)
        add(writer, "broken", None)
    return tmp_path / "store"


def test_what_was_added_is_there_when_the_store_is_opened(store: Path) -> None:
    opened = PixelStore.open(store)
    assert opened.pixels.shape == (3, SIDE, SIDE) and opened.pixels.dtype == np.uint8
    assert np.array_equal(opened.picture("i1"), grey(1))
    assert opened.dropped() == {"broken": "truncated"}
    assert "i2" in opened and "broken" not in opened and "unheard of" not in opened
    with pytest.raises(KeyError):
        opened.picture("broken")
    with pytest.raises(ValueError, match="read-only"):
        opened.pixels[0, 0, 0] = 1


def test_an_image_keeps_its_row_and_a_block_that_fails_keeps_its_pictures(store: Path) -> None:
    with pytest.raises(ZeroDivisionError), filling(store, SIDE, "squash") as writer:
        add(writer, "i1", 9)
        add(writer, "new", 5)
        _ = 1 / 0
    opened = PixelStore.open(store)
    assert opened.row("i1") == 1 and np.array_equal(opened.picture("i1"), grey(9))
    assert opened.row("new") == 3 and np.array_equal(opened.picture("new"), grey(5))


def test_nothing_is_known_of_what_was_not_committed(store: Path) -> None:
    writer = StoreWriter(store, SIDE, "squash")
    add(writer, "later", 4)
    assert len(writer) == 1 and "later" in writer.known
    assert "later" not in PixelStore.open(store)
    writer.commit()
    assert len(writer) == 0 and "later" in PixelStore.open(store)


@given(torn=st.integers(1, 60))
def test_a_line_torn_by_a_kill_costs_itself_alone(torn: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("store")
    with filling(folder, SIDE, "squash") as writer:
        add(writer, "a", 0)
        add(writer, "b", 1)
    journal = folder / "journal.jsonl"
    os.truncate(journal, journal.stat().st_size - torn)
    assert list(PixelStore.open(folder).entries) == ["a"]
    with filling(folder, SIDE, "squash") as writer:
        add(writer, "c", 2)
    assert [json.loads(line)["image"] for line in journal.read_text().splitlines()] == ["a", "c"]
    assert np.array_equal(PixelStore.open(folder).picture("c"), grey(2))


def test_journals_of_before_times_of_change_are_read(store: Path) -> None:
    lines = [json.loads(line) for line in (store / "journal.jsonl").read_text().splitlines()]
    for line in lines:
        del line["mtime_ns"]
    (store / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert PixelStore.open(store).entries["i0"].mtime_ns == 0


def test_a_store_of_another_kind_and_a_folder_that_is_none_are_errors(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another kind"), filling(store, SIDE + 1, "squash"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(OutputError), filling(tmp_path / "file" / "store", SIDE, "squash"):
        pass


def test_damage_is_an_error_not_wrong_pixels(store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        PixelStore.open(tmp_path / "none")
    os.truncate(store / "pixels.u8", 100)
    with pytest.raises(ReadError, match="pixels are shorter"):
        PixelStore.open(store)
    (store / "journal.jsonl").write_text("not json\n")
    with pytest.raises(ReadError, match="journal"):
        PixelStore.open(store)
    (store / "meta.json").write_text("{}")
    with pytest.raises(ReadError, match=r"meta\.json"):
        PixelStore.open(store)
