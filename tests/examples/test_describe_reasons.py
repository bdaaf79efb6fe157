"""The page of reasons and flags says what the policy says."""

import pytest

from engine.dicom.reasons import FLAG_ADVICE, FLAGS, REASONS


@pytest.fixture(scope="module")
def describe_reasons(script):
    return script("examples/describe_reasons.py")


def test_the_page_is_that_of_the_policy(describe_reasons):
    on_disk = describe_reasons.PAGE.read_text("utf-8")
    assert on_disk == describe_reasons.page(), "run python examples/describe_reasons.py"


def test_every_code_has_one_row_with_something_to_do(describe_reasons):
    rows = [line.split(" | ") for line in describe_reasons.page().splitlines() if line.startswith("| `")]
    assert sorted(row[0].strip("|` ") for row in rows) == sorted([*REASONS, *FLAGS])
    assert all(row[-1].strip(" |") for row in rows)


def test_every_flag_has_advice():
    assert FLAG_ADVICE.keys() == FLAGS.keys()
