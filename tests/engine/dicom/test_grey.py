from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.dicom.grey import padding_bounds, shrink, target_shape, to_grey_image
from engine.dicom.header import Header
from engine.dicom.lookup_table import LookupTable
from engine.dicom.pixels import Stored
from engine.dicom.reasons import FLAGS, Refusal

SIZE = 64


def header(window: tuple[float, float] | None = (2048.0, 4096.0), **changes: object) -> Header:
    windows = () if window is None else (window,)
    return Header(**{"photometric": "MONOCHROME2", "bits_stored": 12, "windows": windows, **changes})  # type: ignore[arg-type]


def image(values: np.ndarray, **changes: object) -> np.ndarray:
    return to_grey_image(Stored(values, *values.shape), header(**changes), SIZE)[0].astype(float)


def flags(values: np.ndarray, **changes: object) -> tuple[str, ...]:
    return to_grey_image(Stored(values, *values.shape), header(**changes), SIZE)[1]


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


def test_a_window_maps_its_ends_to_black_and_white(make: SimpleNamespace) -> None:
    values = np.tile(np.linspace(0, 4095, 256).round().astype(np.uint16), (256, 1))
    grey = image(values, window=(2048.0, 1001.0))  # 1547.5 ... 2547.5, PS3.3 C.11.2.1.2.1
    assert set(np.unique(grey[:, : int(64 * 1547 / 4096) - 3])) == {0.0} and set(np.unique(grey[:, int(64 * 2548 / 4096) + 3 :])) == {255.0}
    assert 120 < grey[:, 31:33].mean() < 135


def test_polarity_is_turned_exactly_once(make: SimpleNamespace) -> None:
    values = make.chest()
    upright = image(values)
    assert difference(image(4095 - values, photometric="MONOCHROME1"), upright) < 0.6
    assert difference(image(4095 - values, photometric="MONOCHROME1", lut_shape="INVERSE"), upright) < 0.6
    assert difference(image(4095 - values, lut_shape="INVERSE"), upright) < 0.6
    assert difference(image(values, photometric="MONOCHROME1"), 255 - upright) < 0.6


@settings(max_examples=20, deadline=None)
@given(slope=st.floats(0.25, 4), intercept=st.integers(-3000, 3000), negative=st.booleans())
def test_rescale_and_window_change_together(make: SimpleNamespace, slope: float, intercept: int, negative: bool) -> None:
    """A window in modality units shows the same image as the same window in stored units (C.11.1 before C.11.2)."""
    values = make.chest()
    if negative:
        slope, values = -slope, (4095 - values).astype(np.uint16)
    low, high = sorted((slope * 0 + intercept, slope * 4095 + intercept))
    window = ((low + high) / 2, high - low)
    expected = image(make.chest(), window=(2047.5, 4095.0), voi_function="LINEAR_EXACT")
    got = image(values, slope=slope, intercept=float(intercept), window=window, voi_function="LINEAR_EXACT")
    assert difference(got, expected) < 0.6


@pytest.mark.parametrize("bits", [8, 10, 14, 16])
def test_bit_depth_does_not_change_the_image(make: SimpleNamespace, bits: int) -> None:
    values = make.chest()
    deep = (values.astype(np.float64) * (2**bits - 1) / 4095).round().astype(np.uint8 if bits == 8 else np.uint16)
    assert difference(image(deep, window=(2.0 ** (bits - 1), 2.0**bits)), image(values)) < 0.6


def test_tables_are_applied_in_order(make: SimpleNamespace) -> None:
    values = make.chest()
    ramp = LookupTable(0, 12, np.arange(4096, dtype=np.float32))
    turned = LookupTable(0, 12, np.arange(4096, dtype=np.float32)[::-1].copy())
    upright = image(values)
    assert difference(image(values, voi_lut=ramp), upright) < 0.6
    assert difference(image(values, voi_lut=ramp, window=(100.0, 5.0)), upright) < 0.6, "a VOI LUT goes before a window"
    assert difference(image(values, modality_lut=turned), 255 - upright) < 0.6
    assert difference(image(values, modality_lut=turned, voi_lut=turned), upright) < 0.6
    assert difference(image(values, modality_lut=turned, slope=5.0), 255 - upright) < 0.6, "a modality LUT replaces the slope"


def test_values_beyond_a_table_take_its_ends() -> None:
    values = np.tile(np.arange(0, 4096, 16, dtype=np.uint16), (256, 1))
    grey = image(values, voi_lut=LookupTable(1000, 11, np.arange(2048, dtype=np.float32)))
    assert set(np.unique(grey[:, :14])) == {0.0} and set(np.unique(grey[:, 50:])) == {255.0}


def test_a_sigmoid_bends_but_keeps_the_middle() -> None:
    values = np.tile(np.arange(0, 4096, 16, dtype=np.uint16), (256, 1))
    grey = image(values, voi_function="SIGMOID", window=(2048.0, 2000.0))
    assert abs(grey[:, 31:33].mean() - 127.5) < 3
    column = grey.mean(0)
    assert (np.diff(column) >= 0).all() and column[0] > 2 and column[-1] < 253


@pytest.mark.parametrize("place", [0, 63536])
def test_padding_moves_no_range_and_is_black(make: SimpleNamespace, place: int) -> None:
    values = make.chest()
    padded = values.copy()
    padded[:, :64] = place
    grey = image(padded, window=None, padding=place, bits_stored=16)
    assert "padding" in flags(padded, window=None, padding=place, bits_stored=16)
    assert grey[:, :14].max() <= 1  # of 255: the ripple of resampling at the edge of the padding
    alone = image(np.ascontiguousarray(values[:, 64:]), window=None)
    assert abs(np.median(grey[:, 20:]) - np.median(alone)) < 6


@pytest.mark.parametrize(
    ("window", "raised", "flag"), [(None, (), "no_window"), (None, ("bad_window",), None), ((60000.0, 2.0), (), "bad_window")]
)
def test_without_a_usable_window_the_range_of_the_data_is_shown(make, window, raised, flag) -> None:
    values = make.chest()
    values[0, 0] = 65535  # one hot pixel
    grey = image(values, window=window, flags=raised)
    assert grey.std() > 40
    assert flags(values, window=window, flags=raised) == ((flag,) if flag else ())


@pytest.mark.parametrize("value", [0, 1234])
def test_a_constant_image_is_degenerate(value: int) -> None:
    with pytest.raises(Refusal) as raised:
        image(np.full((100, 100), value, np.uint16))
    assert raised.value.code == "degenerate_image"


def test_padding_around_nothing_is_degenerate() -> None:
    values = np.full((100, 100), 7, np.uint16)
    values[:, :50] = 0
    with pytest.raises(Refusal):
        image(values, padding=0)


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(64, 700), columns=st.integers(64, 700), aspect=st.sampled_from([1.0, 2.0, 0.5]))
def test_the_shorter_side_is_as_asked_and_the_mean_stays(rows: int, columns: int, aspect: float) -> None:
    height, width = target_shape(rows, columns, aspect, SIZE)
    assert min(height, width) == SIZE
    assert abs(height / width - rows * aspect / columns) < 0.02 * rows * aspect / columns + 1 / SIZE
    y, x = np.mgrid[0:rows, 0:columns]
    values = (1000 + 500 * y / rows + 700 * x / columns).astype(np.uint16)
    small = shrink(values, Stored(values, rows, columns), aspect, SIZE)
    assert small.shape == (height, width)
    assert abs(float(small.mean()) - float(values.mean())) < 3


@pytest.mark.parametrize("side", [1000, 1344, 1500, 1791, 2250, 2600, 3000, 3583, 4100])
@pytest.mark.parametrize("size", [64, 224])
def test_text_is_looked_for_in_a_image_of_one_size_however_much_it_came_reduced(side: int, size: int) -> None:
    factor = 1 << int(np.log2(side // 448))
    shown = []
    for kept in (1, factor):
        values = np.zeros((side // kept, side // kept), np.uint8)
        stored = Stored(values, side, side, kept)
        shrink(values, stored, 1.0, size, (0, 255), lambda seen, _: shown.append(seen.shape[0]))
    assert 448 <= shown[0] < 896
    assert 0 <= shown[0] - shown[1] <= 8


def test_shrinking_moves_nothing_sideways(make: SimpleNamespace) -> None:
    """The same image from whole values and from a wavelet reduction, whose samples sit elsewhere."""
    y, x = np.mgrid[0:512, 0:512]
    values = (2000 + 1500 * np.sin(x / 40) * np.cos(y / 31)).astype(np.uint16)
    whole = shrink(values, Stored(values, 512, 512), 1.0, SIZE)
    kept = values[::4, ::4]  # what a wavelet keeps of a smooth image
    moved = shrink(kept, Stored(kept, 512, 512, 4, 0.5 - 0.5 / 4), 1.0, SIZE)
    still = shrink(kept, Stored(kept, 512, 512, 4, 0.0), 1.0, SIZE)
    assert np.abs(moved - whole)[2:-2, 2:-2].max() < 15 < np.abs(still - whole)[2:-2, 2:-2].max()


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "f4"])
@pytest.mark.parametrize("share", [0.01, 0.06, 0.2, 1.0])
def test_no_sum_of_a_block_overflows(kind: str, share: float) -> None:
    """One grey value everywhere, small enough for short sums of whole blocks, of rows only, of neither."""
    top = 1.0 if kind == "f4" else np.iinfo(kind).max
    for value in {np.dtype(kind).type(top * share), np.dtype(kind).type(-top * share if kind in ("i2", "f4") else top * share)}:
        values = np.full((645, 640), value)
        assert np.allclose(shrink(values, Stored(values, *values.shape), 1.0, SIZE), float(value), rtol=1e-4)


@pytest.mark.parametrize("peak", [4095, 60000, 1 << 31])
def test_a_known_peak_changes_nothing_but_the_time(peak: int) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (645, 640)).astype(np.uint16)
    plain, told = (shrink(values, Stored(values, *values.shape, peak=known), 1.0, SIZE) for known in (None, peak))
    assert np.array_equal(plain, told)


@pytest.mark.parametrize("width", [200, 300, 700, 1400])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_narrow_window_is_applied_before_the_image_shrinks(make: SimpleNamespace, width: float, photometric: str) -> None:
    """Averages of clipped values are other values than clipped averages: noise and sharp edges showed 20 of 255 between the two."""
    rng = np.random.default_rng(0)
    values = np.clip(1900 + (make.chest(600, 512) - 1900.0) / 6 + rng.normal(0, 10, (600, 512)), 0, 4095).astype(np.uint16)
    values[100:102, :300] = 4095  # a wire
    full = np.clip((values - (1900 - 0.5)) / (width - 1) + 0.5, 0, 1)
    full = 1 - full if photometric == "MONOCHROME1" else full
    expected = np.asarray(Image.fromarray((full * 255).astype(np.float32)).resize((64, 75), Image.Resampling.LANCZOS)).clip(0, 255)
    assert difference(image(values, window=(1900.0, width), photometric=photometric), expected) < 0.8


def half_near(value: float, values: np.ndarray) -> np.ndarray:
    """The values in their order, half of them within 60 of `value`, the others over 12 bits."""
    rank = values.ravel().argsort().argsort().reshape(values.shape) / (values.size - 1) * 2 - 1
    return np.clip(value + 2000 * rank**5, 0, 4095).astype(np.uint16)


@pytest.mark.parametrize("width", [150.0, 4096.0])
def test_reduced_values_are_read_again_where_the_window_is_narrow(make: SimpleNamespace, width: float) -> None:
    values = half_near(1900, make.chest(600, 512))
    reduced = values.reshape(150, 4, 128, 4).mean((1, 3)).astype(np.uint16)
    asked: list[bool] = []

    def whole() -> Stored:
        asked.append(True)
        return Stored(values, 600, 512)

    got, _ = to_grey_image(Stored(reduced, 600, 512, 4), header(window=(1900.0, width)), SIZE, whole)
    assert bool(asked) == (width < 1000)
    assert difference(got.astype(float), image(values, window=(1900.0, width))) < 0.6


@pytest.mark.parametrize("padding", [0, 4095, 3000, None])
def test_reduced_values_are_read_again_where_padding_would_show(make: SimpleNamespace, padding: int | None) -> None:
    values = make.chest(600, 512)
    values[:, :101] = 4095 if padding is None else padding
    reduced = values[::4, ::4]
    changes = {"padding": padding, "photometric": "MONOCHROME1", "window": (1900.0, 3600.0)}
    asked: list[bool] = []

    def whole() -> Stored:
        asked.append(True)
        return Stored(values, 600, 512)

    got, raised = to_grey_image(Stored(reduced, 600, 512, 4, 0.5 - 0.5 / 4), header(**changes), SIZE, whole)
    assert ("padding" in raised) == (padding is not None)
    assert bool(asked) == (padding in (0, 3000)), "4095 is black by itself"
    assert difference(got.astype(float), image(values, **changes)) < (0.01 if asked else 2)


@pytest.mark.parametrize("padding", [0, 4095])
def test_reduced_values_are_read_again_where_padding_would_move_the_range(make: SimpleNamespace, padding: int) -> None:
    values = make.chest(600, 512)
    values[:, :101] = padding
    got, _ = to_grey_image(
        Stored(values[::4, ::4], 600, 512, 4), header(window=None, padding=padding), SIZE, lambda: Stored(values, 600, 512)
    )
    assert np.array_equal(got, image(values, window=None, padding=padding))


@pytest.mark.parametrize(
    ("value", "changes", "found"),
    [
        (63536, {"signed": 1, "bits_stored": 16}, -2000),  # written as US over signed pixels
        (-2000, {"signed": 0, "bits_stored": 16}, 63536),  # written as SS over unsigned ones
        (200, {"signed": 1, "bits_stored": 8, "bits_allocated": 8}, -56),
        (63536, {"signed": 0, "bits_stored": 12}, None),  # no 12-bit value; masked it would be tissue
        (-2000, {"signed": 1, "bits_stored": 12}, -2000),
    ],
)
def test_padding_is_a_stored_value(value: int, changes: dict[str, int], found: int | None) -> None:
    bounds = padding_bounds(header(padding=value, **changes))
    assert bounds == (None if found is None else (found, found))


def test_a_range_of_padding_counts_from_either_end() -> None:
    assert padding_bounds(header(padding=20, padding_limit=10)) == padding_bounds(header(padding=10, padding_limit=20)) == (10, 20)
    assert padding_bounds(header(padding=4000, padding_limit=65535)) == (4000, 4095)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "i4", "u4", "f4"])
def test_every_type_of_stored_value_goes_through_the_curve(make: SimpleNamespace, kind: str) -> None:
    values = (make.chest() >> 5).astype(kind)
    got = image(values, voi_function="SIGMOID", window=(64.0, 60.0), bits_stored=7 if kind.endswith("1") else 12)
    curve = 255 / (1 + np.exp(-4 * (values.astype(float) - 64) / 60))
    expected = np.asarray(Image.fromarray(curve.astype(np.float32)).resize((64, 75), Image.Resampling.LANCZOS))
    assert difference(got, expected) < 0.6


@pytest.mark.parametrize(("rows", "columns", "aspect"), [(64, 2000, 1.0), (2000, 64, 1.0), (640, 70, 4.0)])
def test_a_strip_is_no_radiograph(rows: int, columns: int, aspect: float) -> None:
    """64 x 65,535 pixels, a file of some kilobytes, would become a image of 51 megapixels."""
    values = np.random.default_rng(0).integers(0, 4096, (rows, columns)).astype(np.uint16)
    with pytest.raises(Refusal) as raised:
        image(values, aspect=aspect)
    assert raised.value.code == "too_small"
    assert image(values[:1000, :1000], aspect=1.0).shape[0] >= SIZE


NUMBERS = st.floats(-1e9, 1e9, allow_nan=False) | st.sampled_from([0.0, 1.0, -1.0, 1e-11, 1e11, 999999999.0, 32768.0])
TABLES = st.none() | st.builds(
    lambda first, bits, count, seed: LookupTable(first, bits, np.random.default_rng(seed).integers(0, 1 << bits, count).astype(np.float32)),
    st.integers(-100000, 100000),
    st.integers(8, 16),
    st.integers(2, 5000),
    st.integers(0, 9),
)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4"]),
    spread=st.floats(0, 1),
    factor=st.sampled_from([1, 4]),
    signed=st.booleans(),
    windows=st.lists(st.tuples(NUMBERS, st.floats(1e-9, 1e9)), max_size=3).map(tuple),
    voi_function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "NOTHING"]),
    slope=st.just(1.0) | NUMBERS.filter(lambda slope: abs(slope) > 1e-12),
    intercept=st.just(0.0) | NUMBERS,
    padding=st.none() | st.integers(-(1 << 40), 1 << 40) | st.integers(-300, 300),
    padding_limit=st.none() | st.integers(-(1 << 40), 1 << 40),
    modality_lut=TABLES,
    voi_lut=TABLES,
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2", "RGB"]),
    lut_shape=st.sampled_from(["", "IDENTITY", "INVERSE", "ODD"]),
    aspect=st.floats(0.25, 4),
    bits=st.integers(2, 32),
)
def test_whatever_the_header_says_there_is_a_image_or_a_reason(kind, spread, factor, signed, bits, **described) -> None:
    """No warning, no overflow, no index past a table, no exception but a Refusal."""
    rng, limits = np.random.default_rng(0), np.iinfo(kind)
    values = rng.integers(int(limits.min * spread), max(1, int(limits.max * spread)), (90, 80), endpoint=True).astype(kind)
    described |= {"samples": 3 if described["photometric"] == "RGB" else 1, "bits_stored": min(bits, 8 * values.dtype.itemsize)}
    stored = Stored(values, 90 * factor, 80 * factor, factor)
    try:
        got, raised = to_grey_image(stored, Header(signed=int(signed), bits_allocated=8 * values.dtype.itemsize, **described), SIZE)
    except Refusal as refusal:
        assert refusal.code == "degenerate_image"
    else:
        assert got.dtype == np.uint8 and min(got.shape) == SIZE and got.min() < got.max() and set(raised) <= set(FLAGS)
