import struct
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from engine.dicom.elements import EXPLICIT, PIXEL_DATA, ROWS, read_meta, scan_elements
from engine.dicom.reasons import Refusal

HUGE = 0xFFFFFFF0


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return head + (b"\0\0" + struct.pack("<I", length) if vr in (b"OB", b"OW", b"SQ", b"UN") else struct.pack("<H", length)) + value


def before_pixels(content: bytes, extra: bytes) -> bytes:
    at = content.rfind(struct.pack("<HH", 0x7FE0, 0x0010))
    return content[:at] + extra + content[at:]


def walk(content: bytes, max_depth: int = 64):
    view = memoryview(content)
    meta = read_meta(view)
    return scan_elements(view, meta.body, meta.transfer_syntax, max_depth=max_depth)


def test_elements_are_found_where_they_lie(make: SimpleNamespace) -> None:
    content = make.to_bytes(make.radiograph())
    found = walk(content)
    rows = found.elements[ROWS]
    assert struct.unpack("<H", content[rows.value : rows.stop]) == (300,)
    pixels = found.elements[PIXEL_DATA]
    assert content[pixels.value : pixels.stop] == make.chest().tobytes()
    assert found.damage is None and not found.flags and not found.encapsulated and found.has_image


@pytest.mark.parametrize(
    ("extra", "damage"),
    [
        (element(ROWS, b"US", b"\2\0"), "corrupt_header"),
        (element(0x00411010, b"OB", b"", HUGE), "truncated"),
        (element(0x0040A730, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF), 0xFFFFFFFF), "truncated"),
        (struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), "corrupt_header"),
        (element(0x00411010, b"UN", b"abcd"), None),
        (b"".join(element(0x00450000 + number, b"UN", b"") for number in range(0x1000, 0x2000)), None),
        (element(0x00080100, b"ZZ", b"abcd"), None),
        (element(0x00080100, b"B\xff", b"abcd"), None),
    ],
)
def test_damage_is_named_and_nothing_before_it_is_lost(make: SimpleNamespace, extra: bytes, damage: str | None) -> None:
    found = walk(before_pixels(make.to_bytes(make.radiograph()), extra))
    assert found.damage == damage
    assert ROWS in found.elements


@pytest.mark.parametrize(
    ("tail", "damage", "trailing"),
    [
        (b"\0" * 1000, None, True),
        (b"\0" * 200_000, None, True),
        (b"\0" * 100_000 + b"x" * 9, "corrupt_header", False),
        (b"\0" * 5, None, True),
        (b"\r\n", None, True),
        (b"\n", None, True),
        (b"\r\n--boundary--\r\n", None, True),
        (b"\r\n--a\r\nContent-Type: text/html\r\n\r\n<p>end</p>\r\n--a--", None, True),
        (b"\x1a" * 300, None, True),
        (b" ", None, True),
        (b"x" * 70_000, "corrupt_header", False),
        (b"\xff", "corrupt_header", False),
        (b"\xff" * 1000, "corrupt_header", False),
    ],
)
def test_what_follows_the_data_set(make: SimpleNamespace, tail: bytes, damage: str | None, trailing: bool) -> None:
    found = walk(make.to_bytes(make.radiograph()) + tail)
    assert (found.damage, "trailing_bytes" in found.flags) == (damage, trailing)


@pytest.mark.parametrize(("depth", "damage"), [(50, None), (64, None), (65, "nesting_too_deep"), (5000, "nesting_too_deep")])
def test_nesting_has_a_limit(make: SimpleNamespace, depth: int, damage: str | None) -> None:
    opening = element(0x0040A730, b"SQ", b"", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    found = walk(before_pixels(make.to_bytes(make.radiograph()), opening * depth + closing * depth))
    assert found.damage == damage


def item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def nested(depth: int, shape: str) -> bytes:
    """A sequence in a sequence, `depth` deep: of defined length, with items of undefined length, or unknown and so implicit inside."""
    content = b""
    for level in range(depth):
        if shape == "unknown":
            content = item(content)
            head = element(0x0040A730, b"UN", b"", len(content))
            content = (struct.pack("<HHI", 0x0040, 0xA730, len(content)) if level < depth - 1 else head) + content
        else:
            closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
            content = item(content) if shape == "defined" else struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + content + closing
            content = element(0x0040A730, b"SQ", content)
    return content


@pytest.mark.parametrize("shape", ["defined", "undefined items", "unknown"])
@pytest.mark.parametrize(("depth", "damage"), [(1, None), (64, None), (65, "nesting_too_deep"), (2000, "nesting_too_deep")])
def test_nesting_has_a_limit_in_sequences_that_are_stepped_over(make: SimpleNamespace, shape: str, depth: int, damage: str | None) -> None:
    found = walk(before_pixels(make.to_bytes(make.radiograph()), nested(depth, shape)))
    assert found.damage == damage
    assert PIXEL_DATA in found.elements, "the walk goes on, so that the file is named for what it is"


def test_nesting_counts_what_is_open_around_it(make: SimpleNamespace) -> None:
    content = make.to_bytes(make.radiograph())

    def inside(depth: int) -> bytes:
        return element(0x0040A730, b"SQ", item(nested(depth, "defined")) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), 0xFFFFFFFF)

    assert walk(before_pixels(content, inside(63))).damage is None
    assert walk(before_pixels(content, inside(64))).damage == "nesting_too_deep"


def test_what_a_sequence_of_defined_length_holds_is_not_judged(make: SimpleNamespace) -> None:
    assert walk(before_pixels(make.to_bytes(make.radiograph()), element(0x0040A730, b"SQ", b"\xff" * 4000))).damage is None


@pytest.mark.parametrize(
    "part",
    [
        element(0x00111001, b"SH", b""),
        element(0x0040A730, b"SQ", item(element(0x00111001, b"SH", b"")) * 600_000),
        element(PIXEL_DATA, b"OB", item(b"") * 1_000_001, 0xFFFFFFFF),
    ],
    ids=["elements", "items", "fragments"],
)
def test_a_file_of_nothing_but_elements_meets_a_limit(part: bytes) -> None:
    many = element(0x00080005, b"CS", b"") + part * (1_000_001 if len(part) == 8 else 1)
    assert scan_elements(memoryview(many), 0, EXPLICIT).damage == "resource_limit"


def test_private_elements_are_walked_and_not_kept() -> None:
    content = element(0x00080005, b"CS", b"") + element(0x00091001, b"LO", b"CANARY")
    assert set(scan_elements(memoryview(content), 0, EXPLICIT).elements) == {0x00080005}
    only = scan_elements(memoryview(element(0x00091001, b"LO", b"CANARY")), 0, EXPLICIT)
    assert (only.elements, only.damage) == ({}, None)


@pytest.mark.parametrize("implicit", [False, True])
def test_no_group_is_ffff(make: SimpleNamespace, implicit: bool) -> None:
    content = b"\0" * 128 + b"DICM" + b"\xff" * 1000 if implicit else make.to_bytes(make.radiograph()) + element(0xFFFF0010, b"LO", b"x ")
    assert walk(content).damage == "corrupt_header"


def meta_with(*elements: bytes) -> bytes:
    return b"\0" * 128 + b"DICM" + b"".join(elements)


SYNTAX = 0x00020010


@pytest.mark.parametrize(
    "value", [b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1\0", b" 1.2.840.10008.1.2.1\r\n\0", b"1.2.840.10008.1.2.1  "]
)
def test_a_transfer_syntax_is_read_without_its_padding(value: bytes) -> None:
    assert read_meta(memoryview(meta_with(element(SYNTAX, b"UI", value), b"\x08\0\x05\0CS\0\0"))).transfer_syntax == EXPLICIT


def test_two_transfer_syntaxes_are_none() -> None:
    twice = [element(SYNTAX, b"UI", b"1.2.840.10008.1.2.1\0"), element(SYNTAX, b"UI", b"1.2.840.10008.1.2.4.50")]
    assert read_meta(memoryview(meta_with(twice[0], twice[0]))).transfer_syntax == EXPLICIT
    with pytest.raises(Refusal) as raised:
        read_meta(memoryview(meta_with(*twice)))
    assert raised.value.code == "corrupt_header"


def test_a_meta_group_has_a_limit_too() -> None:
    with pytest.raises(Refusal) as raised:
        read_meta(memoryview(meta_with(element(0x00020012, b"UI", b"") * 100_001)))
    assert raised.value.code == "resource_limit"


@pytest.mark.parametrize("left", range(2, 8))
def test_a_meta_group_cut_in_the_head_of_an_element_is_truncated(left: int) -> None:
    whole = meta_with(element(SYNTAX, b"UI", b"1.2.840.10008.1.2.1\0"))
    with pytest.raises(Refusal) as raised:
        read_meta(memoryview(whole + element(0x00020012, b"UI", b"1.2.3.4\0")[:left]))
    assert raised.value.code == "truncated"


@pytest.mark.parametrize("explicit", [False, True])
def test_an_unknown_sequence_is_walked_as_it_was_written(make: SimpleNamespace, explicit: bool) -> None:
    inside = element(0x00111002, b"LO", b"CANARY") if explicit else struct.pack("<HHI", 0x0011, 0x1002, 6) + b"CANARY"
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    content = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inside + ends
    found = walk(before_pixels(make.to_bytes(make.radiograph()), element(0x00111001, b"UN", content, 0xFFFFFFFF)))
    assert found.damage is None and PIXEL_DATA in found.elements


def test_fragments_are_listed_without_the_offset_table(make: SimpleNamespace) -> None:
    content = make.LOSSLESS["jpegls"](make.chest(), 12)
    found = walk(content)
    assert found.encapsulated and len(found.fragments) == 1
    start, _ = found.fragments[0]
    assert content[start : start + 2] == b"\xff\xd8"


def test_an_icon_is_not_taken_for_the_image(make: SimpleNamespace) -> None:
    items = (
        struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"icon" + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )
    icon = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + element(PIXEL_DATA, b"OB", items, 0xFFFFFFFF)
    sequence = element(
        0x00880200, b"SQ", icon + struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), 0xFFFFFFFF
    )
    found = walk(before_pixels(make.to_bytes(make.radiograph()), sequence))
    assert found.damage is None and not found.encapsulated and not found.fragments


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "not_dicom"), (b"hello" * 100, "not_dicom"), (b"\0" * 128 + b"DICM", "truncated"), (b"\0" * 128 + b"DICM\2\0\0\0", "truncated")],
)
def test_what_has_no_meta_group(content: bytes, code: str) -> None:
    with pytest.raises(Refusal) as raised:
        read_meta(memoryview(content))
    assert raised.value.code == code


def test_a_data_set_without_preamble_is_recognised_and_marked(make: SimpleNamespace) -> None:
    content = make.to_bytes(make.radiograph())
    bare = content[read_meta(memoryview(content)).body :]
    meta = read_meta(memoryview(bare))
    assert (meta.bare, meta.transfer_syntax, meta.body) == (True, "", 0)
    assert walk(bare).damage is None
    assert read_meta(memoryview(content[132:])).transfer_syntax == EXPLICIT, "a meta group without a preamble is read"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8), st.floats(0, 1))
def test_no_bytes_make_the_walk_raise_or_run_away(make: SimpleNamespace, changes: list[tuple[float, int]], cut: float) -> None:
    content = bytearray(make.to_bytes(make.radiograph(np.zeros((4, 4), np.uint16))))
    for where, value in changes:
        content[132 + int(where * (len(content) - 133))] = value
    try:
        found = walk(bytes(content[: int(cut * len(content))]))
    except Refusal:
        return
    assert all(0 <= item.start <= item.value <= item.stop <= len(content) for item in found.elements.values())


SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def written(make: SimpleNamespace, uid: str) -> bytes:
    ds = make.radiograph()
    ds.file_meta.TransferSyntaxUID = uid
    if uid == ExplicitVRBigEndian:
        ds.PixelData = make.chest().astype(">u2").tobytes()
    return make.to_bytes(ds)


def bytes_of(uid: str, tag: int, vr: str, value: bytes) -> bytes:
    order = ">" if uid == ExplicitVRBigEndian else "<"
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    return (
        head
        + (struct.pack("<I", len(value)) if uid == ImplicitVRLittleEndian else vr.encode() + struct.pack(order + "H", len(value)))
        + value
    )


@pytest.mark.parametrize("uid", SYNTAXES)
def test_elements_behind_the_pixel_data_are_read(make: SimpleNamespace, read, uid: str) -> None:
    content = written(make, uid)
    behind = bytes_of(uid, 0x00120062, "CS", b"YES ") + bytes_of(uid, 0x00120063, "LO", b"none")
    got, plain = read(content + behind), read(content)
    assert got.flags == ("misplaced_element",) and np.array_equal(got.image, plain.image)
    assert 0x00120062 in walk(content + behind).elements
    assert walk(content + bytes_of(uid, ROWS, "US", b"\1\0")).damage == "corrupt_header", "two numbers of rows are none"
    assert walk(content + behind[:-3]).damage == "truncated"


@pytest.mark.parametrize("place", ["after the meta group", "after a SOP class", "before the pixels", "behind the pixels"])
@pytest.mark.parametrize("uid", SYNTAXES[:2])
def test_a_group_0002_in_the_data_set_is_passed_over(make: SimpleNamespace, read, uid: str, place: str) -> None:
    content = written(make, uid)
    group = element(0x00020010, b"UI", uid.encode() + b"\0" * (len(uid) % 2)) + element(0x00020013, b"SH", b"OTHER ")
    begin = read_meta(memoryview(content)).body
    at = {
        "after the meta group": begin,
        "before the pixels": content.rfind(struct.pack("<HH", 0x7FE0, 0x0010)),
        "behind the pixels": len(content),
    }
    at["after a SOP class"] = walk(content).elements[0x00080016].stop
    got = read(content[: at[place]] + group + content[at[place] :])
    assert got.flags == ("misplaced_element",) and np.array_equal(got.image, read(content).image)


def test_a_second_transfer_syntax_behind_the_meta_group_is_passed_over(make: SimpleNamespace, read) -> None:
    """The length of the group, which pydicom writes, leaves it out; without one there would be two."""
    content = make.to_bytes(make.radiograph())
    begin = read_meta(memoryview(content)).body
    twice = content[:begin] + element(0x00020010, b"UI", b"1.2.840.10008.1.2\0") + content[begin:]
    assert read_meta(memoryview(twice)).transfer_syntax == EXPLICIT
    assert read(twice).flags == ("misplaced_element",)


@pytest.mark.parametrize("vr", [b"ZZ", b"us", b"??", b"\0\0", b"\xff\xfe", b"1A"])
@pytest.mark.parametrize("form", ["16 bits", "32 bits", "implicit"])
@pytest.mark.parametrize("value", [b"", b"some value"])
def test_an_element_of_an_unknown_vr_is_stepped_over(make: SimpleNamespace, read, vr: bytes, form: str, value: bytes) -> None:
    if form == "implicit":
        odd = struct.pack("<HHI", 0x0008, 0x0100, len(value)) + value
    else:
        odd = struct.pack("<HH", 0x0008, 0x0100) + vr
        odd += (b"\0\0" + struct.pack("<I", len(value)) if form == "32 bits" else struct.pack("<H", len(value))) + value
    content = make.to_bytes(make.radiograph())
    at = walk(content).elements[0x00080060].stop
    got = read(content[:at] + odd + content[at:])
    assert "unknown_vr" in got.flags and np.array_equal(got.image, read(content).image)


def test_a_data_set_of_unknown_vrs_is_corrupt(make: SimpleNamespace) -> None:
    odd = b"".join(struct.pack("<HH", 0x0009, 0x1000 + number) + b"??\0\0" for number in range(100))
    content = make.to_bytes(make.radiograph())
    at = walk(content).elements[0x00080060].stop
    assert walk(content[:at] + odd + content[at:]).damage == "corrupt_header"


@pytest.mark.parametrize("encoding", ["rle", "jpeg_lossless", "j2k"])
@pytest.mark.parametrize("tail", [b"\n", b"\r\n--bnd--\r\n"])
def test_text_behind_compressed_pixels_is_no_part_of_the_file(make: SimpleNamespace, read, encoding: str, tail: bytes) -> None:
    content = make.LOSSLESS[encoding](make.chest(), 12)
    got = read(content + tail)
    assert got.flags == ("trailing_bytes",) and np.array_equal(got.image, read(content).image)


def test_text_before_the_pixels_is_no_end(make: SimpleNamespace) -> None:
    content = make.to_bytes(make.radiograph())
    at = walk(content).elements[PIXEL_DATA].start
    assert walk(content[:at] + b"\r\n--boundary--\r\n").damage is not None
