"""Which sheets of heatmaps are drawn, which stay, and which cannot be."""

import numpy as np
import pytest

from engine.model.zero_shot import Words
from engine.scoring.heatmap_sheets import HeatmapSheet, SheetFolder, SheetRequest, heatmap_sheets
from engine.scoring.heatmaps import word_margins

PICTURES = {name: np.random.default_rng(seed).integers(0, 256, (70, 64), dtype=np.uint8) for seed, name in enumerate("abc")}
WORDS = {"bright": Words(np.eye(32)[:1], np.eye(32)[1:2])}


@pytest.fixture
def draw(sees_brightness, tmp_path):
    """Draw these images; the events, how many lack a sheet, and the sources that were looked at."""
    sheets = SheetFolder(tmp_path)

    def draw(*wanted, recipe="recipe"):
        asked, events = [], []

        def pictures(sources):
            for source in sources:
                asked.append(source)
                yield f"hash of {source}", PICTURES.get(source)

        drawing = heatmap_sheets(
            wanted, pictures, sheets, sees_brightness, word_margins(WORDS, score="cosine", pool="max"), (recipe, "made by a test")
        )
        while True:
            try:
                events.append(next(drawing))
            except StopIteration as end:
                return events, end.value, asked

    draw.sheets = sheets
    return draw


def wanted(image, source, score=0.5):
    return SheetRequest(image, source, f"hash of {source}", {"bright": score})


def test_a_sheet_is_drawn_once_for_one_picture_words_and_scores(draw):
    assert draw(wanted("1", "a"), wanted("2", "b")) == ([HeatmapSheet("1", False), HeatmapSheet("2", False)], 0, ["a", "b"])
    assert draw(wanted("1", "a"), wanted("2", "b")) == ([HeatmapSheet("1", True), HeatmapSheet("2", True)], 0, [])
    assert draw(wanted("1", "a"), wanted("2", "b", 0.6)) == ([HeatmapSheet("1", True), HeatmapSheet("2", False)], 0, ["b"])
    assert draw(wanted("1", "a"), recipe="other") == ([HeatmapSheet("1", False)], 0, ["a"])


def test_of_several_files_of_one_image_the_first_is_drawn(draw):
    assert draw(wanted("1", "a"), wanted("1", "b")) == ([HeatmapSheet("1", False)], 0, ["a"])


def test_a_picture_that_changed_or_went_away_is_counted(draw):
    changed = SheetRequest("2", "b", "hash of what it was", {"bright": 0.5})
    assert draw(wanted("1", "gone"), changed, wanted("3", "c")) == ([HeatmapSheet("3", False)], 2, ["gone", "b", "c"])
    assert not draw.sheets.path("1").exists()
