"""What a header must say before its pixels are read: identity, image pixel module (PS3.3 C.7.6.3), modality LUT (C.11.1)."""

from __future__ import annotations

import math
import re

from engine.dicom.header import Header
from engine.dicom.reasons import Refusal, uid_fault
from engine.dicom.vocabulary import is_placeholder


def identifier(text: str) -> str:
    """A UID, or other text that names one thing; '' for text that represents a removed UID: without a digit, or of one letter repeated.

    Hexadecimal digits (a hash, the 12 of SIIM) name something even where none of them is a digit.
    """
    if is_placeholder(text) or not (any(map(str.isdigit, text)) or re.fullmatch("[0-9A-Fa-f]{8,}", text)):
        return ""
    return text


def refuse_identity(header: Header) -> None:
    """Raises Refusal: `invalid_uid` for a path, markup, a formula or control characters. An absent UID is no fault: `identifier`."""
    uids = {
        "SOPInstanceUID": header.sop_instance_uid,
        "StudyInstanceUID": header.study_instance_uid,
        "SeriesInstanceUID": header.series_instance_uid,
    }
    for keyword, uid in uids.items():
        if uid and uid_fault(uid) == "reject":
            raise Refusal("invalid_uid", keyword)


_NUMBERS = {
    "Rows": "rows", "Columns": "columns", "SamplesPerPixel": "samples", "BitsAllocated": "bits_allocated", "BitsStored": "bits_stored",
    "PixelRepresentation": "signed",
}  # fmt: skip
"""Keyword -> field of the header: numbers without which no image can be made."""
NEEDED = (*_NUMBERS, "HighBit", "NumberOfFrames")
"""Keywords of attributes that must be numbers where they are written at all."""


def refuse_description(header: Header) -> None:
    """The image pixel module (PS3.3 C.7.6.3) and the modality LUT (C.11.1), checked before any of it is used.

    Raises:
        Refusal: `invalid_attribute`, `missing_attribute`, `invalid_dimensions`, `unsupported_photometric`, `color_image`,
            `unsupported_bits`, `invalid_bits`, `invalid_rescale`.
    """
    for keyword in NEEDED:
        if keyword in header.invalid:
            raise Refusal("invalid_attribute", keyword)
    for keyword, name in _NUMBERS.items():
        if getattr(header, name) is None:
            raise Refusal("missing_attribute", keyword)
    if not header.photometric:
        raise Refusal("missing_attribute", "PhotometricInterpretation")
    _refuse_shape(header)
    assert header.bits_stored is not None and header.bits_allocated is not None
    if header.bits_allocated not in (8, 16, 32):
        raise Refusal("unsupported_bits", "BitsAllocated")
    if not 2 <= header.bits_stored <= header.bits_allocated:
        raise Refusal("invalid_bits", "BitsStored")
    if header.high_bit is not None and header.high_bit != header.bits_stored - 1:
        raise Refusal("unsupported_bits", "HighBit")
    if header.signed not in (0, 1):
        raise Refusal("invalid_attribute", "PixelRepresentation")
    if header.modality_lut is None:
        _refuse_rescale(header)


def _refuse_shape(header: Header) -> None:
    """Rows, columns, channels and their photometric interpretation."""
    for keyword, side in (("Rows", header.rows), ("Columns", header.columns)):
        if side is None or side < 1:
            raise Refusal("invalid_dimensions", keyword)
    if header.photometric not in {"MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"}:
        raise Refusal("unsupported_photometric", "PhotometricInterpretation")
    if header.samples != (1 if header.photometric.startswith("MONOCHROME") else 3):
        raise Refusal("invalid_attribute", "SamplesPerPixel")
    if header.samples == 3 and header.bits_allocated != 8:
        raise Refusal("color_image", "BitsAllocated")


def refuse_arrangement(header: Header) -> None:
    """Native pixels of three channels: only PlanarConfiguration says whether they come pixel by pixel or plane by plane.

    Raises:
        Refusal: `missing_attribute`, `invalid_attribute`.
    """
    if header.samples == 3 and header.planar not in (0, 1):
        absent = header.planar is None and "PlanarConfiguration" not in header.invalid
        raise Refusal("missing_attribute" if absent else "invalid_attribute", "PlanarConfiguration")


_FARTHEST = 256
"""An intercept of more than this many times the range of the stored values is no offset of theirs, and leaves no digits for them."""


def _refuse_rescale(header: Header) -> None:
    slope, intercept = header.slope, header.intercept
    if "RescaleSlope" in header.invalid or not math.isfinite(slope) or not 1e-12 < abs(slope) < 1e12:
        raise Refusal("invalid_rescale", "RescaleSlope")
    too_far = not math.isfinite(intercept) or abs(intercept) > _FARTHEST * 2.0 ** (header.bits_stored or 0) * abs(slope)
    if "RescaleIntercept" in header.invalid or too_far:
        raise Refusal("invalid_rescale", "RescaleIntercept")
