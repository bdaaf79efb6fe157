"""Small radiographs made on the spot: a chest-like phantom of 12 bits, written as DICOM in any encoding."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from engine.intake.read_result import ReadResult
from engine.intake.reader import read_file

SIZE = 64


def chest(rows: int = 300, columns: int = 256) -> np.ndarray:
    """uint16 (rows, columns) of 12 bits, bone bright: a body, two dark lungs of unequal size, heart, spine and belly, a little noise."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64)
    y, x = y / rows, x / columns

    def blob(cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
        return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)

    grey = 0.75 * blob(0.5, 0.55, 0.6, 0.7) - 0.45 * blob(0.3, 0.45, 0.13, 0.26) - 0.42 * blob(0.71, 0.44, 0.11, 0.25)
    grey += 0.25 * blob(0.57, 0.62, 0.13, 0.13) + 0.12 * blob(0.5, 0.5, 0.05, 1.5) + 0.1 * y + 0.15 * (y > 0.8)
    grey += np.random.default_rng(0).normal(0, 0.004, grey.shape)
    return np.rint(np.clip(grey, 0, 1) * 3500 + 300).astype(np.uint16)


def radiograph(values: np.ndarray | None = None, bits: int = 12, **changes: Any) -> Dataset:
    """A DX data set for presentation; a change of None removes the attribute."""
    values = chest() if values is None else values
    ds, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "DX", "CHEST", "PA"
    ds.ImageType, ds.PresentationIntentType, ds.BurnedInAnnotation = ["ORIGINAL", "PRIMARY"], "FOR PRESENTATION", "NO"
    ds.PatientName, ds.PatientID, ds.PatientOrientation = "CANARYNAME^X", "CANARYID", ["L", "F"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PresentationLUTShape = 1, "MONOCHROME2", "IDENTITY"
    ds.RescaleSlope, ds.RescaleIntercept = "1", "0"
    ds.WindowCenter, ds.WindowWidth = str(1 << (bits - 1)), str(1 << bits)
    put_pixels(ds, values, bits)
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def put_pixels(ds: Dataset, values: np.ndarray, bits: int) -> None:
    ds.Rows, ds.Columns = values.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * values.dtype.itemsize, bits, bits - 1
    ds.PixelRepresentation = int(values.dtype.kind == "i")
    raw = values.tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    ds["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"


def encapsulated(ds: Dataset, uid: str, frame: bytes, **keywords: Any) -> Dataset:
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid)
    ds.PixelData = encapsulate([frame], **keywords)
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return ds


def to_bytes(ds: Dataset) -> bytes:
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", DigitalXRayImageStorageForPresentation)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2.3")
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    return stream.getvalue()


def _natively(uid: str) -> Callable[[np.ndarray, int], bytes]:
    def encode(values: np.ndarray, bits: int) -> bytes:
        ds = radiograph(values, bits)
        ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid)
        if uid == ExplicitVRBigEndian:
            ds.PixelData = values.astype(values.dtype.newbyteorder(">")).tobytes()
            ds["PixelData"].VR = "OW" if values.dtype.itemsize > 1 else "OB"
        return to_bytes(ds)

    return encode


def _as_rle(values: np.ndarray, bits: int) -> bytes:
    ds = radiograph(values, bits)
    ds.compress(RLELossless, generate_instance_uid=False)
    return to_bytes(ds)


def _as(uid: str, encoder: Callable[[np.ndarray, int], bytes]) -> Callable[[np.ndarray, int], bytes]:
    return lambda values, bits: to_bytes(encapsulated(radiograph(values, bits), uid, encoder(values, bits)))


JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
LOSSLESS: dict[str, Callable[[np.ndarray, int], bytes]] = {
    "implicit": _natively(ImplicitVRLittleEndian),
    "explicit": _natively(ExplicitVRLittleEndian),
    "big_endian": _natively(ExplicitVRBigEndian),
    "deflated": _natively(DeflatedExplicitVRLittleEndian),
    "rle": _as_rle,
    "jpeg_lossless": _as("1.2.840.10008.1.2.4.70", lambda v, b: imagecodecs.jpeg8_encode(v, lossless=True, bitspersample=b)),
    "jpegls": _as("1.2.840.10008.1.2.4.80", lambda v, b: imagecodecs.jpegls_encode(v)),
    "j2k": _as(
        "1.2.840.10008.1.2.4.90", lambda v, b: imagecodecs.jpeg2k_encode(v, level=0, reversible=True, codecformat="j2k", bitspersample=b)
    ),
    "htj2k": _as("1.2.840.10008.1.2.4.201", lambda v, b: imagecodecs.htj2k_encode(v, reversible=True)),
}
LOSSY: dict[str, Callable[[np.ndarray, int], bytes]] = {
    "jpeg12": _as("1.2.840.10008.1.2.4.51", lambda v, b: imagecodecs.jpeg8_encode(v, level=97, bitspersample=12)),
    "jpegls_near": _as("1.2.840.10008.1.2.4.81", lambda v, b: imagecodecs.jpegls_encode(v, level=2)),
    "j2k_lossy": _as(
        "1.2.840.10008.1.2.4.91", lambda v, b: imagecodecs.jpeg2k_encode(v, level=60, reversible=False, codecformat="j2k", bitspersample=b)
    ),
}


_NATIVE = {"implicit": ImplicitVRLittleEndian, "big_endian": ExplicitVRBigEndian, "deflated": DeflatedExplicitVRLittleEndian}
FRAMES: dict[str, tuple[str, Callable[[np.ndarray, int], bytes]]] = {
    "jpeg_lossless": ("1.2.840.10008.1.2.4.70", lambda v, b: imagecodecs.jpeg8_encode(v, lossless=True, bitspersample=b)),
    "jpegls": ("1.2.840.10008.1.2.4.80", lambda v, b: imagecodecs.jpegls_encode(v)),
    "j2k": (
        "1.2.840.10008.1.2.4.90",
        lambda v, b: imagecodecs.jpeg2k_encode(v, level=0, reversible=True, codecformat="j2k", bitspersample=b),
    ),
    "htj2k": ("1.2.840.10008.1.2.4.201", lambda v, b: imagecodecs.htj2k_encode(v, reversible=True)),
    "j2k_lossy": (
        "1.2.840.10008.1.2.4.91",
        lambda v, b: imagecodecs.jpeg2k_encode(v, level=70, reversible=False, codecformat="j2k", bitspersample=b),
    ),
}


def encoded(ds: Dataset, encoding: str) -> Dataset:
    """A native grey data set of 8 or 16 allocated bits in another encoding, whatever else its header says."""
    wide, signed = ds.BitsAllocated // 8, bool(ds.PixelRepresentation)
    raw = np.frombuffer(ds.PixelData, f"<u{wide}")[: ds.Rows * ds.Columns].reshape(ds.Rows, ds.Columns)
    if encoding in _NATIVE:
        ds.file_meta.TransferSyntaxUID = _NATIVE[encoding]
        if encoding == "big_endian":
            ds.PixelData = raw.astype(f">u{wide}").tobytes() + ds.PixelData[raw.nbytes :]
            ds["PixelData"].VR = "OB" if wide == 1 else "OW"
            for item in [*ds.get("ModalityLUTSequence", []), *ds.get("VOILUTSequence", [])]:
                item.LUTData = np.frombuffer(item.LUTData, "<u2").astype(">u2").tobytes()  # words, which pydicom writes as they are
    elif encoding == "rle":
        ds.compress(RLELossless, generate_instance_uid=False)
    elif encoding != "explicit":
        uid, encode = FRAMES[encoding]
        spare = 8 * wide - ds.BitsStored
        in_its_sign = (raw.view(f"<i{wide}") << spare) >> spare if signed and encoding in ("j2k", "j2k_lossy") else raw
        encapsulated(ds, uid, encode(np.ascontiguousarray(in_its_sign), ds.BitsStored))
    return ds


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., ReadResult]:
    """Write a data set or bytes to a file and read it in this process."""

    def write_and_read(content: Dataset | bytes, name: str = "picture.dcm", **options: Any) -> ReadResult:
        path = tmp_path / name
        path.write_bytes(to_bytes(content) if isinstance(content, Dataset) else content)
        return read_file(path, **{"size": SIZE, **options})

    return write_and_read


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The functions above, for tests (which cannot import a conftest)."""
    names = (chest, radiograph, put_pixels, encapsulated, encoded, to_bytes)
    return SimpleNamespace(**{name.__name__: name for name in names}, LOSSLESS=LOSSLESS, LOSSY=LOSSY, FRAMES=FRAMES, SIZE=SIZE)
