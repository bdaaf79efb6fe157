import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dicom import policy
from engine.dicom.header import Header
from engine.dicom.policy import FLAGS, REASONS, Refusal, refuse_arrangement, refuse_description, uid_fault
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


@settings(max_examples=50)
@given(
    st.text(st.characters(codec="latin-1"), max_size=20),
    st.sampled_from("/\\=+@\r\n\t\0 '\"<>%"),
    st.text(st.characters(codec="latin-1"), max_size=20),
)
def test_no_uid_can_be_a_path_a_formula_or_a_line(before: str, bad: str, after: str) -> None:
    assert uid_fault(before + bad + after) == "reject"


@pytest.mark.parametrize(
    ("uid", "fault"),
    [("..", "reject"), ("../../tmp/x", "reject"), ("1.2.abc.3", "flag"), ("1.2.03.4", "flag"), ("1." + "2" * 63, "flag"), ("1.2.840", "")],
)
def test_sloppy_uids_are_flagged_and_hostile_ones_refused(uid: str, fault: str) -> None:
    assert uid_fault(uid) == fault


GOOD = {
    "rows": 100,
    "columns": 100,
    "samples": 1,
    "bits_allocated": 16,
    "bits_stored": 12,
    "high_bit": 11,
    "signed": 0,
    "photometric": "MONOCHROME2",
}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        *(({name: None}, "missing_attribute") for name in ("rows", "columns", "samples", "bits_allocated", "bits_stored", "signed")),
        ({"photometric": ""}, "missing_attribute"),
        ({"invalid": frozenset({"Rows"}), "rows": None}, "invalid_attribute"),
        ({"rows": 0}, "invalid_dimensions"),
        ({"photometric": "PALETTE COLOR"}, "unsupported_photometric"),
        ({"samples": 3}, "invalid_attribute"),
        ({"samples": 3, "photometric": "RGB"}, "color_image"),
        ({"bits_allocated": 12}, "unsupported_bits"),
        ({"bits_allocated": 1, "bits_stored": 1}, "unsupported_bits"),
        ({"bits_stored": 17}, "invalid_bits"),
        ({"bits_stored": 0}, "invalid_bits"),
        ({"high_bit": 15}, "unsupported_bits"),
        ({"signed": 2}, "invalid_attribute"),
        ({"slope": 0.0}, "invalid_rescale"),
        ({"slope": float("nan")}, "invalid_rescale"),
        ({"slope": 1e308}, "invalid_rescale"),
        ({"intercept": float("inf")}, "invalid_rescale"),
        ({"intercept": 1e9}, "invalid_rescale"),
        ({"intercept": -70000.0, "slope": 0.01}, "invalid_rescale"),
        ({"invalid": frozenset({"RescaleSlope"})}, "invalid_rescale"),
    ],
)
def test_the_pixel_description_is_checked_before_use(changes: dict[str, object], code: str) -> None:
    refuse_description(Header(**GOOD))  # type: ignore[arg-type]
    with pytest.raises(Refusal) as raised:
        refuse_description(Header(**(GOOD | changes)))  # type: ignore[arg-type]
    assert raised.value.code == code


@pytest.mark.parametrize("intercept", [0.0, -1024.0, 32768.0, 1e6])
def test_offsets_of_real_pictures_pass(intercept: float) -> None:
    refuse_description(Header(**(GOOD | {"intercept": intercept})))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("planar", "invalid", "code"),
    [(None, (), "missing_attribute"), (2, (), "invalid_attribute"), (None, ("PlanarConfiguration",), "invalid_attribute")],
)
def test_three_channels_are_not_read_in_an_order_that_nobody_named(planar: int | None, invalid: tuple[str, ...], code: str) -> None:
    refuse_arrangement(Header(samples=1))
    refuse_arrangement(Header(samples=3, planar=1))
    with pytest.raises(Refusal) as raised:
        refuse_arrangement(Header(samples=3, planar=planar, invalid=frozenset(invalid)))
    assert raised.value.code == code


def test_public_codes_are_those_of_the_standard() -> None:
    assert policy.public_code("DX", policy.MODALITIES) == "DX" and policy.public_code("", policy.MODALITIES) is None
    assert policy.public_code("=cmd|calc", policy.MODALITIES) == "OTHER"
    assert policy.public_uid(CR) == CR and policy.public_uid("") is None
    assert policy.public_uid("1.2.826.0.1.19440506") == policy.public_uid("DOE^JANE") == "OTHER"


def test_failures_are_reasons():
    assert set(policy.REASONS) >= policy.FAILURES
