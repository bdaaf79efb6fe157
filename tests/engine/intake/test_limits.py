"""Limits as users set them: every key does what it says, every fault is told, and what was used is written down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.intake.limits import LIMITS, SETTINGS, Limits, as_settings, limits_from


def test_without_settings_the_limits_are_the_documented_ones():
    assert limits_from([]) == LIMITS == Limits()
    assert as_settings(LIMITS) == {"seconds": 30, "memory_gb": 2, "file_mb": 512, "megapixels": 100, "nesting": 64}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("seconds=0.5", Limits(seconds=0.5)),
        ("memory_gb=4", Limits(memory=4 << 30)),
        ("file_mb=1024", Limits(file_bytes=1 << 30, inflated_bytes=512 << 20)),
        ("megapixels=250", Limits(pixels=250_000_000)),
        ("nesting=100", Limits(depth=100)),
    ],
)
def test_a_setting_changes_its_own_limit(setting, expected):
    assert limits_from([setting]) == expected


def test_the_last_of_a_key_counts():
    assert limits_from(["seconds=60", "nesting=9", "seconds=90"]) == Limits(seconds=90, depth=9)


@given(st.fixed_dictionaries({}, optional={key: st.integers(1, 10**4) for key in SETTINGS}))
def test_what_was_set_is_what_is_written_down(values):
    limits = limits_from([f"{key}={value}" for key, value in values.items()])
    written = as_settings(limits)
    assert written == as_settings(LIMITS) | values
    assert limits_from([f"{key}={value}" for key, value in written.items()]) == limits


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "many", "1e999"])
def test_a_value_that_is_no_limit_is_refused(value):
    with pytest.raises(UsageError, match="seconds should be a number above 0"):
        limits_from([f"seconds={value}"])


def test_all_faults_are_told_at_once_with_the_nearest_key():
    with pytest.raises(UsageError) as raised:
        limits_from(["second=9", "file_mb=x", "nesting", "colour=3"])
    for words in ("'second'; did you mean seconds?", "file_mb should be", "nesting should be", "unknown limit 'colour'"):
        assert words in str(raised.value)
