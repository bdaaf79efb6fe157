"""The measurement of a model beside raw pixels, on pictures whose finding is their brightness."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from engine.recipe import load_recipe
from engine.recipe.prompts import PromptRecipe
from engine.recipe.sources import TableSource


@pytest.fixture(scope="module")
def measure(script):
    return script("examples/measure.py")


def test_raw_pixels_give_probabilities_and_none_for_one_class(measure):
    pixels = np.linspace(0, 1, 40)[:, None].repeat(3, axis=1)
    labels = np.repeat([0, 1], 20).astype(np.int8)
    scores = measure.baseline_scores(pixels, labels, np.array([[0.0] * 3, [1.0] * 3, [50.0] * 3]))
    assert (np.diff(scores) > 0).all() and ((scores >= 0) & (scores <= 1)).all()
    assert measure.baseline_scores(pixels, np.ones(40, np.int8), pixels) is None


def test_a_source_has_a_row_for_each_finding_that_is_there_often_enough(random_bundle, measure, tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        Image.fromarray((rng.integers(0, 90, (40, 40)) + 90 * (number % 2)).astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"file": f"{number}.png", "patient": f"p{number}", "Edema": str(number % 2)})
    pl.DataFrame(rows).write_csv(tmp_path / "t.csv")
    source = TableSource(file=str(tmp_path / "t.csv"), split={"train": 0.5}, reports="none")
    (row,) = measure.rows_of(source, random_bundle(tmp_path / "toy"), load_recipe("chest14", PromptRecipe))
    assert row.startswith("| table | Edema | ") and "| 1.000 (" in row, row
