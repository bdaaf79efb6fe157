import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dicom import reasons
from engine.dicom.reasons import FLAGS, REASONS, Refusal, uid_fault
from engine.dicom.selection import CR


def test_every_reason_says_what_it_means_and_what_to_do() -> None:
    for code, reason in REASONS.items():
        assert re.fullmatch("[a-z_]+", code)
        assert reason.outcome in ("reject", "skip", "duplicate") and reason.meaning and reason.advice
    assert all(FLAGS.values())


def test_the_list_of_reasons_is_closed() -> None:
    with pytest.raises(ValueError, match="no such reason"):
        Refusal("because")


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=6))
def test_a_uid_is_dotted_numbers(parts: list[int]) -> None:
    assert uid_fault(".".join(map(str, parts))) == ""


TEXT = st.text(st.characters(codec="latin-1"), max_size=20)


@settings(max_examples=50)
@given(TEXT, st.sampled_from(["/", "\\", "..", "\r", "\n", "\t", "\0", "\x1b", "<", ">", "%"]), TEXT)
def test_no_uid_can_be_a_path_a_line_or_markup(before: str, bad: str, after: str) -> None:
    assert uid_fault(before + bad + after) == "reject"


@given(st.sampled_from("=+-@~|"), TEXT)
def test_no_uid_can_be_a_formula(start: str, rest: str) -> None:
    assert uid_fault(start + rest) == uid_fault(f" {start}{rest}") == "reject"


@pytest.mark.parametrize(
    ("uid", "fault"),
    [
        *(
            ("..", "reject"),
            ("../../tmp/x", "reject"),
            ("C:\\x", "reject"),
            ("=1+1", "reject"),
            ("1" * 300, "reject"),
            ("1.2\u202e3", "reject"),
        ),
        *(("1.2.abc.3", "flag"), ("1.2.03.4", "flag"), ("1." + "2" * 63, "flag"), ("1.2.840", ""), ("7", "flag"), ("0042", "flag")),
        *(
            ("anonymized", "flag"),
            ("5094b2563a1ef3ff50dc5c7ff71345", "flag"),
            ("a1b2c3d4e5f6", "flag"),
            ("not available", "flag"),
            ("a_b-c:7", "flag"),
        ),
    ],
)
def test_harmless_uids_are_flagged_and_hostile_ones_refused(uid: str, fault: str) -> None:
    assert uid_fault(uid) == fault


def test_public_codes_are_those_of_the_standard() -> None:
    assert reasons.public_code("DX", reasons.MODALITIES) == "DX" and reasons.public_code("", reasons.MODALITIES) is None
    assert reasons.public_code("=cmd|calc", reasons.MODALITIES) == "OTHER"
    assert reasons.public_uid(CR) == CR and reasons.public_uid("") is None
    assert reasons.public_uid("1.2.826.0.1.19440506") == reasons.public_uid("DOE^JANE") == "OTHER"


def test_failures_are_reasons():
    assert set(reasons.REASONS) >= reasons.FAILURES
