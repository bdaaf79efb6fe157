"""The typed header of one data set: every value checked for its kind before anyone uses it; no message ever quotes one.

Plain values are read here (plain.py). Where one is anything else, the elements named here are handed to pydicom, cut out of the data set
by `scan_elements`, so its parser sees about forty elements whatever the file holds. Its warnings quote values of the file (patient names
among them) and are silenced.
"""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import pydicom
from pydicom.charset import python_encoding as _ENCODINGS  # defined terms of (0008,0005)
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from engine.dicom.elements import DataSetLayout, Element
from engine.dicom.lookup_table import LookupTable, read_lut
from engine.dicom.reasons import Refusal

# Values of a data set that need no parser: whole numbers of two bytes, and printable ASCII (PS3.5 6.2).

_PADDING = b"\0 "
_NUMBERS = {"DS": (float, re.compile(r" *[+-]?\d{1,14}(\.\d{0,14})? *")), "IS": (int, re.compile(r" *[+-]?\d{1,9} *"))}
_SAME_IN_ALL = frozenset({b"", b"ISO_IR 6", b"ISO_IR 100", b"ISO_IR 192", b"ISO 2022 IR 6", b"ISO 2022 IR 100"})
"""Defined terms of (0008,0005) in which a printable byte of ASCII is what it is in ASCII."""


def reads_ascii(character_set: bytes) -> bool:
    """Whether ASCII means itself in LO and SH values of a data set with this value of (0008,0005)."""
    return character_set.strip(_PADDING) in _SAME_IN_ALL


def plain_values(vr: str, value: bytes, *, little: bool, ascii_text: bool) -> list[Any] | None:
    """What pydicom would make of a value, [] of an empty one; None where that takes pydicom.

    vr: of PS3.5 6.2. ascii_text: `reads_ascii` of the data set.
    """
    if vr in ("US", "SS"):
        return [int.from_bytes(value, "little" if little else "big", signed=vr == "SS")] if len(value) == 2 else None
    if vr not in ("AS", "CS", "UI", "DS", "IS") and not (ascii_text and vr in ("LO", "SH")):
        return None
    text = value.rstrip(_PADDING).decode("latin-1")
    if not text.isascii() or not text.isprintable():
        return None
    parts = text.split("\\") if text else []
    if vr not in _NUMBERS:
        return parts
    number, form = _NUMBERS[vr]
    return [number(part) for part in parts] if all(map(form.fullmatch, parts)) else None


_COMMA_NUMBER = re.compile(r"\s*[+-]?(\d+(,\d*)?|,\d+|\d*\.\d*)([eE][+-]?\d+)?\s*")
_TEXT_VRS = frozenset({"DS", "IS", "CS", "LO", "LT", "SH", "ST", "UC", "UT", "UN"})


def comma_decimals(value: bytes) -> list[float] | None:
    """The numbers of a decimal string that was written with decimal commas (`2500,5`, `0,14\\0,14`); None for anything else.

    PS3.5 6.2 has points alone. A part with a comma and a point, or with two commas, may mean thousands and is no number here.
    """
    text = value.rstrip(_PADDING).decode("latin-1")
    parts = text.split("\\")
    if "," not in text or not text.isascii() or not all(map(_COMMA_NUMBER.fullmatch, parts)):
        return None
    try:
        return [float(part.replace(",", ".")) for part in parts]
    except ValueError:  # a point alone
        return None


logging.getLogger("pydicom").addHandler(logging.NullHandler())
logging.getLogger("pydicom").propagate = False

_KEYWORDS = (
    *("SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "PresentationIntentType", "PatientID"),
    *("PatientAge",),
    *("IssuerOfPatientID", "BodyPartExamined", "ViewPosition", "StudyInstanceUID", "SeriesInstanceUID", "PatientOrientation"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "PixelAspectRatio"),
    *("ImagerPixelSpacing", "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "BurnedInAnnotation", "SyntheticData", "WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleIntercept"),
    *("RescaleSlope", "ModalityLUTSequence", "VOILUTSequence", "ViewCodeSequence", "PresentationLUTShape", "AnatomicRegionSequence"),
    *("PatientSpeciesDescription", "PatientSpeciesCodeSequence", "AcquisitionDeviceProcessingDescription"),
    *("SeriesDescription", "ProtocolName", "DerivationDescription", "QualityControlImage"),
)
_TAGS = {keyword: int(tag) for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None}
_VRS = {keyword: str(dictionary_VR(tag)) for keyword, tag in _TAGS.items()}
"""Of PS3.6; it may name several, as "US or SS"."""
_IN_ORDER = sorted(_TAGS.values())
_CHARACTER_SET = _TAGS["SpecificCharacterSet"]
_PATIENT_NAME = 0x00100010
_TABLES = frozenset({_TAGS["ModalityLUTSequence"], _TAGS["VOILUTSequence"]})
_LARGEST_VALUE = 1 << 18
_LARGEST_TABLES = 1 << 20
"""Bytes of one attribute; a lookup table has at most 65,536 entries of 2 bytes, and a sequence may hold several."""


_MOST_CODES = 64
"""Items of a code sequence that are looked at; an image has one view and shows few regions."""


class Code(NamedTuple):
    """One item of a code sequence (PS3.3 8.8): value, scheme and meaning; '' where absent."""

    value: str
    scheme: str = ""
    meaning: str = ""


@dataclass(frozen=True, eq=False)
class Header:
    """What one data set says about itself.

    Text is '' where absent. Numbers are None where absent; slope and intercept are 1 and 0 then. `invalid` holds the keywords whose value
    is of the wrong kind (a text where a number should be, two values where one should be); such an attribute reads as absent. `flags` are
    codes of reasons.FLAGS.
    """

    sop_class: str = ""
    class_in_data_set: bool = True
    modality: str = ""
    sop_instance_uid: str = ""
    series_instance_uid: str = ""
    study_instance_uid: str = ""
    patient: str = ""
    age: str = ""
    body_part: str = ""
    view: str = ""
    views: tuple[Code, ...] = ()
    regions: tuple[Code, ...] = ()
    series: str = ""
    species: tuple[Code, ...] = ()
    device_processing: str = ""
    derivation: str = ""
    quality_control: str = ""
    phantom: bool = False
    presentation_intent: str = ""
    image_type: tuple[str, ...] = ()
    patient_orientation: tuple[str, ...] = ()
    burned_in: str = ""
    synthetic: str = ""
    photometric: str = ""
    rows: int | None = None
    columns: int | None = None
    frames: int | None = None
    samples: int | None = None
    planar: int | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    high_bit: int | None = None
    signed: int | None = None
    padding: int | None = None
    padding_limit: int | None = None
    slope: float = 1.0
    intercept: float = 0.0
    windows: tuple[tuple[float, float], ...] = ()
    voi_function: str = "LINEAR"
    modality_lut: LookupTable | None = None
    voi_lut: LookupTable | None = None
    lut_shape: str = ""
    aspect: float = 1.0
    invalid: frozenset[str] = frozenset()
    flags: tuple[str, ...] = ()


def read_header(data: memoryview, layout: DataSetLayout) -> Header:
    """The header of the data set that `scan_elements` found; elements past a damage are not there.

    Raises:
        Refusal: `corrupt_header` when pydicom cannot parse what the walk accepted, `nesting_too_deep` when it recurses too far.
    """
    validation = pydicom.config.settings.reading_validation_mode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        try:
            return _HeaderReader(data, layout).header()
        except RecursionError:
            raise Refusal("nesting_too_deep") from None
        except (MemoryError, Refusal):
            raise
        except Exception:  # pydicom raises almost anything on hostile bytes; the reason is one and the same
            raise Refusal("corrupt_header") from None
        finally:
            pydicom.config.settings.reading_validation_mode = validation


class _HeaderReader:
    """Takes typed values out of a data set and remembers which were of the wrong kind."""

    def __init__(self, data: memoryview, layout: DataSetLayout) -> None:
        self.data, self.layout, self.little = data, layout, layout.little
        self.invalid: set[str] = set()
        self.flags: list[str] = []
        character_set = self.element(_CHARACTER_SET)
        self.ascii_text = character_set is None or reads_ascii(bytes(data[character_set.value : character_set.stop]))

    def element(self, tag: int) -> Element | None:
        """Where an element is; None where it is absent, or larger than any sound value."""
        element = self.layout.elements.get(tag)
        most = _LARGEST_TABLES if tag in _TABLES else _LARGEST_VALUE
        return None if element is None or element.stop - element.start > most else element

    def readable(self, tag: int, element: Element) -> bool:
        """Whether pydicom can follow the data set past this element: at a VR of other than letters it takes all of it for implicit, and
        over a character set that is no text it stumbles, which should block no image."""
        if tag != _CHARACTER_SET:
            return re.fullmatch("([A-Z]{2})?", element.vr) is not None
        value = bytes(self.data[element.value : element.stop]).rstrip(b"\0 ").decode("latin-1")
        return element.vr in ("", "CS", "LO", "SH", "UN") and value.isascii() and value.isprintable()

    @cached_property
    def parsed(self) -> tuple[Dataset, dict[int, BaseTag]]:
        """The elements of all keywords as pydicom reads them, and their tags: half of its time went into turning keywords into tags."""
        cut = [element for tag in _IN_ORDER if (element := self.element(tag)) is not None and self.readable(tag, element)]
        raw = b"".join(bytes(self.data[element.start : element.stop]) for element in cut)
        dataset = read_dataset(io.BytesIO(raw), self.layout.implicit, self.little)
        return dataset, {int(tag): tag for tag in dataset.keys()}  # noqa: SIM118  # iterating over a data set converts its values

    def header(self) -> Header:
        signed = self.number("PixelRepresentation")
        slope, intercept = self.decimal("RescaleSlope"), self.decimal("RescaleIntercept")
        return Header(
            sop_class=self.text("SOPClassUID"),
            modality=self.text("Modality").upper(),
            sop_instance_uid=self.text("SOPInstanceUID"),
            series_instance_uid=self.text("SeriesInstanceUID"),
            study_instance_uid=self.text("StudyInstanceUID"),
            patient="\\".join(filter(None, (self.text("PatientID"), self.text("IssuerOfPatientID")))),
            age=self.text("PatientAge").upper(),
            body_part=self.local_text("BodyPartExamined").upper(),
            view=self.local_text("ViewPosition").upper(),
            views=self.codes("ViewCodeSequence"),
            regions=self.codes("AnatomicRegionSequence"),
            series=" / ".join(filter(None, map(self.local_text, ("SeriesDescription", "ProtocolName")))),
            species=self.species(),
            device_processing=self.local_text("AcquisitionDeviceProcessingDescription"),
            derivation=self.local_text("DerivationDescription"),
            quality_control=self.text("QualityControlImage").upper(),
            phantom=self.names_phantom(),
            presentation_intent=self.text("PresentationIntentType").upper(),
            image_type=self.texts("ImageType"),
            patient_orientation=self.texts("PatientOrientation"),
            burned_in=self.text("BurnedInAnnotation").upper(),
            synthetic=self.text("SyntheticData").upper(),
            photometric=self.text("PhotometricInterpretation").upper(),
            rows=self.number("Rows"),
            columns=self.number("Columns"),
            frames=self.number("NumberOfFrames"),
            samples=self.number("SamplesPerPixel"),
            planar=self.number("PlanarConfiguration"),
            bits_allocated=self.number("BitsAllocated"),
            bits_stored=self.number("BitsStored"),
            high_bit=self.number("HighBit"),
            signed=signed,
            padding=self.number("PixelPaddingValue"),
            padding_limit=self.number("PixelPaddingRangeLimit"),
            slope=1.0 if slope is None else slope,
            intercept=intercept or 0.0,
            windows=self.windows(),
            voi_function=self.text("VOILUTFunction").upper() or "LINEAR",
            modality_lut=self.table("ModalityLUTSequence", bool(signed)),
            voi_lut=self.table("VOILUTSequence", bool(signed)),
            lut_shape=self.text("PresentationLUTShape").upper(),
            aspect=self.aspect(),
            invalid=frozenset(self.invalid),
            flags=tuple(dict.fromkeys(self.flags)),
        )

    def values(self, keyword: str) -> list[Any] | None:
        """The values of an attribute, [] where it is empty, None where it is absent or cannot be converted (noted as invalid)."""
        element = self.element(_TAGS[keyword])
        if element is None:
            return None
        raw, vr = bytes(self.data[element.value : element.stop]), element.vr or _VRS[keyword]
        if vr in _VRS[keyword]:  # not 007 as a number where a text is wanted
            plain = plain_values(vr, raw, little=self.little, ascii_text=self.ascii_text)
            if plain is not None:
                return plain
        if vr in _TEXT_VRS and _VRS[keyword] in ("DS", "IS") and (numbers := comma_decimals(raw)) is not None:
            self.flags.append("decimal_comma")
            return numbers
        dataset, tags = self.parsed
        try:
            value = dataset[tags[_TAGS[keyword]]].value
        except (RecursionError, MemoryError):
            raise
        except Exception:
            self.invalid.add(keyword)
            return None
        if value is None or value == "" or value == b"":
            return []
        return list(value) if isinstance(value, (list, tuple, pydicom.multival.MultiValue, pydicom.sequence.Sequence)) else [value]

    def texts(self, keyword: str) -> tuple[str, ...]:
        return tuple(_plain(value) for value in self.values(keyword) or [])

    def text(self, keyword: str) -> str:
        return "\\".join(self.texts(keyword))

    def local_text(self, keyword: str) -> str:
        """A code string that may hold more than the letters of one (PS3.5 6.2): devices write UTF-8, or the data set's character set."""
        text = self.text(keyword)
        if text.isascii():
            return text
        declared = [_ENCODINGS[name] for name in self.texts("SpecificCharacterSet") if name in _ENCODINGS]
        for encoding in ("utf-8", *reversed(declared)):
            try:
                return text.encode("latin-1").decode(encoding)  # latin-1 is how pydicom decodes code strings
            except UnicodeError:  # not that encoding; or another value representation, decoded already
                continue
        return text

    def names_phantom(self) -> bool:
        """Whether the patient's name or ID says that a phantom was taken; the name itself is not kept."""
        found = (self.element(tag) for tag in (_PATIENT_NAME, _TAGS["PatientID"]))
        return any(element and b"PHANTOM" in bytes(self.data[element.value : element.stop]).upper() for element in found)

    def number(self, keyword: str) -> int | None:
        values = self.values(keyword)
        if not values:
            return None
        value = values[0]
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())  # NaN and infinity are not
        if len(values) != 1 or not whole or isinstance(value, BaseTag) or abs(value) > 0xFFFFFFFF:
            self.invalid.add(keyword)
            return None
        return int(value)

    def decimals(self, keyword: str) -> list[float] | None:
        values = self.values(keyword)
        if values is None:
            return None
        try:
            if not any(isinstance(value, (BaseTag, bytes)) for value in values):
                return [float(value) for value in values]
        except (TypeError, ValueError):
            pass
        self.invalid.add(keyword)
        return None

    def decimal(self, keyword: str) -> float | None:
        values = self.decimals(keyword)
        if values and len(values) > 1:
            self.invalid.add(keyword)
            return None
        return values[0] if values else None

    def codes(self, keyword: str) -> tuple[Code, ...]:
        items = [item for item in self.values(keyword) or [] if isinstance(item, Dataset)]
        fields = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
        return tuple(Code(*(_plain(item.get(field, "")) for field in fields)) for item in items[:_MOST_CODES])

    def species(self) -> tuple[Code, ...]:
        """PatientSpeciesCodeSequence and PatientSpeciesDescription (PS3.3 C.7.1.1), of which animals must have one."""
        said = self.text("PatientSpeciesDescription")
        return (*self.codes("PatientSpeciesCodeSequence"), *((Code("", "", said),) if said else ()))

    def windows(self) -> tuple[tuple[float, float], ...]:
        """Center and width of every window that can be one (PS3.3 C.11.2.1.2), in order; the flag bad_window where the first cannot."""
        centers, widths = self.decimals("WindowCenter"), self.decimals("WindowWidth")
        if not centers and not widths and not self.invalid & {"WindowCenter", "WindowWidth"}:
            return ()
        exact = self.text("VOILUTFunction").upper() in {"LINEAR_EXACT", "SIGMOID"}
        pairs = list(zip(centers or [], widths or [], strict=False))
        sound = [
            math.isfinite(center) and abs(center) < 1e9 and math.isfinite(width) and width < 1e9 and (width > 0 if exact else width >= 1)
            for center, width in pairs
        ]
        if not sound or not sound[0]:
            self.flags.append("bad_window")
        return tuple(pair for pair, is_sound in zip(pairs, sound, strict=True) if is_sound)

    def table(self, keyword: str, signed: bool) -> LookupTable | None:
        """The first sound item of a LUT sequence; the flag bad_lut where an item before it, or every one, contradicts its descriptor."""
        for item in self.values(keyword) or []:
            try:
                return read_lut(item, signed=signed, little=self.little)
            except (RecursionError, MemoryError):
                raise
            except Exception:
                self.flags.append("bad_lut")
        return None

    def aspect(self) -> float:
        """Height of a pixel over its width (PS3.3 C.7.6.3.1.7), 1.0 for square ones; a ratio beyond 4 is no radiograph and is left out."""
        for keyword in ("PixelAspectRatio", "ImagerPixelSpacing", "PixelSpacing"):
            pair = self.decimals(keyword)
            if pair and len(pair) == 2 and all(math.isfinite(value) and value > 0 for value in pair):
                ratio = pair[0] / pair[1]
                if abs(ratio - 1) < 0.01:
                    return 1.0
                self.flags.append("aspect")
                return ratio if 0.25 <= ratio <= 4 else 1.0
        return 1.0


def _plain(value: Any) -> str:
    """Text without the padding around it (PS3.5 6.2); a NUL inside stays visible, as U+FFFD, and makes a UID none."""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text.strip("\0 \t\r\n").replace("\0", "\ufffd")
