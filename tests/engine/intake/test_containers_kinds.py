from pathlib import Path

import pytest

from engine.intake.containers import is_named_as_image, kind_of


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0" * 128 + b"DICM", "dicom"),
        (b"PK\x03\x04" + b"\0" * 124 + b"DICM", "dicom"),
        (b"\x89PNG\r\n\x1a\n", "image"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "image"),
        (b"\xff\x4f\xff\x51", "image"),
        (b"\0\0\0\x18ftypheic", "image"),
        (b"PK\x07\x08PK\x03\x04", "archive"),
        (b"\x1f\x9d\x90", "archive"),
        (b"MSCF\0\0\0\0", "archive"),
        (b"!<arch>\ndebian-binary", "archive"),
        (b"\0" * 257 + b"ustar\x0000", "archive"),
        (b"\0\0\0\x01Bud1", "os_junk"),
        (b"RIFF\x10\0\0\0WAVE", ""),
        (b"<html>", ""),
        (b"", ""),
    ],
)
def test_a_kind_is_told_by_the_first_bytes(start: bytes, kind: str) -> None:
    assert kind_of(start) == kind


def test_a_name_says_picture_in_any_case() -> None:
    assert is_named_as_image(Path("A/CHEST.JPEG")) and is_named_as_image(Path("x.webp"))
    assert not is_named_as_image(Path("png")) and not is_named_as_image(Path("x.dcm"))
