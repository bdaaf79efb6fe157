"""One real radiograph in every form that a header and an encoding can give it: one score of the shipped model.

Tolerance: the image within 0.6 of 255 on average, and every score within 0.005 (a score lies in [0, 1]; the studies of README's example
differ by tenths).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from engine.intake.read_result import ReadResult
from engine.model.bundle import load_bundle
from engine.scoring.scorers import encode
from engine.scoring.targets import scoring_targets

Read = Callable[..., ReadResult]
SIZE = 224
TOLERANCE = 0.005
ENCODINGS = ["explicit", "implicit", "big_endian", "deflated", "rle", "jpeg_lossless", "jpegls", "j2k", "htj2k", "j2k_lossy"]


@pytest.fixture(scope="module")
def share() -> np.ndarray:
    """A chest PA of the NEMA WG-04 set, made small by block means, bone bright, in [0, 1]."""
    data_store = pytest.importorskip("data_store", reason="pydicom-data is not installed")
    stored = pydicom.dcmread(Path(data_store.__file__).parent / "data" / "RG1_UNCR.dcm").pixel_array.astype(np.float64)
    rows, columns = (side // 3 for side in stored.shape)
    return 1 - stored[: rows * 3, : columns * 3].reshape(rows, 3, columns, 3).mean((1, 3)) / 32767


@pytest.fixture(scope="module")
def scores_of() -> Callable[[list[np.ndarray]], np.ndarray]:
    bundle = load_bundle("tiny")
    scorer = scoring_targets("chest14", "tiny").scorer(bundle)
    return lambda images: np.asarray(scorer.scores(encode(bundle, images, 8)))


def table(entries: np.ndarray, first: int, bits: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", np.rint(entries).astype("<u2").tobytes())
    item.ModalityLUTType = "US"
    return Sequence([item])


@st.composite
def forms(draw: st.DrawFn, make: SimpleNamespace, share: np.ndarray) -> Dataset:
    """The image stored with this many bits, in this sign and polarity, and a header that brings it back."""
    bits, signed = draw(st.sampled_from([8, 10, 12, 14, 15, 16])), draw(st.booleans())
    dark_bone = draw(st.booleans())
    most = 2**bits - 1
    grey = np.rint(share * most)
    stored = (most - grey if dark_bone else grey).astype(np.int64) - (1 << (bits - 1) if signed else 0)
    raw = (stored & most).astype("u1" if bits == 8 else "<u2")
    junk = draw(st.booleans()) and bits not in (8, 16)
    ds = make.radiograph(raw | (1 << 15) if junk else raw, bits, RescaleSlope=None, RescaleIntercept=None)
    ds.PixelRepresentation = int(signed)
    low = -(1 << (bits - 1)) if signed else 0  # the lowest stored value

    falls = dark_bone  # whether the grey scale is still to be turned over
    way = draw(st.sampled_from(["as stored", "slope", "table"]))
    units_low, units_high = float(low), float(low + most)
    if way == "slope":
        turned = draw(st.booleans())
        slope = draw(st.sampled_from([1.0, 0.25, 1e-4, 37.5])) * (-1 if turned else 1)
        intercept = draw(st.sampled_from([0.0, -1024.0, 500.25])) * abs(slope)
        ds.RescaleSlope, ds.RescaleIntercept = f"{slope:.9g}", f"{intercept:.9g}"
        ends = (units_low * slope + intercept, units_high * slope + intercept)
        units_low, units_high, falls = min(ends), max(ends), falls != turned
    elif way == "table":
        turned = draw(st.booleans())
        entries = np.linspace(0, 65535, most + 1)
        ds.ModalityLUTSequence = table(entries[::-1] if turned else entries, low, 16)
        units_low, units_high, falls = 0.0, 65535.0, falls != turned

    center, width = (units_low + units_high) / 2, units_high - units_low
    voi = draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "table"]))
    if voi == "table" and way != "slope":
        turned = draw(st.booleans())
        entries = np.linspace(0, 4095, round(units_high - units_low) + 1)
        ds.VOILUTSequence = table(entries[::-1] if turned else entries, round(units_low), 12)
        falls = falls != turned
        ds.WindowCenter, ds.WindowWidth = "3", "2"  # the table goes before it
    elif voi == "LINEAR" and width > 100:
        ds.WindowCenter, ds.WindowWidth = [f"{center + 0.5:.9g}", "1"], [f"{width + 1:.9g}", "2"]
    else:
        ds.VOILUTFunction, ds.WindowCenter, ds.WindowWidth = "LINEAR_EXACT", f"{center:.9g}", f"{width:.9g}"

    ds.PhotometricInterpretation = draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])) if falls else "MONOCHROME2"
    if not falls or ds.PhotometricInterpretation == "MONOCHROME1":
        ds.PresentationLUTShape = draw(st.sampled_from(["IDENTITY", "INVERSE"])) if falls else "IDENTITY"
    else:
        ds.PresentationLUTShape = "INVERSE"
    return ds if junk else make.encoded(ds, draw(st.sampled_from(ENCODINGS)))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_one_radiograph_has_one_score(make, read: Read, share, scores_of, data: st.DataObject) -> None:
    plain = read(make.radiograph(np.rint(share * 4095).astype(np.uint16), 12), size=SIZE)
    got = read(data.draw(forms(make, share)), size=SIZE)
    assert got.image is not None, got.reason
    assert plain.image is not None
    assert got.flags in ((), ("unused_bits",))
    assert np.abs(got.image.astype(float) - plain.image).mean() < 0.6
    scores = scores_of([plain.image, got.image])
    assert np.abs(scores[1] - scores[0]).max() < TOLERANCE


def test_the_tolerance_tells_images_apart(make, read: Read, share, scores_of) -> None:
    """A score that no image moves would pass the test above."""
    upright = read(make.radiograph(np.rint(share * 4095).astype(np.uint16), 12), size=SIZE)
    narrow = read(make.radiograph(np.rint(share * 4095).astype(np.uint16), 12, WindowWidth="1500"), size=SIZE)
    scores = scores_of([upright.image, narrow.image, 255 - upright.image])
    assert np.abs(scores[1:] - scores[0]).max(1).min() > 5 * TOLERANCE


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("planar", [0, 1])
def test_grey_in_colour_has_the_score_of_grey(make, read: Read, share, scores_of, photometric: str, planar: int) -> None:
    grey = np.rint(share * 255).astype(np.uint8)
    grey = grey[:, : grey.shape[1] // 2 * 2]
    ds = make.radiograph(grey, 8, SamplesPerPixel=3, PhotometricInterpretation=photometric, PlanarConfiguration=planar)
    other = grey if photometric == "RGB" else np.full_like(grey, 128)
    channels = np.stack([grey, other, other], 0 if planar else -1)
    ds.PixelData = channels.tobytes()
    plain = read(make.radiograph(grey, 8, WindowCenter=None, WindowWidth=None), size=SIZE)
    got = read(ds, size=SIZE)
    assert np.array_equal(got.image, plain.image) and got.flags == ("color_as_grey",)
    scores = scores_of([got.image, plain.image])
    assert np.abs(scores[1] - scores[0]).max() < 1e-6
