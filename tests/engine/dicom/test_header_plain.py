import io
import struct
import warnings
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue

from engine.dicom.header import plain_values, reads_ascii

TAGS = {"US": 0x00280010, "SS": 0x00280120, "CS": 0x00080060, "UI": 0x00080018, "DS": 0x00281053, "IS": 0x00280008}
TAGS |= {"LO": 0x00100020, "SH": 0x00080050, "ST": 0x00080081, "AE": 0x00080054}


def as_pydicom(vr: str, value: bytes, *, little: bool, character_set: bytes = b"ISO_IR 192") -> list[Any]:
    order = "<" if little else ">"

    def element(tag: int, vr: str, value: bytes) -> bytes:
        return struct.pack(order + "HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value

    raw = element(0x00080005, "CS", character_set) + element(TAGS[vr], vr, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = read_dataset(io.BytesIO(raw), is_implicit_VR=False, is_little_endian=little)[TAGS[vr]].value
    return [] if found in (None, "", b"") else list(found) if isinstance(found, (list, MultiValue)) else [found]


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)


TEXT = st.text("01289.-+eE \\ABÿ^_\0\t\x1b\x7f", max_size=12).map(lambda text: text.encode("latin-1"))


@given(st.sampled_from(sorted(TAGS)), TEXT | st.binary(max_size=4), st.booleans())
def test_a_plain_value_is_what_pydicom_makes_of_it(vr: str, value: bytes, little: bool) -> None:
    found = plain_values(vr, value, little=little, ascii_text=True)
    if found is None:
        return
    expected = as_pydicom(vr, value, little=little)
    if vr in ("US", "SS", "DS", "IS"):
        assert [float(one) for one in found] == [float(one) for one in expected]
    else:
        assert [one.strip() for one in found] == [str(one).strip() for one in expected]


@pytest.mark.parametrize(
    ("vr", "value", "found"),
    [
        ("US", b"\x01\x02", [0x0201]),
        ("SS", b"\xff\xff", [-1]),
        ("US", b"", None),
        ("US", b"\1\0\2\0", None),
        ("CS", b"PRIMARY\\DERIVED ", ["PRIMARY", "DERIVED"]),
        ("CS", b"", []),
        ("CS", b"BR\xdcST", None),
        ("UI", b"1.2.3\0", ["1.2.3"]),
        ("UI", b"1.\0002", None),
        ("DS", b"-1.5\\2 ", [-1.5, 2.0]),
        ("DS", b"1e400", None),
        ("DS", b"1.5\\", None),
        ("IS", b"12 ", [12]),
        ("IS", b"1.5", None),
        ("LO", b"Doe ", ["Doe"]),
        ("ST", b"text", None),
        ("SQ", b"", None),
    ],
)
def test_what_is_plain(vr: str, value: bytes, found: list[Any] | None) -> None:
    assert plain_values(vr, value, little=True, ascii_text=True) == found


def test_big_endian() -> None:
    assert plain_values("US", b"\x01\x02", little=False, ascii_text=True) == [0x0102]


def test_text_in_a_character_set_that_may_not_hold_ascii_is_left_to_pydicom() -> None:
    assert reads_ascii(b"ISO_IR 100") and reads_ascii(b"ISO_IR 192 ") and reads_ascii(b"")
    assert not reads_ascii(b"utf-16") and not reads_ascii(b"\\ISO 2022 IR 87")
    assert plain_values("LO", b"Doe ", little=True, ascii_text=False) is None
    assert plain_values("CS", b"DX", little=True, ascii_text=False) == ["DX"]  # PS3.5 6.1.2.2: no code string is affected
