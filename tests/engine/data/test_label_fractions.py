"""The parts of one fraction, and the findings that it can teach."""

import numpy as np
import polars as pl
import pytest

from engine.data.label_fractions import checked_fractions, fraction_split, split_hash
from engine.data.splits import Split
from engine.errors import ConfigError, UsageError

PARTS = ["train"] * 40 + ["validation"] * 20 + ["test"] * 10


@pytest.fixture
def split():
    """Seventy patients of an image each; Edema in every second, Fracture in all, Nodule unknown in every third."""
    numbers = range(len(PARTS))
    columns = {
        "image": [f"{n}.png" for n in numbers],
        "patient": [f"p{n}" for n in numbers],
        "part": PARTS,
        "source": ["ab"[n % 2] for n in numbers],
        "Edema": [n % 2 for n in numbers],
        "Fracture": [1 for _ in numbers],
        "Nodule": [(None, 0, 1)[n % 3] for n in numbers],
    }
    return Split(pl.DataFrame(columns), {}, 0)


def test_what_shows_one_class_is_told_and_not_learned(split):
    part = fraction_split(split, ("Edema", "Fracture", "Nodule"), 1.0, 0, scaled=False)
    assert (part.drawn.patients, part.drawn.images) == (40, 40)
    assert part.drawn.positive == {"Edema": 20, "Fracture": 40, "Nodule": 13}
    assert part.drawn.negative == {"Edema": 20, "Fracture": 0, "Nodule": 13}
    assert part.drawn.one_class == ("Fracture",)
    assert part.learned == ("Edema", "Nodule")
    assert part.labels.shape == (40, 2)
    assert part.validation_labels.shape == (20, 2)
    assert np.isnan(part.labels[:, 1]).sum() == 14
    assert part.sources == ("a", "b")


@pytest.mark.parametrize(("scaled", "validated"), [(False, 20), (True, 5)])
def test_a_share_is_taken_of_the_training_patients_and_of_the_others_where_asked(split, scaled, validated):
    part = fraction_split(split, ("Edema",), 0.25, 0, scaled=scaled)
    account = part.account()
    assert {name: each["patients"] for name, each in account.items()} == {"train": 10, "validation": validated, "test": 10}
    assert account["test"]["sha256"] == split_hash(split.part("test"))
    assert set(part.train["patient"]) < set(split.part("train")["patient"])


def test_a_share_without_anything_to_learn_says_what_it_holds(split):
    part = fraction_split(split, ("Fracture",), 0.1, 0, scaled=False)
    with pytest.raises(ConfigError, match="10 % of the training patients show one class only of every finding") as refused:
        _ = part.learned
    assert "4 patients, 4 images" in str(refused.value)


def test_fractions_ascend_each_once():
    assert checked_fractions([1.0, 0.1, 1.0]) == (0.1, 1.0)


@pytest.mark.parametrize("fractions", [(), (0.0,), (0.5, 1.5), (float("nan"),)])
def test_a_fraction_out_of_range_is_refused(fractions):
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        checked_fractions(fractions)
