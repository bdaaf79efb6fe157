"""Training population: counted by age and view, and who is outside of it."""

import pytest

from engine.model.population import Population, age_band, age_in_years

CHILDREN = Population.of([("kermany", 3.0, "AP")] * 95 + [("nih", 50.0, "pa")] * 4 + [("notes", None, "")])


def test_images_are_counted_by_source_age_and_view():
    assert CHILDREN.as_section() == {
        "sources": {"kermany": 95, "nih": 4, "notes": 1}, "ages": {"0-5": 95, "40-64": 4}, "views": {"AP": 95, "PA": 4},
    }  # fmt: skip
    assert Population.read({"population": CHILDREN.as_section()}) == CHILDREN
    assert "95 of kermany" in str(CHILDREN)


@pytest.mark.parametrize(
    ("age", "view", "outside"),
    [(3, "AP", False), (50, "AP", True), (12, "AP", True), (3, "PA", True), (None, "AP", False), (3, None, False), (3, "LL", False)],
)
def test_a_rare_age_or_view_is_outside_and_an_unknown_one_is_not(age, view, outside):
    assert CHILDREN.is_outside(age, view) == outside


@pytest.mark.parametrize("stored", [{}, {"population": None}, {"population": {"ages": {"0-5": "many"}}}, {"population": {"views": [1]}}])
def test_what_is_no_population_is_none(stored):
    assert Population.read(stored) is None


def test_nothing_is_outside_where_nothing_is_known():
    assert not Population().is_outside(50, "PA")


@pytest.mark.parametrize(("text", "band"), [("004Y", "0-5"), ("011M", "0-5"), ("006Y", "6-17"), ("065Y", "65 and over"), ("040", "40-64")])
def test_ages_fall_into_bands(text, band):
    assert age_band(age_in_years(text)) == band
