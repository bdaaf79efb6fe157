"""What is known is not read again, order is kept, and nothing that may change is remembered."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.dicom.reasons import REASONS
from engine.intake.files import Item
from engine.scoring.feature_cache import NOT_KEPT, Counted, Remembered, counted, found_readings, table_row
from engine.tables.shards import ImageTable

WIDTH = 3


@pytest.fixture
def pictures(tmp_path):
    """Five pictures that a table names, each of another grey."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{k}.png" for k in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (80, 90), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def table(tmp_path):
    return ImageTable(tmp_path / "out", "ab" * 32, "reader", WIDTH)


def items(paths):
    return iter([Item(path, picture=True) for path in paths])


def read(paths, remembered):
    return list(found_readings(items(paths), remembered, size=16, workers=1))


def scores_of(features):
    return features[:, :1] * 2


def remember(table, found, features):
    table.add([table_row(each.reading) for each in found], features)
    return Remembered(table, scores_of)


def test_what_is_known_comes_from_the_table_in_its_place(table, pictures):
    first = read(pictures[1:4:2], Remembered(table, scores_of))
    assert [each.known for each in first] == [False, False]
    remembered = remember(table, first, [np.float32([0.25, 0, 0]), None])
    again = read(pictures, remembered)
    assert [each.item.path for each in again] == [each.reading.path for each in again] == pictures
    assert [each.known for each in again] == [False, True, False, True, False]
    assert again[1].scores == pytest.approx([0.5])
    assert again[3].scores is None
    assert again[1].reading.picture.shape == (16, 16)
    assert again[0].reading.content_hash == hashlib.sha256(pictures[0].read_bytes()).hexdigest()


def test_names_and_dates_do_not_count(table, pictures, tmp_path):
    remembered = remember(table, read(pictures[:1], Remembered(table, scores_of)), [np.float32([0.25, 0, 0])])
    pictures[0].rename(tmp_path / "moved.png")
    assert read([tmp_path / "moved.png"], remembered)[0].known
    pictures[1].rename(pictures[0])
    assert not read(pictures[:1], remembered)[0].known


def test_much_that_is_known_does_not_disturb_the_order(table, pictures):
    remembered = remember(table, read(pictures[:1], Remembered(table, scores_of)), [np.float32([0.25, 0, 0])])
    many = [pictures[0]] * 40 + pictures[1:3] + [pictures[0]] * 40 + pictures[3:]
    found = read(many, remembered)
    assert [each.reading.path for each in found] == many
    assert [each.known for each in found] == [path == pictures[0] for path in many]


def test_known_files_are_counted_without_reading_them(table, pictures):
    remembered = remember(table, read(pictures[:2], Remembered(table, scores_of)), [np.float32([0.25, 0, 0]), None])
    decided = Item(Path("x"), decided=("skip", "symlink"))
    assert counted([*items([*pictures, Path("gone")]), decided], remembered, workers=1) == Counted(7, 2, {"symlink": 1})
    nothing = Remembered(ImageTable(table.folder, "cd" * 32, "reader", WIDTH), None)
    assert counted([*items(pictures), decided], nothing, workers=1) == Counted(6, 0, {"symlink": 1})


def test_a_child_that_knows_what_nobody_told_it_is_not_believed(table, pictures, monkeypatch):
    remembered = remember(table, read(pictures[:1], Remembered(table, scores_of)), [np.float32([0.25, 0, 0])])
    monkeypatch.setattr(Remembered, "digests", lambda self: iter([hashlib.sha256(pictures[1].read_bytes()).digest()]))
    (found,) = read(pictures[1:2], remembered)
    assert (found.reading.outcome, found.reading.reason) == ("reject", "decode_crash")


def test_decided_files_are_rows_without_being_opened(table, pictures):
    stream = iter(
        [Item(Path("gone"), decided=("reject", "vanished")), Item(pictures[0], picture=True), Item(Path("x"), decided=("skip", "symlink"))]
    )
    found = list(found_readings(stream, Remembered(table, scores_of), size=16, workers=1))
    assert [each.reading.reason for each in found] == ["vanished", None, "symlink"]


def test_pictures_are_welcome_only_where_a_table_names_them(table, pictures):
    stream = iter([Item(pictures[0], picture=True), Item(pictures[0]), Item(pictures[0], picture=True)])
    found = list(found_readings(stream, Remembered(table, scores_of), size=16, workers=1))
    assert [each.reading.outcome for each in found] == ["score", "skip", "score"]


def test_reasons_not_kept_are_reasons():
    assert set(REASONS) >= NOT_KEPT
