import struct
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from engine.dicom.elements import read_meta, scan_elements
from engine.dicom.header import Header, comma_decimals, read_header
from engine.dicom.reasons import Refusal


@pytest.fixture
def header_of(make: SimpleNamespace):
    def read(content: Dataset | bytes) -> Header:
        view = memoryview(make.to_bytes(content) if isinstance(content, Dataset) else content)
        meta = read_meta(view)
        return read_header(view, scan_elements(view, meta.body, meta.transfer_syntax))

    return read


def patched(content: bytes, tag: int, value: bytes, vr: bytes | None = None) -> bytes:
    """The value bytes of one short explicit element overwritten, and its VR."""
    at = content.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)
    return content[: at + 4] + (vr or content[at + 4 : at + 6]) + content[at + 6 : at + 8] + value + content[at + 8 + len(value) :]


def lut(entries: int, first: int, bits: int, values: bytes) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [entries, first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = values
    item["LUTData"].VR = "OW"
    return Sequence([item])


def test_values_come_typed(make: SimpleNamespace, header_of) -> None:
    header = header_of(make.radiograph(WindowCenter=["2048", "100"], WindowWidth=["4096", "50"]))
    assert (header.rows, header.columns, header.bits_stored, header.signed) == (300, 256, 12, 0)
    assert (header.windows, header.slope, header.view, header.patient) == (((2048.0, 4096.0), (100.0, 50.0)), 1.0, "PA", "CANARYID")
    assert header.patient_orientation == ("L", "F") and header.invalid == frozenset() and header.flags == ()


def test_absent_values_are_none_or_empty(make: SimpleNamespace, header_of) -> None:
    header = header_of(make.radiograph(Rows=None, WindowCenter=None, WindowWidth=None, ViewPosition=None, RescaleSlope=None))
    assert (header.rows, header.windows, header.view, header.slope, header.flags) == (None, (), "", 1.0, ())


def test_a_value_of_the_wrong_kind_is_invalid_not_an_exception(make: SimpleNamespace, header_of) -> None:
    content = make.to_bytes(make.radiograph(RescaleSlope="1.00"))
    assert header_of(patched(content, 0x00280010, b"4a", b"LO")).invalid == {"Rows"}
    assert header_of(patched(content, 0x00281053, b"abc ")).invalid == {"RescaleSlope"}
    assert np.isnan(header_of(patched(content, 0x00281053, b"NaN ")).slope)
    assert header_of(patched(content, 0x00281053, b"1\\2 ")).invalid == {"RescaleSlope"}


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("FD", float("nan")),
        ("FD", float("inf")),
        ("DS", "12.5"),
        ("US", [3, 3]),
        ("AT", 0x00280010),
        ("FD", 1e300),
        ("OB", b"ab"),
        ("PN", "X"),
    ],
)
def test_a_number_is_one_whole_number_of_any_kind(make: SimpleNamespace, header_of, vr: str, value: object) -> None:
    ds = make.radiograph()
    del ds.Rows
    ds.add_new(0x00280010, vr, value)
    header = header_of(ds)
    assert (header.rows, header.invalid) == (None, {"Rows"})


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def test_codes_come_with_scheme_and_meaning(make: SimpleNamespace, header_of) -> None:
    ds = make.radiograph(ViewCodeSequence=Sequence([coded("R-10206", "SRT", "antero-posterior"), Dataset()]))
    ds.AnatomicRegionSequence = Sequence([coded("51185008", "SCT", "Chest")])
    header = header_of(ds)
    assert header.views == (("R-10206", "SRT", "antero-posterior"), ("", "", ""))
    assert header.regions == (("51185008", "SCT", "Chest"),)


@pytest.mark.parametrize(
    ("charset", "raw"),
    [
        ("GB18030", "胸部".encode("gb18030")),
        ("ISO_IR 192", "胸部".encode()),
        ("ISO_IR 100", "胸部".encode()),
        ("\\ISO 2022 IR 149", "흉부".encode("euc_kr")),
        ("ISO_IR 100", "tórax".encode("latin-1") + b" "),
    ],
)
def test_body_parts_come_in_the_letters_of_their_land(make: SimpleNamespace, header_of, charset: str, raw: bytes) -> None:
    ds = make.radiograph(SpecificCharacterSet=charset.split("\\") if "\\" in charset else charset, BodyPartExamined="X" * len(raw))
    content = make.to_bytes(ds).replace(b"X" * len(raw), raw)
    assert header_of(content).body_part in {"胸部", "흉부", "TÓRAX"}


@pytest.mark.parametrize(
    ("center", "width", "function", "window", "flags"),
    [
        ("100", "1", None, (100.0, 1.0), ()),
        ("100", "0.5", None, None, ("bad_window",)),
        ("100", "0.5", "LINEAR_EXACT", (100.0, 0.5), ()),
        ("100", "0", "SIGMOID", None, ("bad_window",)),
        ("100", "-100", None, None, ("bad_window",)),
        ("100", None, None, None, ("bad_window",)),
        (None, "100", None, None, ("bad_window",)),
        ("1e300", "100", None, None, ("bad_window",)),
    ],
)
def test_windows_are_judged_by_their_function(make, header_of, center, width, function, window, flags) -> None:
    ds = make.radiograph(WindowCenter=center, WindowWidth=width)
    if function:
        ds.VOILUTFunction = function
    header = header_of(ds)
    assert (header.windows, header.flags) == (() if window is None else (window,), flags)


def test_lookup_tables(make: SimpleNamespace, header_of) -> None:
    ramp = np.arange(4096, dtype="<u2")
    header = header_of(make.radiograph(VOILUTSequence=lut(4096, 10, 12, ramp.tobytes())))
    assert header.voi_lut is not None
    assert (header.voi_lut.first, header.voi_lut.bits) == (10, 12) and np.array_equal(header.voi_lut.values, ramp)


@pytest.mark.parametrize(
    "table",
    [(4096, 0, 12, b"\1\0" * 50), (4096, 0, 40, b"\1\0" * 4096), (1, 0, 12, b"\1\0"), (256, 0, 12, b"\xff\xff" * 256)],
    ids=["short", "bits", "one entry", "above its bits"],
)
def test_a_table_that_contradicts_itself_is_left_out(make: SimpleNamespace, header_of, table: tuple[int, int, int, bytes]) -> None:
    header = header_of(make.radiograph(VOILUTSequence=lut(*table)))
    assert (header.voi_lut, header.flags) == (None, ("bad_lut",))


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("packed", [True, False], ids=["two in a word", "one in a word"])
def test_entries_of_eight_bits_come_in_words_of_either_order(make: SimpleNamespace, little: bool, packed: bool) -> None:
    ramp = np.arange(256, dtype=np.uint8)
    words = ramp.view("<u2") if packed else ramp.astype("<u2")
    ds = make.radiograph(VOILUTSequence=lut(256, 0, 8, words.astype("<u2" if little else ">u2").tobytes()))
    if not little:
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    content = make.to_bytes(ds)
    view, meta = memoryview(content), read_meta(memoryview(content))
    header = read_header(view, scan_elements(view, meta.body, meta.transfer_syntax))
    assert header.voi_lut is not None and header.flags == () and np.array_equal(header.voi_lut.values, ramp)


def test_the_first_sound_table_and_the_first_sound_windows_are_taken(make: SimpleNamespace, header_of) -> None:
    ramp = np.arange(4096, dtype="<u2").tobytes()
    header = header_of(make.radiograph(VOILUTSequence=Sequence([*lut(4096, 0, 12, ramp[:50]), *lut(4096, 7, 12, ramp)])))
    assert header.voi_lut is not None and header.voi_lut.first == 7 and header.flags == ("bad_lut",)
    header = header_of(make.radiograph(WindowCenter=["5", "100", "7"], WindowWidth=["0", "50"]))
    assert (header.windows, header.flags) == (((100.0, 50.0),), ("bad_window",))


def test_a_sequence_of_large_tables_is_read(make: SimpleNamespace, header_of) -> None:
    ramp = np.arange(65536, dtype="<u2").tobytes()
    tables = Sequence([item for _ in range(3) for item in lut(0, 0, 16, ramp)])  # 0 stands for 65,536
    header = header_of(make.radiograph(VOILUTSequence=tables))
    assert header.voi_lut is not None and len(header.voi_lut.values) == 65536


@pytest.mark.parametrize(
    ("pair", "aspect", "flags"), [([2, 1], 2.0, ("aspect",)), ([1, 1], 1.0, ()), ([900, 1], 1.0, ("aspect",)), ([0, 1], 1.0, ())]
)
def test_pixel_aspect(make: SimpleNamespace, header_of, pair: list[int], aspect: float, flags: tuple[str, ...]) -> None:
    header = header_of(make.radiograph(PixelAspectRatio=pair))
    assert (header.aspect, header.flags) == (aspect, flags)


def test_deep_nesting_inside_a_table_is_refused(make: SimpleNamespace, header_of) -> None:
    inner = b""
    for _ in range(2000):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
        inner = struct.pack("<HH", 0x0028, 0x3010) + b"SQ\0\0" + struct.pack("<I", len(item)) + item
    content = make.to_bytes(make.radiograph())
    at = content.rfind(struct.pack("<HH", 0x7FE0, 0x0010))
    try:
        header = header_of(content[:at] + inner + content[at:])
    except Refusal as refusal:
        assert refusal.code == "nesting_too_deep"
    else:
        assert header.voi_lut is None and header.rows == 300


def test_text_in_no_known_encoding_blocks_nothing(make: SimpleNamespace, header_of) -> None:
    content = make.to_bytes(make.radiograph(SpecificCharacterSet="ISO_IR 999"))
    header = header_of(content.replace(b"CANARYID", b"C\xff\xfe\x00\x80YID"))
    assert header.rows == 300 and "\0" not in header.patient


@pytest.mark.parametrize("vr", [b"CS", b"FD", b"US"])
def test_a_character_set_that_is_no_text_blocks_nothing(make: SimpleNamespace, header_of, vr: bytes) -> None:
    """Nor where pydicom has to be asked: for a table, and for text that is not ASCII."""
    ds = make.radiograph(
        SpecificCharacterSet="ISO_IR 100", VOILUTSequence=lut(4, 0, 16, b"\0\0\xff\x0f" * 2), SeriesDescription="CANARYTEXT"
    )
    content = make.to_bytes(ds).replace(b"CANARYTEXT", b"Th\xf3rax (PA)"[:10])
    header = header_of(patched(content, 0x00080005, b"ISO\0IR\0", vr))
    assert header.voi_lut is not None and header.rows == 300 and header.modality == "DX" and header.series.startswith("Th")


def test_an_element_of_a_damaged_vr_takes_no_others_with_it(make: SimpleNamespace, header_of) -> None:
    ds = make.radiograph(VOILUTSequence=lut(4, 0, 16, b"\0\0\xff\x0f" * 2))
    ds.add_new(0x00080001, "UL", 0)  # the first of all tells whether VRs are written
    header = header_of(patched(make.to_bytes(ds), 0x00080008, b"ORIG", b"C\x1f"))
    assert header.voi_lut is not None and header.rows == 300
    assert header.image_type == () and header.invalid == {"ImageType"}


@pytest.mark.parametrize("vr", [b"IS", b"DS", b"LO", b"CS"])
def test_what_is_text_by_the_standard_stays_text(make: SimpleNamespace, header_of, vr: bytes) -> None:
    content = make.to_bytes(make.radiograph(PatientID="007 "))
    assert header_of(patched(content, 0x00100020, b"007 ", vr)).patient == "007"


@pytest.mark.parametrize(
    ("raw", "uid"), [(b"1.2.3.4.5\0", "1.2.3.4.5"), (b"1.2.3.4.5 ", "1.2.3.4.5"), (b"1.2.3\0.4.5", "1.2.3\ufffd.4.5"), (b"\0" * 10, "")]
)
def test_padding_goes_and_what_it_hides_does_not(make: SimpleNamespace, header_of, raw: bytes, uid: str) -> None:
    content = make.to_bytes(make.radiograph(SOPInstanceUID="1.2.3.4.59"))
    at = content.rindex(b"1.2.3.4.59")
    assert header_of(content[:at] + raw + content[at + 10 :]).sop_instance_uid == uid


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        (b"2500,5", [2500.5]),
        (b"0,14\\0,28 ", [0.14, 0.28]),
        (b" -,5E3\\+1,e-2\\7", [-500.0, 0.01, 7.0]),
        (b"0,5\\0.25", [0.5, 0.25]),
        (b"1.234,5", None),
        (b"1,234,567", None),
        (b"0.14,0.14", None),
        (b"0,5\\.", None),
        (b"2500.5", None),
        (b",", None),
        (b"a,5", None),
        (b"", None),
    ],
)
def test_decimal_commas(value: bytes, numbers: list[float] | None) -> None:
    assert comma_decimals(value) == numbers


@pytest.mark.parametrize("uid", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("count", [1, 2])
def test_a_header_of_decimal_commas_is_that_of_points(make: SimpleNamespace, header_of, uid: str, count: int) -> None:
    numbers = {"WindowCenter": ["2011.5"] * count, "WindowWidth": ["3033.5"] * count, "RescaleSlope": "1.55", "RescaleIntercept": "-7.55"}
    ds = make.radiograph(PixelSpacing=["0.44", "0.22"], **numbers)
    ds.file_meta.TransferSyntaxUID = uid
    points = make.to_bytes(ds)
    commas = points
    for number in (b"2011.5", b"3033.5", b"1.55", b"-7.55", b"0.44", b"0.22"):
        commas = commas.replace(number, number.replace(b".", b","))
    expected, got = header_of(points), header_of(commas)
    for name in ("windows", "slope", "intercept", "aspect"):
        assert getattr(got, name) == getattr(expected, name), name
    assert got.windows == ((2011.5, 3033.5),) * count and got.aspect == 2.0 and not got.invalid
    assert set(got.flags) - set(expected.flags) == {"decimal_comma"}


@pytest.mark.parametrize("vr", [b"LO", b"SH", b"CS", b"IS"])
def test_a_comma_is_read_in_other_text_too(make: SimpleNamespace, header_of, vr: bytes) -> None:
    header = header_of(patched(make.to_bytes(make.radiograph(RescaleSlope="0.5")), 0x00281053, b"0,50", vr))
    assert header.slope == 0.5 and "decimal_comma" in header.flags


def test_a_pixel_aspect_ratio_with_commas(make: SimpleNamespace, header_of) -> None:
    header = header_of(make.to_bytes(make.radiograph(PixelAspectRatio=[200, 100])).replace(b"200\\100 ", b"2,0\\1,0 "))
    assert header.aspect == 2.0 and set(header.flags) == {"aspect", "decimal_comma"}
