"""Version of the reader: what turns the bytes of a file into pixels, flags or a reason. The feature cache keeps rows of one version only.

Raise READER_VERSION, by adding a line to CHANGES, whenever the same file can come out with other pixels, another flag, another outcome or
another reason: after a change of windowing, decoding, resampling, selection or a check, and after new weights (`*.npz`). Do not raise it
for comments, names, messages or speed. tests/engine/dicom/test_reader_version.py compares reference files in every encoding and the
weights with the values stored for the current version, fails where they differ, and prints the command that stores the new values.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

CHANGES: dict[int, str] = {
    1: "the build of 2026-12-01",
    2: "windows and lookup tables are judged inside the collimated field; bits above BitsStored are flagged or read; "
    "decimal commas are read as points; more languages; dual-energy, tomosynthesis, phantom, rejected and rib images are flagged; "
    "elements behind the pixel data, a repeated group 0002, one unknown VR and text at the end are read over; "
    "files without UIDs or with other text for UIDs are scored; TIFF, BMP and WebP files that a table names are read",
}
"""Version -> what changed in it, in a few words that the user sees when rows of older versions are dropped."""

READER_VERSION: int = max(CHANGES)

DECODERS = ("imagecodecs", "pillow", "simpleitk")
"""Packages whose builds can change pixels. isal and numpy are exact; pydicom only parses values that are checked by ours."""

_BUILD_2026_12_01 = ("mmclip 0.1.0 30f181f3e214a6a7", "mmclip 30f181f3e214a6a7")
"""Names that the build of 2026-12-01 gave itself: a hash of its source files. It is version 1; other hashes are development builds."""


@cache
def reader_version() -> str:
    """The name of this reader: its version and those of the decoders, as in `reader 1 imagecodecs 2026.1.14 pillow 13.0.0 ...`."""
    return " ".join([f"reader {READER_VERSION}", *(f"{name} {_installed(name)}" for name in DECODERS)])


def same_readers() -> tuple[str, ...]:
    """Names of earlier builds that read every file as this one does: their rows stay valid."""
    return _BUILD_2026_12_01 if READER_VERSION == 1 else ()


def why_outdated(reader: str) -> str:
    """Why rows of another reader are not used, in words: what changed since, or which decoder is another one."""
    number = _number(reader)
    if number is None:
        return "written by a development build of mmclip"
    later = [text for each, text in sorted(CHANGES.items()) if each > number]
    if later:
        return f"written by reader {number}, this is reader {READER_VERSION}: {'; '.join(later)}"
    if number > READER_VERSION:
        return f"written by the newer reader {number}, this is reader {READER_VERSION}"
    return "written with other versions of the image decoders " + f"({', '.join(DECODERS)})"


def _number(reader: str) -> int | None:
    """The version in a reader's name, None for a name that holds none."""
    if reader.startswith(_BUILD_2026_12_01):
        return 1
    kind, _, rest = reader.partition(" ")
    number = rest.partition(" ")[0]
    return int(number) if kind == "reader" and number.isdecimal() else None


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
