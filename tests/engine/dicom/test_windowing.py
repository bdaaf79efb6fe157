from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dicom.header import Header
from engine.dicom.lookup_table import LookupTable
from engine.dicom.windowing import GreyCurve, choose_curve, data_range, is_inverted, range_curve, to_units


def header(**changes: object) -> Header:
    return Header(**{"photometric": "MONOCHROME2", "bits_stored": 12, "samples": 1, **changes})  # type: ignore[arg-type]


def chosen(values: np.ndarray, **changes: object) -> tuple[GreyCurve | None, tuple[str, ...]]:
    return choose_curve(header(**changes), values.ravel())


RAMP = np.arange(4096)
DOWN = LookupTable(0, 12, np.arange(4096, dtype=np.float32)[::-1].copy())


def test_a_voi_lut_goes_before_windows_and_windows_before_the_range() -> None:
    tone, flags = chosen(RAMP, voi_lut=DOWN, windows=((2048.0, 4096.0),))
    assert tone is not None and tone.ends is None and flags == () and tone.shown(np.array([0.0]))[0] == 1
    tone, flags = chosen(RAMP, windows=((1000.5, 1001.0), (2048.0, 4096.0)))
    assert tone is not None and tone.ends == (500.0, 1500.0) and flags == ()
    assert chosen(RAMP) == (None, ("no_window",))


@pytest.mark.parametrize("useless", [(60000.0, 2.0), (32768.0, 65536.0), (-9000.0, 1.0)], ids=["off the data", "far too wide", "below"])
def test_what_shows_nothing_is_passed_over(useless: tuple[float, float]) -> None:
    tone, flags = chosen(RAMP, windows=(useless, (1000.5, 1001.0)))
    assert tone is not None and tone.ends == (500.0, 1500.0) and flags == ("bad_window",)
    assert chosen(RAMP, windows=(useless,)) == (None, ("bad_window",))
    off = LookupTable(30000, 12, np.arange(4096, dtype=np.float32))
    tone, flags = chosen(RAMP, voi_lut=off, windows=((1000.5, 1001.0),))
    assert tone is not None and tone.ends == (500.0, 1500.0) and flags == ("bad_lut",)
    assert chosen(RAMP, voi_lut=off) == (None, ("bad_lut", "no_window"))


def scene(border: int, collimation: int, grain: int = 0) -> np.ndarray:
    """12-bit values of a field, and a border `border` wide of collimation with noise of `grain`."""
    rng = np.random.default_rng(0)
    values = np.clip(rng.normal(2000, 700, (128, 128)), 300, 4000)
    if border:
        for edge in (np.s_[:border], np.s_[-border:], np.s_[:, :border], np.s_[:, -border:]):
            values[edge] = collimation + rng.integers(0, grain + 1, values[edge].shape)
    return np.clip(values, 0, 4095).astype(np.uint16)


EIGHT_BIT = LookupTable(0, 8, np.arange(256, dtype=np.float32))


@pytest.mark.parametrize("border", [0, 1, 3, 7, 20])
@pytest.mark.parametrize(("collimation", "grain"), [(0, 0), (0, 50), (4095, 0), (4040, 50)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_border_lends_no_contrast_to_a_window(border: int, collimation: int, grain: int, photometric: str) -> None:
    """A window of 8 bits over 12 showed a white silhouette on the black of the collimation, which passed for contrast."""
    values = scene(border, collimation, grain)
    for window in ((128.0, 256.0), (40.0, 400.0), (3950.0, 100.0), (32768.0, 65536.0)):
        assert chosen(values, windows=(window,), photometric=photometric) == (None, ("bad_window",))
        tone, flags = chosen(values, windows=(window, (2048.0, 4096.0)), photometric=photometric)
        assert tone is not None and flags == ("bad_window",), "the next window"
    assert chosen(values, voi_lut=EIGHT_BIT, photometric=photometric) == (None, ("bad_lut", "no_window"))


@pytest.mark.parametrize("border", [0, 1, 3, 7, 20])
@pytest.mark.parametrize("window", [(2000.0, 2800.0), (2000.0, 1400.0), (2048.0, 4096.0), (1500.0, 2000.0)])
def test_a_narrow_window_that_shows_the_field_is_taken(border: int, window: tuple[float, float]) -> None:
    tone, flags = chosen(scene(border, 0), windows=(window,))
    assert tone is not None and flags == ()


def test_eight_bits_and_colour_are_shown_as_they_are() -> None:
    eight = np.arange(256)
    tone, flags = chosen(eight, bits_stored=8)
    assert tone is not None and tone.ends == (0.0, 255.0) and flags == ("no_window",)
    tone, flags = chosen(eight, bits_stored=8, samples=3, photometric="RGB", windows=((40.0, 20.0),), slope=3.0, lut_shape="INVERSE")
    assert tone is not None and tone.ends == (0.0, 255.0) and flags == (), "C.11.2.1.2: windows mean nothing for colour"
    assert chosen(eight, bits_stored=8, slope=4.0)[0] is None, "rescaled values are no grey levels"
    assert chosen(eight // 32 + 100, bits_stored=8)[0] is None, "nothing to see: the range of the data shows more"


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", "", False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "", True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME1", "INVERSE", True),
    ],
)
def test_polarity_comes_last_and_once(photometric: str, shape: str, inverted: bool) -> None:
    described = {"photometric": photometric, "lut_shape": shape}
    assert is_inverted(header(**described)) == inverted
    tone, _ = chosen(RAMP, windows=((1000.5, 1001.0),), **described)
    assert tone is not None and tone.ends == ((1500.0, 500.0) if inverted else (500.0, 1500.0))
    assert tone.shown(np.array([1500.0]))[0] == (0 if inverted else 1)


@given(slope=st.floats(1e-9, 1e6), sign=st.sampled_from([1, -1]), intercept=st.floats(-1e6, 1e6), center=st.floats(900, 3100))
def test_ends_are_stored_values_however_small_the_slope(slope: float, sign: int, intercept: float, center: float) -> None:
    """A window in the units of a slope is the same two stored values; float32 would lose them beside a large intercept."""
    slope *= sign
    units = center * slope + intercept, 1600 * abs(slope)
    tone, _ = chosen(RAMP, slope=slope, intercept=intercept, windows=(units,), voi_function="LINEAR_EXACT")
    assert tone is not None and tone.ends is not None
    loss = 1e-3 + 1e-15 * abs(intercept / slope) * 10
    assert np.allclose(tone.ends, (center - sign * 800, center + sign * 800), atol=loss)


@pytest.mark.parametrize(("first", "least"), [(-1024, -1024), (64512, -1024), (-25536, 40000), (40000, 40000)])
def test_the_first_value_mapped_is_read_in_the_sign_that_meets_the_data(first: int, least: int) -> None:
    tone, _ = chosen(RAMP, intercept=float(least), voi_lut=LookupTable(first, 12, np.arange(4096, dtype=np.float32)))
    assert tone is not None and np.allclose(tone.shown(np.array([0.0, 4095.0])), (0, 1))


def test_a_descriptor_of_more_bits_than_its_entries_have_makes_no_dark_image() -> None:
    ramp = np.arange(4096, dtype=np.float32)
    for bits, brightest in ((12, 1.0), (16, 1.0)):
        tone, flags = chosen(RAMP, voi_lut=LookupTable(0, bits, ramp))
        assert tone is not None and flags == () and tone.shown(np.array([4095.0]))[0] == brightest
    tone, _ = chosen(RAMP, voi_lut=LookupTable(0, 12, ramp * 0.7))
    assert tone is not None and abs(tone.shown(np.array([4095.0]))[0] - 0.7) < 1e-3, "a table may end below white"


def test_a_window_of_width_one_shows_nothing() -> None:
    assert chosen(RAMP, windows=((2000.0, 1.0),)) == (None, ("bad_window",)), "C.11.2.1.2.1: black up to c - 0.5, white beyond"


def test_a_modality_lut_takes_the_place_of_the_slope() -> None:
    assert to_units(header(modality_lut=DOWN, slope=7.0, intercept=5.0), np.array([0.0, 4095.0])).tolist() == [4095, 0]


def test_steepness_is_that_of_the_steepest_part() -> None:
    crowded = np.concatenate([RAMP, np.repeat(RAMP[1700:2400], 20)])
    line, _ = chosen(crowded, windows=((2047.5, 819.0),), voi_function="LINEAR_EXACT")
    curve, _ = chosen(crowded, windows=((2047.5, 819.0),), voi_function="SIGMOID")
    assert line is not None and line.steepness(0, 4095) == 5
    assert curve is not None and abs(curve.steepness(0, 4095) - 5) < 0.1, "a sigmoid is as steep in its middle as the line of its width"
    assert line.steepness(7, 7) == 0


def body(make: SimpleNamespace) -> np.ndarray:
    return make.chest().astype(np.float64) + 1000


@pytest.mark.parametrize("place", [0, 9000], ids=["black", "white"])
@pytest.mark.parametrize("wide", [20, 100])
def test_a_flat_border_is_no_end_of_the_range(make: SimpleNamespace, place: float, wide: int) -> None:
    """A shutter far below the patient, or far above, would leave the patient a third of the grey scale."""
    units = body(make)
    everywhere = np.ones(units.shape, bool)
    without = data_range(units[:, wide:], everywhere[:, wide:])
    units[:, :wide] = place
    units[:, wide] = (place + units[:, wide]) / 2  # shrinking mixes the two
    got = data_range(units, everywhere)
    assert got is not None and without is not None and np.allclose(got, without, atol=0.02 * (without[1] - without[0]))


@pytest.mark.parametrize("side", [10, 20, 40, 60])
@pytest.mark.parametrize("value", [0, 9000, 65535])
def test_a_marker_is_no_end_of_the_range(make: SimpleNamespace, side: int, value: float) -> None:
    """12 bits in 16 with a painted letter of 65535: the patient would have four grey levels."""
    units = body(make)
    everywhere = np.ones(units.shape, bool)
    plain = data_range(units, everywhere)
    units[5 : 5 + side, 5 : 5 + side] = value
    got = data_range(units, everywhere)
    assert plain is not None and got is not None
    assert got[1] - got[0] < 2 * (plain[1] - plain[0])
    if value == 65535:
        assert np.allclose(got, plain, atol=0.05 * (plain[1] - plain[0]))


def test_a_image_without_borders_keeps_its_whole_range(make: SimpleNamespace) -> None:
    units = body(make)
    plain = data_range(units, np.ones(units.shape, bool))
    assert plain is not None and np.allclose(plain, np.percentile(units, (0.5, 99.5)), atol=1)


def test_a_shutter_hides_no_marker(make: SimpleNamespace) -> None:
    units = body(make)
    plain = data_range(units, np.ones(units.shape, bool))
    units[:, :60], units[:, -40:], units[100:130, 150:180] = 0, 9000, 30000
    got = data_range(units, np.ones(units.shape, bool))
    assert plain is not None and got is not None
    assert np.allclose(got, plain, atol=0.1 * (plain[1] - plain[0]))


def test_borders_at_both_ends_and_little_else(make: SimpleNamespace) -> None:
    units = np.zeros((100, 100))
    units[:, 50:] = 10.0
    everywhere = np.ones(units.shape, bool)
    assert data_range(units, everywhere) == (0.0, 10.0), "nothing would remain: two values are a image of their own"
    assert data_range(units[:, 50:], everywhere[:, 50:]) is None
    assert data_range(units, ~everywhere) is None


def test_the_range_of_the_data_is_turned_over_too(make: SimpleNamespace) -> None:
    image = make.chest().astype(np.float32)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        tone = range_curve(header(photometric=photometric, slope=-2.0), image, np.ones(image.shape, bool))
        assert tone is not None and tone.ends is not None
        assert (tone.ends[0] < tone.ends[1]) == (photometric == "MONOCHROME1"), "a falling slope and MONOCHROME1 undo each other"
