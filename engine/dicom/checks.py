"""What a header must say before its pixels are read: identity, image pixel module (PS3.3 C.7.6.3), modality LUT (C.11.1)."""

from __future__ import annotations

import math

from engine.dicom.header import Header
from engine.dicom.reasons import Refusal, uid_fault


def refuse_identity(header: Header) -> None:
    """Raises Refusal: `missing_attribute` without SOP instance or study UID, `invalid_uid` for what is no UID at all."""
    uids = {
        "SOPInstanceUID": header.sop_instance_uid,
        "StudyInstanceUID": header.study_instance_uid,
        "SeriesInstanceUID": header.series_instance_uid,
    }
    for keyword in ("SOPInstanceUID", "StudyInstanceUID"):
        if not uids[keyword]:
            raise Refusal("missing_attribute", keyword)
    for keyword, uid in uids.items():
        if uid and uid_fault(uid) == "reject":
            raise Refusal("invalid_uid", keyword)


NEEDED = frozenset(
    ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames")
)
"""Keywords of attributes without which no picture can be made, where they are written at all."""


def refuse_description(header: Header) -> None:
    """The image pixel module (PS3.3 C.7.6.3) and the modality LUT (C.11.1), checked before any of it is used.

    Raises:
        Refusal: `invalid_attribute`, `missing_attribute`, `invalid_dimensions`, `unsupported_photometric`, `color_image`,
            `unsupported_bits`, `invalid_bits`, `invalid_rescale`.
    """
    if header.invalid & NEEDED:
        raise Refusal("invalid_attribute")
    numbers = (header.rows, header.columns, header.samples, header.bits_allocated, header.bits_stored, header.signed)
    if None in numbers or not header.photometric:
        raise Refusal("missing_attribute")
    if not header.rows or not header.columns or header.rows < 0 or header.columns < 0:
        raise Refusal("invalid_dimensions")
    if header.photometric not in {"MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"}:
        raise Refusal("unsupported_photometric")
    if header.samples != (1 if header.photometric.startswith("MONOCHROME") else 3):
        raise Refusal("invalid_attribute")
    if header.samples == 3 and header.bits_allocated != 8:
        raise Refusal("color_image")
    if header.bits_allocated not in (8, 16, 32):
        raise Refusal("unsupported_bits")
    assert header.bits_stored is not None
    if not 2 <= header.bits_stored <= header.bits_allocated:
        raise Refusal("invalid_bits")
    if header.high_bit is not None and header.high_bit != header.bits_stored - 1:
        raise Refusal("unsupported_bits")
    if header.signed not in (0, 1):
        raise Refusal("invalid_attribute")
    if header.modality_lut is None:
        _refuse_rescale(header)


def refuse_arrangement(header: Header) -> None:
    """Native pixels of three channels: nothing but PlanarConfiguration tells whether they come pixel by pixel or plane by plane.

    Raises:
        Refusal: `missing_attribute`, `invalid_attribute`.
    """
    if header.samples == 3 and header.planar not in (0, 1):
        raise Refusal("missing_attribute" if header.planar is None and "PlanarConfiguration" not in header.invalid else "invalid_attribute")


_FARTHEST = 256
"""An intercept of more than this many times the range of the stored values is no offset of theirs, and leaves no digits for them."""


def _refuse_rescale(header: Header) -> None:
    slope, intercept = header.slope, header.intercept
    if {"RescaleSlope", "RescaleIntercept"} & header.invalid or not math.isfinite(slope) or not math.isfinite(intercept):
        raise Refusal("invalid_rescale")
    if not 1e-12 < abs(slope) < 1e12 or abs(intercept) > _FARTHEST * 2.0 ** (header.bits_stored or 0) * abs(slope):
        raise Refusal("invalid_rescale")
