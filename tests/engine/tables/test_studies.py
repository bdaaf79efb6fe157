"""Studies are the same however their images come."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tables import studies as module
from engine.tables.batches import Batches
from engine.tables.columns import joined_flags
from engine.tables.studies import study_table

IMAGES = st.lists(
    st.tuples(st.sampled_from("rstu"), st.floats(0, 1, width=32), st.sets(st.sampled_from(["aspect", "polarity"]))), max_size=20
)
SCHEMA = {"study": pl.String, "flags": pl.String, "a": pl.Float32}


def batches(images, size):
    rows = [(study, joined_flags(sorted(flags)), score) for study, score, flags in images]
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return Batches(SCHEMA, lambda: frame.iter_slices(size) if rows else [])


@pytest.mark.parametrize(("aggregate", "over"), [("mean", np.mean), ("max", np.max)])
@given(images=IMAGES, size=st.integers(1, 20), at_once=st.integers(1, 4))
def test_a_study_is_the_same_in_batches_of_any_size(aggregate, over, images, size, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STUDIES_AT_ONCE", at_once)
        grouped, count = study_table(batches(images, size), ["a"], aggregate)
        table = grouped.frame()
    assert table["study"].to_list() == list(dict.fromkeys(study for study, _, _ in images))
    assert count == table.height
    for study, number, score, flags in table.iter_rows():
        own = [each for each in images if each[0] == study]
        assert number == len(own)
        assert score == pytest.approx(over([each[1] for each in own]), abs=1e-6)
        assert flags == joined_flags(sorted(set().union(*(each[2] for each in own))))


def test_many_studies_keep_their_order():
    names = [f"{(number * 7919) % 3000}" for number in range(3000)]
    grouped, count = study_table(batches([(name, 0.5, set()) for name in names], 1000), ["a"], "mean")
    assert count == 3000
    assert grouped.frame()["study"].to_list() == names
    assert grouped.frame()["flags"].unique().to_list() == [""]


@pytest.mark.parametrize("aggregate", ["mean", "max"])
@given(images=IMAGES, size=st.integers(1, 20), at_once=st.integers(1, 4))
def test_images_that_are_left_out_change_no_score(aggregate, images, size, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STUDIES_AT_ONCE", at_once)
        grouped, count = study_table(batches(images, size), ["a"], aggregate, {"polarity"})
        got = grouped.frame()
    counted = [each for each in images if "polarity" not in each[2]]
    plain, _ = study_table(batches(counted, size), ["a"], aggregate)
    assert got.drop("flags").sort("study").equals(plain.frame().drop("flags").sort("study"))
    assert count == got.height, "a study of nothing else has no row"
    for study, flags in got.select("study", "flags").iter_rows():
        assert flags == joined_flags(sorted(set().union(*(each[2] for each in images if each[0] == study)))), "the flags stay"
