"""Our images beside a plain reference: float64, full size, step after step as PS3.3 has them, no code shared with grey.py or tone.py.

Tolerance: mean difference below 0.6 of 255; rounding to 8 bits alone is 0.25.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence

from engine.intake.read_result import ReadResult

TOLERANCE = 0.6
SIZE = 128
Read = Callable[..., ReadResult]


@dataclass
class Described:
    """Stored values and all that the header says of their grey: what the file is made from, and what the reference goes by."""

    values: np.ndarray  # (H, W), the numbers that the stored bits mean
    bits: int = 12
    signed: bool = False
    slope: float | None = None
    intercept: float | None = None
    modality_lut: tuple[int, int, np.ndarray] | None = None  # first value mapped, bits, entries
    voi_luts: list[tuple[int, int, np.ndarray]] = field(default_factory=list)
    windows: list[tuple[float, float]] = field(default_factory=list)
    function: str | None = None
    photometric: str = "MONOCHROME2"
    shape: str | None = None
    padding: tuple[int, int | None] | None = None
    aspect: tuple[int, int] = (1, 1)


# --- the reference --------------------------------------------------------------------------------------------------------------


def reference(d: Described, size: int = SIZE) -> np.ndarray:
    """float64 (H, W), 0-255."""
    x = d.values.astype(np.float64)
    padded = np.zeros(x.shape, bool)
    if d.padding is not None:  # C.7.5.1.1.2: Pixel Padding Value, or all from it to Pixel Padding Range Limit, in stored values
        one, other = d.padding[0], d.padding[0] if d.padding[1] is None else d.padding[1]
        padded = (x >= min(one, other)) & (x <= max(one, other))
    units = modality(d, x)
    grey = next(
        (g for g, (contrast, saturated) in zip(offered(d, units), judged(d), strict=True) if contrast >= 1 / 8 and saturated <= 3 / 4)
    )
    if d.photometric == "MONOCHROME1" or d.shape == "INVERSE":  # C.7.6.3.1.2, C.8.11.3.1.2
        grey = 1 - grey
    grey = np.where(padded, 0.0, grey)
    height, width = grey.shape[0] * d.aspect[0] / d.aspect[1], float(grey.shape[1])  # C.7.6.3.1.7: vertical over horizontal size
    scale = size / min(height, width)
    image = Image.fromarray((grey * 255).astype(np.float32))
    small = image.resize((max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.LANCZOS)
    return np.clip(np.asarray(small, np.float64), 0, 255)


def judged(d: Described) -> list[tuple[float, float]]:
    """Contrast and saturated share of every transformation that the header offers, over what is neither padding nor shutter."""
    units = modality(d, d.values.astype(np.float64))
    inside = (d.values > d.values.min()) & (d.values < d.values.max())
    if d.padding is not None:
        ends = sorted(value for value in d.padding if value is not None)
        inside &= (d.values < ends[0]) | (d.values > ends[-1])
    fields = [grey[inside] for grey in offered(d, units)]
    ends_of = [(field.min() + 1 / 255, field.max() - 1 / 255) for field in fields]
    return [
        (float(np.subtract(*np.percentile(field, (99, 1)))), float(np.mean((field <= dark) | (field >= bright))))
        for field, (dark, bright) in zip(fields, ends_of, strict=True)
    ]


def is_clear(d: Described) -> bool:
    """Whether one transformation at least shows the image, and each shows it clearly or clearly not."""
    clear = all(abs(contrast - 1 / 8) > 0.03 and abs(saturated - 3 / 4) > 0.1 for contrast, saturated in judged(d))
    return clear and any(contrast > 0.2 and saturated < 0.65 for contrast, saturated in judged(d))


def modality(d: Described, x: np.ndarray) -> np.ndarray:
    """C.11.1: output = m * SV + b, or the table."""
    if d.modality_lut is not None:
        return table(x, *d.modality_lut)
    return x * (1.0 if d.slope is None else d.slope) + (0.0 if d.intercept is None else d.intercept)


def offered(d: Described, units: np.ndarray) -> list[np.ndarray]:
    """C.11.2 in the order that tone.py documents."""
    result = [table(units, *lut) / (2.0 ** lut[1] - 1) for lut in d.voi_luts[:1]]
    result += [window(units, c, w, d.function or "LINEAR") for c, w in d.windows]
    if d.bits <= 8 and d.slope in (None, 1.0) and d.intercept in (None, 0.0) and d.modality_lut is None and not d.signed:
        result.append(units / (2.0**d.bits - 1))
    return result


def window(x: np.ndarray, c: float, w: float, function: str) -> np.ndarray:
    """C.11.2.1.2.1 and C.11.2.1.3, word by word, with ymin 0 and ymax 1."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (x - c) / w, -500, 500)))
    if function == "LINEAR_EXACT":
        return np.where(x <= c - w / 2, 0.0, np.where(x > c + w / 2, 1.0, (x - c) / w + 0.5))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (x - (c - 0.5)) / (w - 1) + 0.5
    return np.where(x <= c - 0.5 - (w - 1) / 2, 0.0, np.where(x > c - 0.5 + (w - 1) / 2, 1.0, between))


def table(x: np.ndarray, first: int, bits: int, entries: np.ndarray) -> np.ndarray:
    """C.11.1.1: values up to the first value mapped take the first entry, values past the last one the last."""
    return entries[np.clip(np.round(x).astype(np.int64) - first, 0, len(entries) - 1)].astype(np.float64)


# --- the file -------------------------------------------------------------------------------------------------------------------


def lut_item(first: int, bits: int, entries: np.ndarray, vr: str = "US", data_vr: str = "OW") -> Dataset:
    """`first` is written in the sign of `vr`, whatever it means."""
    item = Dataset()
    first = first % 65536 - (65536 if vr == "SS" and first % 65536 > 32767 else 0)
    item.add_new("LUTDescriptor", vr, [len(entries) % 65536, first, bits])
    item.add_new("LUTData", data_vr, entries.astype("<u2").tobytes() if data_vr == "OW" else [int(entry) for entry in entries])
    return item


def written(make: SimpleNamespace, d: Described, lut_vr: str = "US") -> Dataset:
    wide = np.dtype("u1") if d.bits <= 8 else np.dtype("<u2")
    raw = (d.values.astype(np.int64) & ((1 << d.bits) - 1)).astype(wide)
    ds = make.radiograph(raw, d.bits, WindowCenter=None, WindowWidth=None, RescaleSlope=None, RescaleIntercept=None)
    ds.PixelRepresentation, ds.PhotometricInterpretation = int(d.signed), d.photometric
    if d.shape is None:
        del ds.PresentationLUTShape
    else:
        ds.PresentationLUTShape = d.shape
    if d.slope is not None:
        ds.RescaleSlope, ds.RescaleIntercept = decimal(d.slope), decimal(d.intercept or 0.0)
    if d.modality_lut is not None:
        ds.ModalityLUTSequence = Sequence([lut_item(*d.modality_lut, vr="SS" if d.signed else "US")])
    if d.voi_luts:
        ds.VOILUTSequence = Sequence([lut_item(*lut, vr=lut_vr) for lut in d.voi_luts])
    if d.windows:
        ds.WindowCenter, ds.WindowWidth = ([decimal(pair[i]) for pair in d.windows] for i in (0, 1))
    if d.function is not None:
        ds.VOILUTFunction = d.function
    if d.padding is not None:
        for keyword, value in zip(("PixelPaddingValue", "PixelPaddingRangeLimit"), d.padding, strict=True):
            if value is not None:
                ds.add_new(keyword, "SS" if d.signed else "US", value)
    if d.aspect != (1, 1):
        ds.PixelAspectRatio = list(d.aspect)
    return ds


def decimal(number: float) -> str:
    """A DS of at most 16 characters (PS3.5 6.2)."""
    return format(number if abs(number) > 1e-12 else 0.0, ".9g")


def rounded(number: float) -> float:
    return float(decimal(number))


def difference(got: ReadResult, expected: np.ndarray) -> float:
    assert got.image is not None, got.reason
    assert got.image.shape == expected.shape
    return float(np.abs(got.image - expected).mean())


# --- headers and pixels, generated ----------------------------------------------------------------------------------------------


def scene(make: SimpleNamespace, bits: int, signed: bool, seed: int, rows: int = 560, columns: int = 512) -> np.ndarray:
    """A chest with a shutter and a marker, over the whole of the stored range."""
    rng = np.random.default_rng(seed)
    share = (make.chest(rows, columns) - 300) / 3500
    share[: int(rng.integers(1, 50))] = 0
    share[:, -int(rng.integers(1, 50)) :] = 1
    share[60:100, 60:120] = rng.random()
    values = np.rint(np.clip(share, 0, 1) * (2**bits - 1)).astype(np.int64)
    return values - 2 ** (bits - 1) if signed else values


@st.composite
def curves(draw: st.DrawFn, low: float, high: float) -> tuple[int, int, np.ndarray]:
    """A table that begins and ends within or around [low, high], bent, rising or falling."""
    first = round(low + draw(st.floats(-0.2, 0.3)) * (high - low))
    count = min(65536, max(2, round(draw(st.floats(0.5, 1.4)) * (high - low))))
    bits = draw(st.integers(8, 16))
    rising = np.linspace(0, 1, count) ** draw(st.floats(0.5, 2))
    return first, bits, np.rint((rising if draw(st.booleans()) else 1 - rising) * (2**bits - 1)).astype(np.int64)


@st.composite
def described(draw: st.DrawFn, make: SimpleNamespace) -> Described:
    bits, signed = draw(st.integers(8, 16)), draw(st.booleans())
    d = Described(scene(make, bits, signed, draw(st.integers(0, 9))), bits, signed)
    d.photometric, d.shape = draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])), draw(st.sampled_from([None, "IDENTITY", "INVERSE"]))
    d.aspect = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)]))
    low, high = float(d.values.min()), float(d.values.max())
    if draw(st.booleans()):
        d.modality_lut = draw(curves(low, high))
        if not signed:
            d.modality_lut = (max(0, d.modality_lut[0]), *d.modality_lut[1:])
        if signed:
            d.modality_lut = (max(-32768, min(32767, d.modality_lut[0])), *d.modality_lut[1:])
    elif draw(st.booleans()):
        d.slope = rounded(draw(st.sampled_from([1.0, -1.0])) * 10.0 ** draw(st.floats(-6, 2)))
        d.intercept = rounded(draw(st.floats(-20, 20)) * abs(d.slope) * 2**bits)
    units = modality(d, d.values.astype(np.float64))
    least, most = float(units.min()), float(units.max())
    if draw(st.booleans()) and most - least > 16 and least >= -32768 and most <= 65535:
        first, table_bits, entries = draw(curves(least, most))
        d.voi_luts = [(max(-32768, min(65535, first)), table_bits, entries)]
    d.function = draw(st.sampled_from([None, "LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    for _ in range(draw(st.integers(1, 3))):
        center = least + draw(st.floats(0.2, 0.8)) * (most - least)
        width = max(10.0 ** draw(st.floats(-2.5, 0.5)) * (most - least), 1e-9 if d.function in ("LINEAR_EXACT", "SIGMOID") else 1.0)
        d.windows.append((rounded(center), rounded(width)))
    if draw(st.booleans()):
        value = draw(st.integers(int(low), int(high)))
        limit = draw(st.sampled_from([None, value, value + 5 if value + 5 <= high else value - 5]))
        d.values[:, : draw(st.integers(1, 150))] = value if limit is None else draw(st.integers(*sorted((value, limit))))
        d.padding = (value, limit)
    return d


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_header_gives_the_reference_s_image(make: SimpleNamespace, read: Read, data: st.DataObject) -> None:
    d = data.draw(described(make))
    assume(is_clear(d))
    vr = data.draw(st.sampled_from(["US", "SS"]))  # a table's first value is the same 16 bits in either
    assert difference(read(written(make, d, vr), size=SIZE), reference(d)) < TOLERANCE


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_reference_says_what_pydicom_says(make: SimpleNamespace, data: st.DataObject) -> None:
    """A second witness for windows, rescale, and tables of 16 bits; of others it takes those of 8 bits, one entry in a byte."""
    d = data.draw(described(make))
    d.values, d.padding, d.modality_lut = d.values[::8, ::8], None, None
    d.voi_luts = [lut for lut in d.voi_luts if lut[1] == 16 and d.slope is None]
    ds = pydicom.dcmread(io.BytesIO(make.to_bytes(written(make, d, "SS" if d.voi_luts and d.voi_luts[0][0] < 32768 else "US"))))
    units = apply_modality_lut(d.values.astype(np.int32), ds)
    assert np.allclose(units, modality(d, d.values.astype(np.float64)), rtol=1e-9, atol=1e-9)
    with np.errstate(over="ignore"):  # of its narrow sigmoids
        theirs = apply_voi_lut(units, ds).astype(np.float64)
    least, most = (-(2.0 ** (d.bits - 1)), 2.0 ** (d.bits - 1) - 1) if d.signed else (0.0, 2.0**d.bits - 1)
    if d.voi_luts:
        least, most = 0.0, 2.0 ** d.voi_luts[0][1] - 1
    elif d.slope is not None and d.intercept is not None:
        least, most = least * d.slope + d.intercept, most * d.slope + d.intercept
    assert np.abs((theirs - least) / (most - least) - offered(d, units.astype(np.float64))[0]).max() < 1e-6


# --- encodings ------------------------------------------------------------------------------------------------------------------

ENCODINGS = ["implicit", "big_endian", "deflated", "rle", "jpeg_lossless", "jpegls", "j2k", "htj2k", "j2k_lossy"]
WAVELETS = {"j2k", "htj2k", "j2k_lossy"}


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_header_gives_one_image_in_every_encoding(make: SimpleNamespace, read: Read, encoding: str, data: st.DataObject) -> None:
    """To the last grey level where nothing is reduced; wavelets at a fraction of their size come near what their whole values give."""
    d = data.draw(described(make))
    assume(is_clear(d))
    got = read(make.encoded(written(make, d), encoding), size=SIZE)
    if encoding == "j2k_lossy":
        d.values = what_remains(make, d)
    plain = read(written(make, d), size=SIZE)
    assert got.image is not None, got.reason
    assert plain.image is not None
    if encoding in WAVELETS:
        assert difference(got, plain.image.astype(np.float64)) < TOLERANCE
    else:
        assert np.array_equal(got.image, plain.image) and got.flags == plain.flags


def what_remains(make: SimpleNamespace, d: Described) -> np.ndarray:
    """The stored values that a lossy codestream still holds."""
    stored = d.values.astype(f"<{'i' if d.signed else 'u'}{1 if d.bits <= 8 else 2}")
    return np.asarray(imagecodecs.jpeg2k_decode(make.FRAMES["j2k_lossy"][1](stored, d.bits))).astype(np.int64)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("bits", [10, 16])
def test_the_range_of_the_data_is_one_in_every_encoding(make: SimpleNamespace, read: Read, encoding: str, bits: int) -> None:
    d = Described(scene(make, bits, signed=False, seed=3), bits, photometric="MONOCHROME1")
    plain, got = read(written(make, d), size=SIZE), read(make.encoded(written(make, d), encoding), size=SIZE)
    assert plain.flags == got.flags and "no_window" in got.flags and plain.image is not None
    assert difference(got, plain.image.astype(np.float64)) < 1.0


# --- what hospitals send --------------------------------------------------------------------------------------------------------


def like(one: ReadResult, other: ReadResult) -> float:
    """Mean difference over the middle of two images, of 255."""
    assert one.image is not None and other.image is not None
    height, width = one.image.shape
    middle = np.s_[height // 4 : -height // 4, width // 4 : -width // 4]
    return float(np.abs(one.image[middle].astype(float) - other.image[middle]).mean())


def test_a_window_for_sixteen_bits_over_twelve(make: SimpleNamespace, read: Read) -> None:
    """12 of 16 stored bits used, and the window that a converter writes for all 16: four bits of grey would be left."""
    bare = read(make.radiograph(make.chest(), 16, WindowCenter=None, WindowWidth=None))
    for center, width in (("32767.5", "65535"), ("32768", "65536")):
        got = read(make.radiograph(make.chest(), 16, WindowCenter=center, WindowWidth=width))
        assert got.flags == ("bad_window",) and like(got, bare) == 0


def test_windows_by_name_are_taken_in_their_order(make: SimpleNamespace, read: Read) -> None:
    names = {"WindowCenterWidthExplanation": ["NORMAL", "HARDER", "SOFTER"]}
    got = read(make.radiograph(WindowCenter=["2048", "2048", "2048"], WindowWidth=["3000", "1000", "4096"], **names))
    assert like(got, read(make.radiograph(WindowCenter="2048", WindowWidth="3000"))) == 0 and got.flags == ()
    got = read(make.radiograph(WindowCenter=["0", "2048", "2048"], WindowWidth=["1", "1000", "4096"], **names))
    assert like(got, read(make.radiograph(WindowCenter="2048", WindowWidth="1000"))) == 0 and got.flags == ("bad_window",)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("border", [0, 4095])
def test_collimation_takes_no_grey_from_the_patient(make: SimpleNamespace, read: Read, photometric: str, border: int) -> None:
    """Shutters are black before MONOCHROME1 turns them white, or were painted white: either way the patient keeps the grey scale."""
    values = (make.chest() // 3 + 1300).astype(np.uint16)
    free = read(make.radiograph(values, 12, WindowCenter=None, WindowWidth=None, PhotometricInterpretation=photometric))
    values[:30], values[-30:], values[:, :30], values[:, -30:] = border, border, border, border
    shut = read(make.radiograph(values, 12, WindowCenter=None, WindowWidth=None, PhotometricInterpretation=photometric))
    assert shut.image is not None
    assert like(free, shut) < 12
    assert shut.image[:5].mean() == (0 if (border == 0) == (photometric == "MONOCHROME2") else 255)


def test_junk_above_the_stored_bits_is_no_grey(make: SimpleNamespace, read: Read) -> None:
    plain = read(make.radiograph())
    junk = make.chest() | (np.random.default_rng(0).integers(0, 16, make.chest().shape).astype(np.uint16) << 12)
    assert like(read(make.radiograph(junk)), plain) == 0


@pytest.mark.parametrize("slope", [1e-9, 1e-5, 0.000244140625])
def test_a_tiny_slope_is_a_slope(make: SimpleNamespace, read: Read, slope: float) -> None:
    window = {"WindowCenter": decimal(2047.5 * slope), "WindowWidth": decimal(4095 * slope), "VOILUTFunction": "LINEAR_EXACT"}
    got = read(make.radiograph(RescaleSlope=decimal(slope), **window))
    assert like(got, read(make.radiograph(WindowCenter="2047.5", WindowWidth="4095", VOILUTFunction="LINEAR_EXACT"))) < 0.01
    assert got.flags == ()
