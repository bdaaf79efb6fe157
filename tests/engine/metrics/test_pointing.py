"""The pointing game: hits, their interval, and the places that never look at a picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.metrics.intervals import wilson_interval
from engine.metrics.pointing import (
    area_share,
    highest_place,
    is_hit,
    mean_place,
    most_covered_place,
    pointing,
)

shares = st.floats(0, 1, width=32)


@st.composite
def boxes(draw, least=1):
    corners = draw(arrays(np.float64, st.tuples(st.integers(least, 6), st.just(4)), elements=shares))
    return np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], axis=1)


def test_figures_count_hits():
    found = pointing([True, False, True, True])
    assert (found.hits, found.n, found.rate) == (3, 4, 0.75)
    assert (found.low, found.high) == wilson_interval(0.75, 4)
    with pytest.raises(ValueError, match="no place"):
        pointing([])


def test_the_maximum_is_the_middle_of_its_pixel_and_nan_is_no_value():
    values = np.zeros((4, 5))
    values[1, 3] = 2
    values[0, 0] = np.nan
    assert highest_place(values) == (3.5 / 5, 1.5 / 4)
    with pytest.raises(ValueError, match="without a value"):
        highest_place(np.full((2, 2), np.nan))


def test_of_a_level_rim_the_innermost_place_is_taken_which_is_the_patch_s_centre():
    rim = np.zeros((8, 8))
    rim[:2, 6:] = 1
    assert highest_place(rim) == (6.5 / 8, 1.5 / 8)
    assert highest_place(np.ones((3, 5))) == (0.5, 0.5)


@given(arrays(np.float64, (6, 7), elements=shares))
def test_the_highest_place_is_a_maximum(values):
    x, y = highest_place(values)
    assert values[int(y * 6), int(x * 7)] == values.max()


def test_a_hit_is_inside_or_on_the_rim_of_any_box():
    two = [[0.1, 0.1, 0.3, 0.2], [0.6, 0.5, 0.9, 0.9]]
    assert is_hit((0.2, 0.15), two)
    assert is_hit((0.6, 0.9), two)
    assert not is_hit((0.2, 0.21), two)
    assert not is_hit((0.2, 0.6), two)
    assert not is_hit((0.2, 0.2), [])
    with pytest.raises(ValueError, match="left, top, right, bottom"):
        is_hit((0, 0), [[0.5, 0, 0.4, 1]])


def test_the_mean_place_of_two_sides_may_be_between_them():
    lungs = [[0.1, 0.2, 0.3, 0.4], [0.7, 0.2, 0.9, 0.4]]
    assert mean_place(lungs) == pytest.approx((0.5, 0.3))
    assert not is_hit(mean_place(lungs), lungs)
    with pytest.raises(ValueError, match="no box"):
        mean_place([])


@given(st.lists(boxes(), min_size=1, max_size=5))
def test_no_place_is_in_more_pictures_than_the_most_covered_one(pictures):
    best = sum(is_hit(most_covered_place(pictures), each) for each in pictures)
    tried = np.random.default_rng(0).random((200, 2)).tolist() + [
        corner for each in pictures for corner in (each[:, :2].tolist() + each[:, 2:].tolist())
    ]
    assert best == max(sum(is_hit(place, each) for each in pictures) for place in [*tried, most_covered_place(pictures)])


def test_two_boxes_of_one_picture_count_once():
    pictures = [[[0, 0, 0.2, 0.2], [0.05, 0.05, 0.2, 0.2]], [[0.5, 0.5, 0.8, 0.8]], [[0.6, 0.6, 0.9, 0.9]]]
    assert most_covered_place(pictures) == pytest.approx((0.7, 0.7))
    with pytest.raises(ValueError, match="no box"):
        most_covered_place([[], []])


@given(boxes(least=0))
def test_the_area_is_how_often_chance_hits(each):
    x, y = (np.mgrid[:200, :200][..., None] + 0.5) / 200
    left, top, right, bottom = each.T
    hit = ((left <= x) & (x <= right) & (top <= y) & (y <= bottom)).any(axis=2).mean()
    assert area_share(each) == pytest.approx(hit, abs=0.04)


def test_overlap_and_overhang_count_once_and_not_at_all():
    assert area_share([[0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5]]) == pytest.approx(0.375)
    assert area_share([[-0.5, 0, 0.5, 1.2]]) == pytest.approx(0.5)
