"""File kinds by content, and files inside files: members of zips and images of pixel stores, named as if the outer file were a folder.

    0.zip/2168403.png        the member `2168403.png` of `0.zip`
    images/pixels.u8/17    the 18th image of a pixel store (engine/data/store.py), read as a PNG

Nothing is unpacked to the disk. Such a path is recognised by ENOTDIR, the error of opening it as a file.
"""

from __future__ import annotations

import io
import json
import stat
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Literal

from engine.dicom.reasons import Refusal

# Kinds of files by their first bytes.

Kind = Literal["dicom", "image", "archive", "os_junk", ""]

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
    """The kind by content. DICM at byte 128 comes first, as a preamble may hold anything (PS3.10 7.1)."""
    if data[128:132] == b"DICM":
        return "dicom"
    if data.startswith(_PICTURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP") or data[4:12] in (b"ftypheic", b"ftypavif"):
        return "image"
    if data.startswith(_ARCHIVES) or data[257:262] == b"ustar":
        return "archive"
    return "os_junk" if data.startswith(_JUNK) else ""


def is_named_as_image(path: Path) -> bool:
    """Whether the file name has the suffix of an image, so that it is not a damaged DICOM file."""
    return path.suffix.lower() in _PICTURE_SUFFIXES


PIXELS = "pixels.u8"
"""The file of a pixel store that holds its images, one after another."""


def file_facts(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in ns; of a file inside a zip, its own size and the time of the zip.

    Raises:
        FileNotFoundError: there is no such file, outside or inside another.
        OSError: it cannot be looked at, or is no regular file.
    """
    try:
        status = path.stat()
    except NotADirectoryError:
        holder, member = _split(path)
        time = holder.stat().st_mtime_ns
        return (_member(holder, member).file_size if holder.name != PIXELS else _side(holder) ** 2), time
    if not stat.S_ISREG(status.st_mode):
        raise OSError("no regular file")
    return status.st_size, status.st_mtime_ns


def load_inside(path: Path, most: int) -> bytes:
    """The bytes of a file inside a file, at most `most` of them.

    Raises:
        Refusal: `vanished`, `resource_limit`, `truncated` (a damaged member), `unreadable`.
    """
    try:
        holder, member = _split(path)
        if holder.name == PIXELS:
            return _stored_image(holder, member)
        found = _member(holder, member)
        if found.file_size > most:
            raise Refusal("resource_limit")
        with _archive(str(holder), holder.stat().st_mtime_ns).open(found) as stream:
            return stream.read(most + 1)
    except FileNotFoundError:
        raise Refusal("vanished") from None
    except (zipfile.BadZipFile, EOFError, zlib.error):
        raise Refusal("truncated") from None
    except (OSError, RuntimeError, NotImplementedError, ValueError):  # encrypted, or packed in a way that Python cannot read
        raise Refusal("unreadable") from None


def _split(path: Path) -> tuple[Path, str]:
    """The file on the disk, and the name inside it."""
    for parent in path.parents:
        if parent.is_file():
            return parent, path.relative_to(parent).as_posix()
        if parent.exists():
            break
    raise FileNotFoundError


@lru_cache(maxsize=4)
def _archive(path: str, changed: int) -> zipfile.ZipFile:
    """An open zip: its list of members, which may be long, is read once for all of them. `changed` makes a new one of a changed file."""
    return zipfile.ZipFile(path)


def _member(holder: Path, member: str) -> zipfile.ZipInfo:
    try:
        return _archive(str(holder), holder.stat().st_mtime_ns).getinfo(member)
    except KeyError:
        raise FileNotFoundError from None
    except zipfile.BadZipFile:
        raise OSError("a damaged zip") from None


def _side(holder: Path) -> int:
    return int(json.loads((holder.parent / "meta.json").read_text())["size"])


def _stored_image(holder: Path, member: str) -> bytes:
    from PIL import Image

    side, row = _side(holder), int(member)
    with holder.open("rb") as stream:
        stream.seek(row * side * side)
        pixels = stream.read(side * side)
    if row < 0 or len(pixels) < side * side:
        raise FileNotFoundError
    out = io.BytesIO()
    Image.frombytes("L", (side, side), pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()
