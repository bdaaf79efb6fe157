"""Studies are the same however their images come."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tables.columns import joined_flags
from engine.tables.studies import Studies

IMAGES = st.lists(
    st.tuples(st.sampled_from("rstu"), st.floats(0, 1, width=32), st.sets(st.sampled_from(["aspect", "polarity"]))), min_size=1, max_size=20
)


def frame(images):
    rows = [(study, joined_flags(sorted(flags)), score) for study, score, flags in images]
    return pl.DataFrame(rows, schema={"study": pl.String, "flags": pl.String, "a": pl.Float32}, orient="row")


@pytest.mark.parametrize(("aggregate", "over"), [("mean", np.mean), ("max", np.max)])
@given(images=IMAGES, size=st.integers(1, 20))
def test_a_study_is_the_same_in_batches_of_any_size(aggregate, over, images, size):
    studies = Studies(["a"], aggregate)
    for start in range(0, len(images), size):
        studies.add(frame(images[start : start + size]))
    table = studies.table().frame()
    assert table["study"].to_list() == list(dict.fromkeys(study for study, _, _ in images))
    assert len(studies) == table.height
    for study, count, score, flags in table.iter_rows():
        own = [each for each in images if each[0] == study]
        assert count == len(own)
        assert score == pytest.approx(over([each[1] for each in own]), abs=1e-6)
        assert flags == joined_flags(sorted(set().union(*(each[2] for each in own))))


def test_many_studies_keep_their_order():
    names = [f"{(number * 7919) % 3000}" for number in range(3000)]
    studies = Studies(["a"], "mean")
    studies.add(frame([(name, 0.5, set()) for name in names]))
    assert studies.table().frame()["study"].to_list() == names
    assert studies.table().frame()["flags"].unique().to_list() == [""]
