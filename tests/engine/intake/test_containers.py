from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.dicom.reasons import Refusal
from engine.intake.containers import file_facts, load_inside
from engine.intake.reader import load_bytes, read_file


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "0.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a.txt", b"hello")
        out.writestr("deep/b.txt", bytes(5000))
    return tmp_path / "0.zip"


def refused(path: Path, most: int = 1 << 20) -> str:
    with pytest.raises(Refusal) as caught:
        load_inside(path, most)
    return caught.value.code


def test_members_are_read_where_they_lie(archive: Path) -> None:
    assert load_bytes(archive / "a.txt", 100) == b"hello"
    assert load_inside(archive / "deep" / "b.txt", 5000) == bytes(5000)
    assert file_facts(archive / "deep/b.txt") == (5000, archive.stat().st_mtime_ns)
    assert file_facts(archive) == (archive.stat().st_size, archive.stat().st_mtime_ns)


def test_what_is_not_there_too_large_or_damaged_has_its_reason(archive: Path, tmp_path: Path) -> None:
    assert refused(archive / "none.txt") == "vanished"
    assert refused(archive / "deep/b.txt", 100) == "resource_limit"
    assert refused(tmp_path / "none" / "a.txt") == "vanished"
    for missing in (archive / "none.txt", tmp_path / "none"):
        with pytest.raises(FileNotFoundError):
            file_facts(missing)
    raw = bytearray(archive.read_bytes())
    raw[40] ^= 0xFF  # within the packed bytes of the first member
    archive.write_bytes(raw)
    assert refused(archive / "a.txt") == "truncated"
    archive.write_bytes(raw[:50])
    assert refused(archive / "a.txt") in ("unreadable", "truncated")


def test_a_changed_zip_is_read_anew(archive: Path) -> None:
    assert load_inside(archive / "a.txt", 100) == b"hello"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("a.txt", b"other")
    assert load_inside(archive / "a.txt", 100) == b"other"


def test_a_row_of_a_pixel_store_is_a_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    (tmp_path / "pixels.u8").write_bytes(pixels.tobytes())
    (tmp_path / "meta.json").write_text(json.dumps({"size": 64}))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(load_inside(tmp_path / "pixels.u8/1", 1 << 20)))), pixels[1])
    assert refused(tmp_path / "pixels.u8" / "3") == "vanished"
    assert refused(tmp_path / "pixels.u8" / "x") == "unreadable"
    reading = read_file(tmp_path / "pixels.u8" / "2", size=64, plain_images=True)
    assert reading.outcome == "score" and np.array_equal(reading.image, pixels[2])
