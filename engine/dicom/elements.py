"""Where the elements of a data set are: lengths, order and nesting are checked here before any parser sees a value (PS3.5 section 7).

pydicom returns an empty data set without an error for many damaged files, keeps the last of repeated elements, and recurses once per
level of nesting. This walk does none of that: it reads tags and lengths only, in one flat loop, and says what is wrong where.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from engine.dicom.reasons import Refusal

Damage = Literal["truncated", "corrupt_header", "nesting_too_deep", "resource_limit"]
_GROUP_LENGTH = 0x00020000
TRANSFER_SYNTAX, ROWS, PIXEL_DATA = 0x00020010, 0x00280010, 0x7FE00010
IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
NO_SYNTAX = "0"
"""Stands for a transfer syntax UID that is none."""
UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END, _PADDING = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFCFFFC
_MOST_ELEMENTS = 1_000_000
"""Elements, items and delimiters together, or fragments; 3 s. A radiograph has some hundreds, and a hostile file room for 64 million."""
_MOST_UNKNOWN = 8
"""Elements of an unknown VR that are stepped over by what follows them."""
_MOST_META_ELEMENTS = 100_000
"""PS3.10 knows 14; some files are stuffed with thousands."""
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_NAMED = _LONG | _SHORT
"""Value representations (PS3.5 6.2, 7.1.2) with a length of 32 bits, and of 16."""


class Element(NamedTuple):
    """One top-level element: its first byte, the first byte of its value, one past its last byte, and its VR ('' when implicit)."""

    start: int
    value: int
    stop: int
    vr: str


@dataclass
class DataSetLayout:
    """The top level of one data set.

    elements: tag -> Element, pixel data included, private ones left out. fragments: byte ranges of the encapsulated pixel data, its basic
    offset table excluded.
    has_image: Rows or pixel data were met, whole or not. damage: why the walk ended early, None when it reached the end.
    flags: of reasons.FLAGS, what was passed over on the way. empty: not one element was met whole.
    """

    implicit: bool
    little: bool
    elements: dict[int, Element] = field(default_factory=dict)
    fragments: list[tuple[int, int]] = field(default_factory=list)
    encapsulated: bool = False
    has_image: bool = False
    damage: Damage | None = None
    flags: list[str] = field(default_factory=list)
    empty: bool = True


@dataclass(frozen=True)
class FileMeta:
    """The file meta group: the transfer syntax UID ('' when absent), and where the data set begins.

    bare: there is neither preamble nor group, as in files of before 1993; only then may the encoding be guessed.
    repeated: an element comes twice, with two values; the first counts.
    """

    transfer_syntax: str
    body: int
    sop_class: str = ""
    bare: bool = False
    repeated: bool = False


def _short_form(vr: bytes) -> bool:
    """Whether a VR has a 16-bit length; unknown ones of letters are read so, as dcmtk and pydicom do."""
    return vr in _SHORT or (vr not in _LONG and len(vr) == 2 and b"AA" <= vr <= b"ZZ")


def starts_data_set(data: memoryview, at: int = 0) -> bool:
    """Whether a group 0008 element of a plausible length begins here: a data set without preamble and meta group."""
    if len(data) < at + 8:
        return False
    group, element = struct.unpack_from("<HH", data, at)
    if group not in (0x0008, 0x0002) or element > 0x3000:
        return False
    vr = bytes(data[at + 4 : at + 6])
    (length,) = struct.unpack_from("<I", data, at + 4)
    return vr in _NAMED or (group == 0x0008 and length <= min(len(data) - at, 1 << 16))


def read_meta(data: memoryview) -> FileMeta:
    """The file meta information (PS3.10 section 7.1); always explicit VR little endian.

    Raises:
        Refusal: `not_dicom`, `truncated`, `corrupt_header`, `resource_limit`.
    """
    at = steps = 0
    repeated, group_end = False, len(data)
    if len(data) >= 132 and bytes(data[128:132]) == b"DICM" and not (starts_data_set(data) and not starts_data_set(data, 132)):
        at = 132
        if len(data) == at:
            raise Refusal("truncated")
    elif not starts_data_set(data):
        raise Refusal("not_dicom")
    elif bytes(data[:2]) != b"\x02\x00":
        return FileMeta("", 0, bare=True)
    found: dict[int, bytes] = {}
    while at + 8 <= len(data) and bytes(data[at : at + 2]) == b"\x02\x00":
        steps += 1
        if steps > _MOST_META_ELEMENTS:
            raise Refusal("resource_limit")
        tag = 0x00020000 | struct.unpack_from("<H", data, at + 2)[0]
        vr = bytes(data[at + 4 : at + 6])
        if vr in _LONG:
            if at + 12 > len(data):
                raise Refusal("truncated")
            (length,) = struct.unpack_from("<I", data, at + 8)
            value = at + 12
        elif _short_form(vr):
            (length,) = struct.unpack_from("<H", data, at + 6)
            value = at + 8
        else:
            raise Refusal("corrupt_header")
        if value + length > len(data):
            raise Refusal("truncated" if length < 1 << 16 else "corrupt_header")
        if tag == TRANSFER_SYNTAX and vr != b"UI":
            raise Refusal("corrupt_header")
        content = bytes(data[value : value + length])
        if tag == _GROUP_LENGTH and len(content) == 4:
            group_end = value + length + int.from_bytes(content, "little")
        if found.setdefault(tag, content) != content:
            if tag == TRANSFER_SYNTAX and at < group_end:
                raise Refusal("corrupt_header")  # two transfer syntaxes are none, unless the group's length leaves one out
            repeated = True
        at = value + length
    if len(data) > 132 and 0 < len(data) - at < 8 and (TRANSFER_SYNTAX not in found or b"\x02\0".startswith(bytes(data[at : at + 2]))):
        raise Refusal("truncated")
    text = found.get(TRANSFER_SYNTAX, b"").strip(b"\0 \t\r\n")
    named = text.decode("ascii") if len(text) <= 64 and all(byte in b"0123456789." for byte in text) else NO_SYNTAX
    return FileMeta(named, at, found.get(0x00020002, b"").rstrip(b"\0 ").decode("ascii", "replace"), repeated=repeated)


def scan_elements(data: memoryview, begin: int, transfer_syntax: str, *, max_depth: int = 64) -> DataSetLayout:
    """Walk the data set that begins at `begin`; never raises for damage, which is noted in `DataSetLayout.damage`.

    A data set that is implicit where explicit was announced (or the reverse) is walked as what it is: the VR of the first element shows it.
    `max_depth` counts nested sequences. Sequences of defined length are stepped over whole once their depth is known: what they hold
    next to that is not checked here.
    """
    little = transfer_syntax != BIG_ENDIAN
    implicit = transfer_syntax == IMPLICIT or transfer_syntax == ""
    if len(data) >= begin + 8:
        implicit = bytes(data[begin + 4 : begin + 6]) not in _NAMED
    result = DataSetLayout(implicit, little)
    try:
        _Walk(data, begin, result, max_depth).run()
    except struct.error:
        result.damage = "truncated"
    if result.empty and not result.has_image and result.damage in (None, "truncated"):
        result.damage = "corrupt_header"
    return result


class _Heads:
    """Reads the heads of elements, in one byte order."""

    def __init__(self, data: memoryview, little: bool) -> None:
        order = "<" if little else ">"
        self.data = data
        self.pair, self.long = struct.Struct(order + "HH").unpack_from, struct.Struct(order + "I").unpack_from
        self.both = struct.Struct(order + "HH2sH").unpack_from
        self.left = _MOST_ELEMENTS  # of those inside sequences of defined length

    def starts_item(self, at: int) -> bool:
        return at + 4 <= len(self.data) and self.pair(self.data, at) == (0xFFFE, 0xE000)

    def length(self, at: int, vr: bytes, short: int) -> tuple[int, int] | None:
        """The length of a value and where it begins; None for a VR of no letters. b'' represents implicit VR."""
        if vr in _SHORT:
            return short, at + 8
        if not vr:
            return self.long(self.data, at + 4)[0], at + 8
        if vr in _LONG:
            return self.long(self.data, at + 8)[0], at + 12
        return (short, at + 8) if _short_form(vr) else None


class _Walk:
    """One walk over a data set; its steps return whether to go on, and note damage in `result`."""

    def __init__(self, data: memoryview, at: int, result: DataSetLayout, max_depth: int) -> None:
        self.data, self.at, self.end, self.result, self.max_depth = data, at, len(data), result, max_depth
        self.heads = _Heads(data, result.little)
        self.depth, self.opened = 0, (0, 0)  # the top-level sequence that is open
        self.implicit_from = 0 if result.implicit else UNDEFINED  # the depth from which on VRs are implicit
        self.last = self.unknown = 0
        self.inner: Damage | None = None  # of what is stepped over: the walk goes on, and learns what the image is

    def run(self) -> None:
        both, data, last_head, most = self.heads.both, self.data, self.end - 8, _MOST_ELEMENTS
        while self.at < self.end:
            most -= 1
            if most < 0:
                self._stop("resource_limit")
                return
            if self.at > last_head:
                self._leftover()
                return
            group, element, vr, short = both(data, self.at)
            if not (self._delimiter(element) if group == 0xFFFE else self._element(group << 16 | element, vr, short)):
                return
        self.result.damage = "truncated" if self.depth else self.inner

    def _stop(self, damage: Damage | None) -> bool:
        self.result.damage = damage
        return False

    def _end(self, flag: str) -> bool:
        """The data set ends here: what follows is no part of it."""
        self.result.flags.append(flag)
        return self._stop(self.inner)

    def _leftover(self) -> None:
        """Fewer bytes than an element has."""
        if not any(self.data[self.at :]) or (self._has_pixels() and _is_text(self.data, self.at)):
            self._end("trailing_bytes")
        else:
            self._stop("corrupt_header" if self._has_pixels() else "truncated")

    def _has_pixels(self) -> bool:
        """Whether the top-level pixel data were met, whole."""
        return not self.depth and PIXEL_DATA in self.result.elements

    def _delimiter(self, element: int) -> bool:
        """An item, its end, or the end of a sequence (PS3.5 7.5)."""
        tag = 0xFFFE0000 | element
        if not self.depth or tag not in (_ITEM, _ITEM_END, _SEQUENCE_END):
            return self._stop("corrupt_header")
        (length,) = self.heads.long(self.data, self.at + 4)
        self.at += 8
        if tag == _ITEM and length != UNDEFINED:
            implicit = self.depth >= self.implicit_from
            self.inner = self.inner or _inner_damage(self.heads, self.at, self.at + length, implicit, self.max_depth - self.depth)
            self.at += length
        elif tag == _SEQUENCE_END:
            self.depth -= 1
            if self.depth < self.implicit_from and not self.result.implicit:
                self.implicit_from = UNDEFINED
            if not self.depth:
                self.result.empty = False
                self.result.elements[self.opened[0]] = Element(self.opened[1], self.opened[1], self.at, "SQ")
        return True

    def _element(self, tag: int, vr: bytes, short: int) -> bool:
        start, depth, result = self.at, self.depth, self.result
        if not depth:
            if (tag <= self.last or tag in result.elements) and not self._out_of_order(tag):
                return False
            if self.last < tag:
                self.last = tag
            if tag in (ROWS, PIXEL_DATA):
                result.has_image = True
        if depth >= self.implicit_from and (result.implicit or vr not in _NAMED) and not (tag >> 16 == 0x0002 and vr in _NAMED):
            vr = b""  # some write explicit VRs inside unknown sequences, where PS3.5 6.2.2 has implicit ones
        found = self.heads.length(start, vr, short) if not vr or vr in _NAMED else self._unknown_length(vr, short)
        if found is None or tag >> 16 == 0xFFFF:  # PS3.5 7.8.1: no element may have that group
            return self._stop("corrupt_header")
        length, value = found
        if length == UNDEFINED:
            return self._undefined(tag, vr, value)
        stop = value + length
        if stop > self.end:
            return self._stop("truncated")
        self.at = stop
        if vr == b"SQ" or ((not vr or vr == b"UN") and length and self.heads.starts_item(value)):
            self.inner = self.inner or _inner_damage(self.heads, value, stop, vr != b"SQ", self.max_depth - depth - 1)
        if not depth:
            result.empty = False
            if not tag & 0x10000 and tag >> 16 != 0x0002:
                result.elements[tag] = Element(start, value, stop, vr.decode("latin-1"))
        return True

    def _out_of_order(self, tag: int) -> bool:
        """A top-level element whose tag is not above those before it (PS3.5 7.1): what may be, and what ends the walk.

        Elements behind the pixel data and a group 0002 that was written once more are read as other readers do. Zeros end a data set
        anywhere, text (a line end, a boundary of MIME) behind the pixel data.
        """
        if (tag == 0 and _is_zero(self.data, self.at)) or (self._has_pixels() and _is_text(self.data, self.at)):
            return self._end("trailing_bytes")
        if tag in self.result.elements or (tag < 0x00080000 and tag >> 16 != 0x0002):
            return self._stop("corrupt_header")
        if self.last >= PIXEL_DATA or tag < 0x00080000:
            self.result.flags.append("misplaced_element")
        return True

    def _unknown_length(self, vr: bytes, short: int) -> tuple[int, int] | None:
        """Length of the value and where it begins, for a VR that PS3.5 does not know; None where it cannot be followed.

        Tried are a length of 16 bits, of 32 bits (as all new VRs have, PS3.5 7.1.2), and implicit VR; the first is taken after which
        an element follows. A VR of letters has 16 bits where none does.
        """
        self.unknown += 1
        long_head = self.at + 12 <= self.end
        tried = [(short, self.at + 8), *([(self.heads.long(self.data, self.at + 8)[0], self.at + 12)] if long_head else [])]
        if not _short_form(vr):
            tried.append((self.heads.long(self.data, self.at + 4)[0], self.at + 8))
        self.result.flags.append("unknown_vr")
        for length, value in tried:
            if length != UNDEFINED and self._is_followed(value + length):
                return None if self.unknown > _MOST_UNKNOWN else (length, value)
        return tried[0] if _short_form(vr) else None

    def _is_followed(self, at: int) -> bool:
        """Whether at this place the data end, or a delimiter or an element of a known VR begins."""
        if at + 8 > self.end:
            return at == self.end
        group, _, vr, _ = self.heads.both(self.data, at)
        return self.depth > 0 if group == 0xFFFE else vr in _NAMED

    def _undefined(self, tag: int, vr: bytes, value: int) -> bool:
        """An element of undefined length: encapsulated pixel data, or a sequence, which is entered."""
        start, self.at = self.at, value
        if tag == PIXEL_DATA:  # an icon may hold some too
            self.at = _fragments(self.data, value, self.result, note=not self.depth)
            if not self.depth and not self.result.damage:
                self.result.elements[tag] = Element(start, value, self.at, vr.decode("latin-1"))
            return not self.result.damage
        if vr not in (b"", b"SQ", b"UN"):
            return self._stop("corrupt_header")
        if not self.depth:
            self.opened = (tag, start)
        if vr == b"UN" and self.implicit_from == UNDEFINED:
            self.implicit_from = self.depth + 1  # PS3.5 6.2.2: an unknown sequence of undefined length is implicit inside
        self.depth += 1
        return self.depth <= self.max_depth or self._stop("nesting_too_deep")


_MOST_TEXT = 1 << 16
_TEXT = bytes((0, 9, 10, 13, 26, *range(32, 127)))
"""Printable ASCII, line ends, and what old systems fill a last block with."""


def _is_text(data: memoryview, at: int) -> bool:
    """Whether nothing but text follows, of 64 kB at most: line ends or a boundary of a multipart message, saved along with the file."""
    return len(data) - at <= _MOST_TEXT and not bytes(data[at:]).translate(None, _TEXT)


def _is_zero(data: memoryview, at: int) -> bool:
    """Whether nothing but zeros follow, read in parts: a file may be padded with hundreds of megabytes."""
    zeros = bytes(1 << 16)
    return all(bytes(data[part : part + len(zeros)]) == zeros[: len(data) - part] for part in range(at, len(data), len(zeros)))


def _inner_damage(heads: _Heads, at: int, stop: int, implicit: bool, room: int) -> Damage | None:
    """Whether the items or elements of [at, stop) nest more than `room` sequences deep; what cannot be followed ends the look."""
    stop = min(stop, len(heads.data))
    if room < 0:
        return "nesting_too_deep"
    if stop - at < 16 * room + 8:  # the least that so many sequences and items take
        return None
    opened = [(stop, implicit)]  # where each open sequence ends (UNDEFINED: at its delimiter), and whether VRs are implicit in it
    while heads.left:
        heads.left -= 1
        while len(opened) > 1 and at >= opened[-1][0]:
            opened.pop()
        if at + 12 > stop:
            return None
        group, element, vr, short = heads.both(heads.data, at)
        if group == 0xFFFE:
            at += 8
            if element == 0xE0DD and opened[-1][0] == UNDEFINED:
                opened.pop()
            continue
        implicit = opened[-1][1]
        found = heads.length(at, b"" if implicit else vr, short)
        if found is None:
            return None
        length, at = found
        unnamed = implicit or vr == b"UN"
        if (not implicit and vr == b"SQ") or (unnamed and (length == UNDEFINED or (length and heads.starts_item(at)))):
            if len(opened) > room:
                return "nesting_too_deep"
            opened.append((UNDEFINED if length == UNDEFINED else at + length, unnamed))
        elif length == UNDEFINED:
            return None
        else:
            at += length
    return "resource_limit"


def _fragments(data: memoryview, at: int, result: DataSetLayout, *, note: bool) -> int:
    """Follow the fragments of encapsulated pixel data (PS3.5 A.4), noting them for the image itself; the position after the delimiter."""
    item = struct.Struct("<HHI" if result.little else ">HHI").unpack_from
    result.encapsulated |= note
    end = len(data)
    for number in range(_MOST_ELEMENTS):
        if at + 8 > end:
            result.damage = "truncated"
            return at
        group, element, length = item(data, at)
        at += 8
        if (group, element) == (0xFFFE, 0xE0DD):
            return at
        if (group, element) != (0xFFFE, 0xE000) or length == UNDEFINED:
            result.damage = "corrupt_header"
            return at
        if at + length > end:
            result.damage = "truncated"
            return at
        if note and number:
            result.fragments.append((at, at + length))
        at += length
    result.damage = "resource_limit"
    return at
