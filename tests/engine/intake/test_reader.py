import gzip
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import data_store
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from engine.dicom.reasons import FLAGS, REASONS, Refusal
from engine.dicom.selection import CR
from engine.intake.limits import Limits
from engine.intake.read_result import ReadResult
from engine.intake.reader import inflate, load_bytes, read_file

Read = Callable[..., ReadResult]
ENCODINGS = [
    "implicit",
    "explicit",
    "big_endian",
    "deflated",
    "rle",
    "jpeg_lossless",
    "jpegls",
    "j2k",
    "htj2k",
    "jpeg12",
    "jpegls_near",
    "j2k_lossy",
]


def mean_difference(one: ReadResult, other: ReadResult) -> float:
    assert one.image is not None and other.image is not None
    return float(np.abs(one.image.astype(float) - other.image).mean())


@pytest.mark.parametrize("size", [64, 112])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_one_radiograph_is_one_picture_in_every_encoding(make: SimpleNamespace, read: Read, encoding: str, size: int) -> None:
    plain = read(make.radiograph(), size=size)
    got = read({**make.LOSSLESS, **make.LOSSY}[encoding](make.chest(), 12), size=size)
    assert (got.outcome, got.flags) == ("score", ())
    assert mean_difference(got, plain) < 0.6
    assert got.image is not None and got.image.dtype == np.uint8 and min(got.image.shape) == size
    assert (got.rows, got.columns, got.modality, got.view) == (300, 256, "DX", "PA")


def test_real_radiographs_agree_in_every_encoding_of_theirs() -> None:
    data_store = pytest.importorskip("data_store", reason="pydicom-data is not installed")
    folder = Path(data_store.__file__).parent / "data"
    readings = [read_file(folder / f"RG1_{kind}.dcm", size=224) for kind in ("UNCR", "J2KR")]
    assert [reading.outcome for reading in readings] == ["score", "score"]
    assert mean_difference(*readings) < 0.6
    assert read_file(folder / "RG3_UNCR.dcm", size=224).reason == "wrong_body_part"
    assert read_file(folder / "CT1_UNC.explicit_big_endian.dcm", size=224).outcome != "score"


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../evil.dcm", b"x")
    return stream.getvalue()


def png(kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(10000, dtype=np.uint8).reshape(100, 100)).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "outcome", "reason"),
    [
        ("a.dcm", b"", "reject", "empty_file"),
        ("a.dcm", b"this is a text\n" * 40, "reject", "not_dicom"),
        ("a.dcm", b"<!DOCTYPE html><title>Login</title>" * 20, "reject", "not_dicom"),
        ("a.dcm", b"%PDF-1.4\n" + b"0" * 400, "reject", "not_dicom"),
        ("a.dcm", png(), "reject", "not_dicom"),
        ("a.png", png(), "skip", "not_dicom"),
        ("a.webp", png("WEBP"), "skip", "not_dicom"),
        ("a.zip", zipped(), "skip", "archive"),
        ("a.dcm", zipped(), "skip", "archive"),
        ("a.dcm.gz", gzip.compress(b"x", mtime=0), "skip", "archive"),
        ("a", b"\0\5\x16\7\0\2\0\0Mac OS X" + b"\0" * 100, "skip", "os_junk"),
        ("a.dcm", b"\0" * 128 + b"DICM", "reject", "truncated"),
    ],
)
def test_kinds_are_told_by_content(read: Read, name: str, content: bytes, outcome: str, reason: str) -> None:
    got = read(content, name)
    assert (got.outcome, got.reason, got.image) == (outcome, reason, None)
    assert len(got.content_hash) == 64


def with_transfer_syntax_removed(content: bytes) -> bytes:
    at = content.index(b"\x02\x00\x10\x00UI")
    (length,) = struct.unpack_from("<H", content, at + 6)
    return content[:at] + content[at + 8 + length :]


def with_vr(ds: Dataset, tag: int, vr: str, value: object) -> Dataset:
    """The element replaced by one of another value representation."""
    del ds[tag]
    ds.add_new(tag, vr, value)
    return ds


def coded(value: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = value, "SCT"
    return Sequence([item])


def in_colour(make: SimpleNamespace, planar: int | None) -> Dataset:
    ds = make.radiograph((make.chest() >> 4).astype(np.uint8), 8, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    ds.PixelData = np.repeat((make.chest() >> 4).astype(np.uint8)[..., None], 3, -1).tobytes()
    if planar is not None:
        ds.PlanarConfiguration = planar
    return ds


CAPTURE = SecondaryCaptureImageStorage
FAULTS = {
    "truncated in the pixels": (lambda m: m.to_bytes(m.radiograph())[:-50000], "truncated"),
    "one byte short": (lambda m: m.to_bytes(m.radiograph())[:-1], "truncated"),
    "garbage after": (lambda m: m.to_bytes(m.radiograph()) + b"\xff" * 1000, "corrupt_header"),
    "no transfer syntax": (lambda m: with_transfer_syntax_removed(m.to_bytes(m.radiograph())), "missing_attribute"),
    "no pixels": (lambda m: m.radiograph(PixelData=None), "no_pixel_data"),
    "empty pixels": (lambda m: m.radiograph(PixelData=b""), "no_pixel_data"),
    "no rows": (lambda m: m.radiograph(Rows=None), "missing_attribute"),
    "rows of zero": (lambda m: m.radiograph(Rows=0), "invalid_dimensions"),
    "65535 squared in 16 bytes": (lambda m: m.radiograph(Rows=65535, Columns=65535, PixelData=b"\0" * 16), "pixel_length_mismatch"),
    "a million frames": (lambda m: m.radiograph(NumberOfFrames=1000000), "pixel_length_mismatch"),
    "two frames": (lambda m: m.radiograph(NumberOfFrames=2, PixelData=m.chest().tobytes() * 2), "multi_frame"),
    "twice the pixels": (lambda m: m.radiograph(PixelData=m.chest().tobytes() * 2), "pixel_length_mismatch"),
    "tiny": (lambda m: m.radiograph(m.chest(8, 8)), "too_small"),
    "constant": (lambda m: m.radiograph(np.full((100, 100), 7, np.uint16)), "degenerate_image"),
    "high bit": (lambda m: m.radiograph(HighBit=15), "unsupported_bits"),
    "slope zero": (lambda m: m.radiograph(RescaleSlope="0"), "invalid_rescale"),
    "palette": (lambda m: m.radiograph(PhotometricInterpretation="PALETTE COLOR"), "unsupported_photometric"),
    "CT": (lambda m: m.radiograph(SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT"), "wrong_modality"),
    "CT class": (lambda m: m.radiograph(SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), "unsupported_sop_class"),
    "hand": (lambda m: m.radiograph(BodyPartExamined="HAND"), "wrong_body_part"),
    "lateral": (lambda m: m.radiograph(ViewPosition="LL"), "lateral_view"),
    "for processing": (lambda m: m.radiograph(SOPClassUID=DigitalXRayImageStorageForProcessing), "for_processing"),
    "two slopes": (lambda m: m.to_bytes(m.radiograph(RescaleSlope="1.00")).replace(b"1.00", b"1\\2 "), "invalid_rescale"),
    "an intercept beyond all values": (lambda m: m.radiograph(RescaleIntercept="1e9"), "invalid_rescale"),
    "rows of no number": (lambda m: with_vr(m.radiograph(), 0x00280010, "FD", float("nan")), "invalid_attribute"),
    "a region code of a hand": (lambda m: m.radiograph(BodyPartExamined="", AnatomicRegionSequence=coded("85562004")), "wrong_body_part"),
    "a lateral view code": (lambda m: m.radiograph(ViewCodeSequence=coded("399067008")), "lateral_view"),
    "rows that run to the back": (lambda m: m.radiograph(ViewPosition="", PatientOrientation=["P", "F"]), "lateral_view"),
    "colour in an order that nobody names": (lambda m: in_colour(m, None), "missing_attribute"),
    "colour in an order that nobody knows": (lambda m: in_colour(m, 7), "invalid_attribute"),
    "a path for a UID": (
        lambda m: m.to_bytes(m.radiograph(StudyInstanceUID="1.2.3.4.5.6")).replace(b"1.2.3.4.5.6", b"/etc/passwd"),
        "invalid_uid",
    ),
    "a capture of nothing known": (
        lambda m: m.radiograph(SOPClassUID=CAPTURE, Modality=None, BodyPartExamined=None),
        "unsupported_sop_class",
    ),
    "a chest capture without modality": (lambda m: m.radiograph(SOPClassUID=CAPTURE, Modality=None), "missing_attribute"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_reason(make: SimpleNamespace, read: Read, fault: str) -> None:
    change, reason = FAULTS[fault]
    got = read(change(make))
    assert (got.outcome, got.reason, got.image) == (REASONS[reason].outcome, reason, None)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_a_fault_has_one_reason_in_every_syntax(make: SimpleNamespace, read: Read, syntax: UID) -> None:
    for fault, (change, reason) in FAULTS.items():
        ds = change(make)
        if isinstance(ds, bytes) or (syntax == ImplicitVRLittleEndian and fault == "rows of no number"):
            continue  # made of bytes; or of a value representation, which implicit data sets do not write
        ds.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian and ds.get("PixelData") and ds.BitsAllocated == 16:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        assert read(ds).reason == reason, fault


def without_class(make: SimpleNamespace) -> bytes:
    ds = make.radiograph()
    content = make.to_bytes(ds)
    at = content.index(struct.pack("<HH2sH", 0x0008, 0x0016, b"UI", 28))
    return content[:at] + content[at + 36 :]


HARMLESS = {
    "trailing zeros": (lambda m: m.to_bytes(m.radiograph()) + b"\0" * 1000, ("trailing_bytes",)),
    "an executable in the preamble": (lambda m: b"\x7fELF" + b"\1" * 124 + m.to_bytes(m.radiograph())[128:], ()),
    "an archive in the preamble": (lambda m: b"PK\3\4" + b"\1" * 124 + m.to_bytes(m.radiograph())[128:], ()),
    "no preamble": (lambda m: m.to_bytes(m.radiograph())[132:], ()),
    "no modality": (lambda m: m.radiograph(Modality=None), ("bad_attribute",)),
    "no SOP instance UID": (lambda m: m.radiograph(SOPInstanceUID=None), ("bad_attribute",)),
    "no study UID": (lambda m: m.radiograph(StudyInstanceUID=None), ("bad_attribute",)),
    "no class but that of the meta group": (lambda m: without_class(m), ("bad_attribute",)),
    "no intent": (lambda m: m.radiograph(PresentationIntentType=None), ("bad_attribute",)),
    "frames of zero": (lambda m: m.radiograph(NumberOfFrames=0), ("bad_attribute",)),
    "frames below zero": (lambda m: m.radiograph(NumberOfFrames=-1), ("bad_attribute",)),
    "one frame": (lambda m: m.radiograph(NumberOfFrames=1), ()),
    "no high bit": (lambda m: m.radiograph(HighBit=None), ("bad_attribute",)),
    "two modalities, both radiographs": (lambda m: m.radiograph(Modality=["CR", "DX"]), ("bad_attribute",)),
    "a padding value in words": (lambda m: with_vr(m.radiograph(PixelPaddingValue=0), 0x00280120, "LO", "CANARY"), ("bad_attribute",)),
    "an AP view by code alone": (lambda m: m.radiograph(ViewPosition="", ViewCodeSequence=coded("399348003")), ()),
    "a chest by code alone": (lambda m: m.radiograph(BodyPartExamined="", AnatomicRegionSequence=coded("816094009")), ()),
    "letters in a UID": (
        lambda m: m.to_bytes(m.radiograph(SOPInstanceUID="1.2.840.3")).replace(b"1.2.840.3", b"1.2.abc.3"),
        ("invalid_uid",),
    ),
    "burned in": (lambda m: m.radiograph(BurnedInAnnotation="YES"), ("burned_in",)),
    "burned in, in other words": (lambda m: m.radiograph(BurnedInAnnotation="Y"), ("burned_in",)),
    "burned in, whatever that means": (lambda m: m.radiograph(BurnedInAnnotation="FILM", SOPClassUID=CR), ("burned_in_unknown",)),
    "a dog": (lambda m: m.radiograph(PatientSpeciesDescription="Canis lupus"), ("out_of_distribution",)),
    "perhaps burned in": (lambda m: m.radiograph(BurnedInAnnotation=None), ("burned_in_unknown",)),
    "a capture": (lambda m: m.radiograph(SOPClassUID=CAPTURE, Modality="CR"), ("secondary_capture",)),
    "turned": (lambda m: m.radiograph(PatientOrientation=["F", "R"]), ("orientation",)),
    "wide pixels": (lambda m: m.radiograph(PixelAspectRatio=[2, 1]), ("aspect",)),
    "a bad window": (lambda m: m.radiograph(WindowWidth="0"), ("bad_window",)),
    "a formula for a name": (lambda m: m.radiograph(PatientName="=cmd|' /C calc'!A0", PatientID="\x1b[31m<script>"), ()),
    "blank view and body part": (lambda m: m.radiograph(ViewPosition="", BodyPartExamined=""), ("view_unknown",)),
    "a negative": (lambda m: m.radiograph(4095 - m.chest()), ("polarity",)),
}


@pytest.mark.parametrize("oddity", HARMLESS)
def test_oddities_are_scored_with_their_flags(make: SimpleNamespace, read: Read, oddity: str) -> None:
    change, flags = HARMLESS[oddity]
    got = read(change(make))
    assert (got.outcome, got.reason, got.flags) == ("score", None, flags)
    assert set(got.flags) <= set(FLAGS) and got.image is not None


def test_a_radiograph_under_the_other_photometric_interpretation_looks_inverted(read: Read) -> None:
    radiograph = pydicom.dcmread(Path(data_store.__file__).parent / "data" / "RG1_UNCR.dcm")
    as_it_is = read(radiograph)
    other = {"MONOCHROME1": "MONOCHROME2", "MONOCHROME2": "MONOCHROME1"}
    radiograph.PhotometricInterpretation = other[radiograph.PhotometricInterpretation]
    assert (as_it_is.outcome, set(read(radiograph).flags) - set(as_it_is.flags)) == ("score", {"polarity"})


def test_an_implicit_data_set_under_an_explicit_name_is_read_as_what_it_is(make: SimpleNamespace, read: Read) -> None:
    content = make.LOSSLESS["implicit"](make.chest(), 12)
    at = content.index(b"\x02\x00\x10\x00UI")
    (length,) = struct.unpack_from("<H", content, at + 6)
    lying = content[:at] + b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0" + content[at + 8 + length :]
    assert mean_difference(read(lying), read(content)) == 0


def test_limits_are_checked_before_memory_is_taken(make: SimpleNamespace, read: Read) -> None:
    assert read(make.radiograph(), limits=Limits(file_bytes=1000)).reason == "resource_limit"
    assert read(make.radiograph(), limits=Limits(pixels=1000)).reason == "resource_limit"
    deflated = make.LOSSLESS["deflated"](make.chest(), 12)
    assert read(deflated, limits=Limits(inflated_bytes=1000)).reason == "resource_limit"


def test_inflating_stops_at_its_limit() -> None:
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = machine.compress(b"\0" * 10**7) + machine.flush()
    assert inflate(memoryview(bomb), 10**7) == b"\0" * 10**7
    for data, most, code in ((bomb, 10**6, "resource_limit"), (bomb[:-100], 10**8, "truncated"), (b"\xff" * 100, 10**6, "corrupt_header")):
        with pytest.raises(Refusal) as raised:
            inflate(memoryview(data), most)
        assert raised.value.code == code


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.dcm")
    (tmp_path / "sparse.dcm").touch()
    os.truncate(tmp_path / "sparse.dcm", 1 << 40)
    reasons = {name: read_file(tmp_path / name, size=64).reason for name in ("fifo.dcm", "sparse.dcm", "gone.dcm", "n" * 300, ".")}
    assert reasons == {
        "fifo.dcm": "not_regular",
        "sparse.dcm": "resource_limit",
        "gone.dcm": "vanished",
        "n" * 300: "unreadable",
        ".": "not_regular",
    }
    assert read_file(Path("/dev/zero"), size=64).reason == "not_regular"


def test_a_file_without_rights_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"x")
    (tmp_path / "x.dcm").chmod(0)
    if os.access(tmp_path / "x.dcm", os.R_OK):
        pytest.skip("root may read everything")
    assert read_file(tmp_path / "x.dcm", size=64).reason == "unreadable"


def test_a_whole_file_is_loaded_once(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert load_bytes(tmp_path / "x", 3) == b"abc"
    with pytest.raises(Refusal):
        load_bytes(tmp_path / "x", 2)


def test_names_of_patients_stay_in_the_private_fields(make: SimpleNamespace, read: Read) -> None:
    got = read(make.radiograph(StudyDescription="CANARYDESC", BodyPartExamined="CANARY CHEST", ViewPosition="CANARYVIEW"))
    assert (got.modality, got.view) == ("DX", "OTHER"), "a tag may hold anything, a public table only codes of the standard"
    public = {key: value for key, value in asdict(got).items() if key not in {"patient", "path"}}
    assert got.outcome == "score" and "CANARY" not in repr(public)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    encoding=st.sampled_from(["explicit", "implicit", "rle", "jpegls", "j2k", "jpeg_lossless", "deflated"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_damaged_files_end_in_one_known_outcome(make, read, encoding, changes, cut) -> None:
    content = bytearray(make.LOSSLESS[encoding](make.chest(80, 72), 12))
    for where, value in changes:
        content[132 + int(where**2 * (len(content) - 133))] = value
    got = read(bytes(content if cut is None else content[: int(cut * len(content))]))
    assert (got.reason is None) == (got.outcome == "score") == (got.image is not None)
    assert got.reason is None or REASONS[got.reason].outcome == got.outcome
    assert set(got.flags) <= set(FLAGS)


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"Rows": None}, "missing_attribute", "Rows"),
        ({"PhotometricInterpretation": None}, "missing_attribute", "PhotometricInterpretation"),
        ({"BodyPartExamined": "HAND"}, "wrong_body_part", "BodyPartExamined"),
        ({"ViewPosition": "LL"}, "lateral_view", "ViewPosition"),
        ({"ViewPosition": "", "SeriesDescription": "Thorax seitl."}, "lateral_view", "SeriesDescription"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for_processing", "PresentationIntentType"),
        ({"HighBit": 15}, "unsupported_bits", "HighBit"),
        ({"RescaleSlope": "0"}, "invalid_rescale", "RescaleSlope"),
        ({"Modality": "CT"}, "wrong_modality", "Modality"),
        ({"NumberOfFrames": 2}, "pixel_length_mismatch", ""),
    ],
)
def test_the_missing_or_wrong_attribute_is_named(read, make, changes, reason, detail):
    got = read(make.radiograph(**changes))
    assert (got.reason, got.detail) == (reason, detail)


KEPT_BY_VINDR = (
    *("PatientSex", "PatientAge", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "PixelSpacing", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "WindowCenter", "WindowWidth", "RescaleIntercept", "RescaleSlope", "PixelData"),
)


def test_a_file_of_which_only_the_image_was_kept_is_scored(read, make):
    """The layout of VinDr-CXR: no UIDs, no modality, no class but that of the file meta group."""
    ds = make.radiograph()
    for each in list(ds):
        if each.keyword not in KEPT_BY_VINDR:
            del ds[each.tag]
    got, plain = read(ds), read(make.radiograph())
    assert got.outcome == "score" and {"bad_attribute", "view_unknown"} <= set(got.flags)
    assert np.array_equal(got.image, plain.image)
    assert (got.sop_instance_uid, got.study_instance_uid, got.patient) == (None, None, None)


@pytest.mark.parametrize(
    ("uid", "kept"),
    [
        ("anonymized", False),
        ("XXX", False),
        ("000", False),
        ("5094b2563a1ef3ff50dc5c7ff71345ab", True),
        ("12345678", True),
        ("a1b2c3d4e5f6", True),
    ],
)
def test_a_uid_of_other_text_is_a_flag_and_a_placeholder_names_nothing(read, make, uid, kept):
    ds = make.radiograph(SOPInstanceUID="1.2.3.1", StudyInstanceUID="1.2.3.2", SeriesInstanceUID="1.2.3.3")
    content = make.to_bytes(ds)
    for number, tag in ((1, 0x00080018), (2, 0x0020000D), (3, 0x0020000E)):
        old = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"UI", 8) + f"1.2.3.{number}\0".encode()
        value = uid.encode() + b"\0" * (len(uid) % 2)
        assert old in content
        content = content.replace(old, struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"UI", len(value)) + value)
    got = read(content)
    assert got.outcome == "score" and got.flags == ("invalid_uid",)
    assert got.sop_instance_uid == got.study_instance_uid == got.series_instance_uid == (uid if kept else None)


@pytest.mark.parametrize("text", ["Anonymous", "ANONYMIZED", "REDACTED", "REMOVED", "XXX", "xxxxxx"])
@pytest.mark.parametrize("keyword", ["BodyPartExamined", "ViewPosition", "Modality", "PatientID"])
def test_what_a_de_identifier_left_counts_as_blank(read, make, keyword, text):
    got = read(make.to_bytes(make.radiograph(**{keyword: text.upper()})).replace(text.upper().encode(), text.encode()))
    expected = {"PatientID": set(), "ViewPosition": {"bad_attribute", "view_unknown"}}.get(keyword, {"bad_attribute"})
    assert got.outcome == "score" and set(got.flags) == expected
    assert keyword != "PatientID" or got.patient is None
