"""Any bytes as the value of any attribute that is read, alone and together."""

import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.dicom.elements import read_meta, scan_elements
from engine.dicom.reasons import FLAGS, REASONS


def put(content: bytes, tag: int, vr: bytes, value: bytes) -> bytes:
    """An explicit little endian file with one element set to these bytes, in its place."""
    view = memoryview(content)
    meta = read_meta(view)
    found = scan_elements(view, meta.body, meta.transfer_syntax).elements
    at = min(item.start for there, item in found.items() if there >= tag)
    rest = content[found[tag].stop :] if tag in found else content[at:]
    long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    length = (b"\0\0" + struct.pack("<I", len(value))) if long else struct.pack("<H", len(value))
    return content[:at] + struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + length + value + rest


READ = (
    *(0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x0008001C, 0x00080060, 0x00080068, 0x0008103E, 0x00082218, 0x00100020, 0x00102201),
    *(0x00180015, 0x00181164, 0x00185101, 0x0020000D, 0x0020000E, 0x00200020, 0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010),
    *(0x00280011, 0x00280030, 0x00280034, 0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120, 0x00280121, 0x00280301, 0x00281050),
    *(0x00281051, 0x00281052, 0x00281053, 0x00281056, 0x00283000, 0x00283010, 0x00540220, 0x20500020),
)
VALUES = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 65535).map(lambda number: struct.pack("<H", number)),
    st.floats(width=64).map(lambda number: struct.pack("<d", number)),
    st.sampled_from(["1", "0", "-1", "nan", "1e300", "1\\2", "CANARY^X", "CHEST", "L\\F", "\x1b[31m", "RGB", "=1+1"]).map(str.encode),
    st.just(struct.pack("<HHI", 0xFFFE, 0xE000, 0)),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(READ),
            st.sampled_from(
                [b"US", b"SS", b"UL", b"IS", b"DS", b"CS", b"LO", b"UI", b"FD", b"OB", b"OW", b"UN", b"SQ", b"UT", b"PN", b"AT"]
            ),
            VALUES,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_value_of_any_attribute_ends_in_one_known_outcome(make, read, changes: list[tuple[int, bytes, bytes]]) -> None:
    content = make.to_bytes(make.radiograph(make.chest(80, 72)))
    for tag, vr, value in changes:
        content = put(content, tag, vr, value)
    got = read(content)
    assert (got.reason is None) == (got.outcome == "score") == (got.image is not None)
    assert got.reason is None or REASONS[got.reason].outcome == got.outcome
    assert set(got.flags) <= set(FLAGS)
    assert "CANARY" not in repr((got.reason, got.flags, got.modality, got.view, got.sop_class, got.transfer_syntax, got.rows, got.columns))
