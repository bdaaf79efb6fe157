import pytest

from engine.dicom.checks import identifier, refuse_arrangement, refuse_description
from engine.dicom.header import Header
from engine.dicom.reasons import DETAILS, Refusal

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
    assert raised.value.code == code and raised.value.detail in DETAILS


@pytest.mark.parametrize("uid", ["1.2.3", "5094b2563a1ef3ff50dc5c7ff71345ab", "0042", "7", "a1b2c3d4e5f6", "abcdefabcdef", "study-12"])
def test_what_names_one_thing_is_an_identifier(uid: str) -> None:
    assert identifier(uid) == uid


@pytest.mark.parametrize("uid", ["", "anonymized", "REMOVED", "XXX", "0", "00000000", "none", "patient", "ANON 1"])
def test_what_stands_for_a_removed_uid_names_nothing(uid: str) -> None:
    assert identifier(uid) == ""


@pytest.mark.parametrize("intercept", [0.0, -1024.0, 32768.0, 1e6])
def test_offsets_of_real_images_pass(intercept: float) -> None:
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
