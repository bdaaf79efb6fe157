"""What kind of file some bytes are by their first ones: DICOM, a plain picture, an archive, what an operating system left."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["dicom", "picture", "archive", "os_junk", ""]

_PICTURE_SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".j2k", ".jpf", ".jxl", ".heic"),
        *(".avif", ".svg"),
    )
)
_PICTURES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM", b"GIF8", b"<svg"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL ", b"\xff\x0a"),
)
"""PNG, JPEG, TIFF, BigTIFF, BMP, GIF, SVG; JPEG 2000 with boxes and bare, JPEG XL with boxes and bare."""
_ARCHIVES = (
    *(b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"\x1f\x8b", b"\x1f\x9d", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"),
    *(b"\x04\x22\x4d\x18", b"LZIP", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"MSCF\0\0\0\0", b"xar!", b"!<arch>\n", b"070701", b"070702"),
)
"""zip (whole, empty, in parts), gzip, compress, bzip2, xz, Zstandard, LZ4, lzip, 7-Zip, RAR, cabinet, xar, ar, cpio."""
_JUNK = (b"\x00\x05\x16\x07\x00\x02", b"\x00\x05\x16\x00\x00\x02", b"\x00\x00\x00\x01Bud1", b"\xd0\xcf\x11\xe0")
"""AppleDouble, AppleSingle, .DS_Store, and the OLE container of Thumbs.db."""


def kind_of(data: bytes) -> Kind:
    """The kind by content; a preamble may hold anything, so DICM at byte 128 wins over all else (PS3.10 7.1)."""
    if data[128:132] == b"DICM":
        return "dicom"
    if data.startswith(_PICTURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP") or data[4:12] in (b"ftypheic", b"ftypavif"):
        return "picture"
    if data.startswith(_ARCHIVES) or data[257:262] == b"ustar":
        return "archive"
    return "os_junk" if data.startswith(_JUNK) else ""


def is_named_as_picture(path: Path) -> bool:
    """Whether the name says that it is a plain picture, which then is no DICOM file gone wrong."""
    return path.suffix.lower() in _PICTURE_SUFFIXES
