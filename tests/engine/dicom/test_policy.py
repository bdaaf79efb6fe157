import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dicom import policy
from engine.dicom.header import Header
from engine.dicom.policy import FLAGS, REASONS, Refusal, is_chest, is_turned, refuse_class, refuse_description, refuse_selection, uid_fault


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


@pytest.mark.parametrize(
    ("sop_class", "modality", "has_picture", "code"),
    [
        (policy.CR, "CR", True, None),
        (policy.DX_PRESENTATION, "", True, None),
        (policy.SECONDARY_CAPTURE, "RG", True, None),
        (policy.SECONDARY_CAPTURE, "OT", True, "wrong_modality"),
        ("1.2.840.10008.5.1.4.1.1.2", "CT", True, "wrong_modality"),
        ("1.2.840.10008.5.1.4.1.1.2", "CT", False, "unsupported_sop_class"),
        ("1.2.840.10008.5.1.4.1.1.2", "DX", True, "unsupported_sop_class"),
        ("1.2.840.10008.5.1.4.1.1.2", "", True, "unsupported_sop_class"),
        ("1.2.840.10008.5.1.4.1.1.88.11", "SR", False, "unsupported_sop_class"),
        ("", "MR", True, "wrong_modality"),
        (policy.DICOMDIR, "", False, "dicomdir"),
    ],
)
def test_class_and_modality(sop_class: str, modality: str, has_picture: bool, code: str | None) -> None:
    if code is None:
        refuse_class(sop_class, modality, has_picture=has_picture)
        return
    with pytest.raises(Refusal) as raised:
        refuse_class(sop_class, modality, has_picture=has_picture)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("CHEST", True),
        ("Thorax pa", True),
        ("", None),
        ("UNKNOWN", None),
        ("HAND", False),
        ("CSPINE", False),
        ("Becken", False),
        ("LUNGE", True),
    ],
)
def test_body_parts_are_free_text(word: str, answer: bool | None) -> None:
    assert is_chest(word) is answer


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"view": "LL"}, "lateral_view"),
        ({"view": "LATERAL"}, "lateral_view"),
        ({"view": "CHEST LAT ERECT"}, "lateral_view"),
        ({"view_codes": ("R-10236",)}, "lateral_view"),
        ({"body_part": "HAND"}, "wrong_body_part"),
        ({"presentation_intent": "FOR PROCESSING"}, "for_processing"),
        ({"sop_class": policy.DX_PROCESSING}, "for_processing"),
        ({"image_type": ("DERIVED", "SECONDARY", "LOCALIZER")}, "derived_image"),
    ],
)
def test_selection(changes: dict[str, object], code: str) -> None:
    refuse_selection(Header(body_part="CHEST", view="PA"))
    refuse_selection(Header())
    with pytest.raises(Refusal) as raised:
        refuse_selection(Header(**changes))  # type: ignore[arg-type]
    assert raised.value.code == code


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
        ({"invalid": frozenset({"RescaleSlope"})}, "invalid_rescale"),
    ],
)
def test_the_pixel_description_is_checked_before_use(changes: dict[str, object], code: str) -> None:
    refuse_description(Header(**GOOD))  # type: ignore[arg-type]
    with pytest.raises(Refusal) as raised:
        refuse_description(Header(**(GOOD | changes)))  # type: ignore[arg-type]
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("orientation", "turned"), [(("L", "F"), False), (("R", "F"), True), (("F", "R"), True), ((), False), (("L",), False)]
)
def test_patient_orientation_tells_turned_pictures(orientation: tuple[str, ...], turned: bool) -> None:
    assert is_turned(orientation) is turned


def test_public_codes_are_those_of_the_standard() -> None:
    assert policy.public_code("DX", policy.MODALITIES) == "DX" and policy.public_code("", policy.MODALITIES) is None
    assert policy.public_code("=cmd|calc", policy.MODALITIES) == "OTHER"
    assert policy.public_uid(policy.CR) == policy.CR and policy.public_uid("") is None
    assert policy.public_uid("1.2.826.0.1.19440506") == policy.public_uid("DOE^JANE") == "OTHER"


def test_failures_are_reasons():
    assert set(policy.REASONS) >= policy.FAILURES
