from __future__ import annotations

import fcntl
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from engine.data import store as store_module
from engine.data.pictures import picture_of
from engine.data.store import PixelStore, build_store
from engine.errors import ConfigError, InputMissing, LockHeld, ReadError


def draw(path: Path, seed: int) -> Path:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5), dtype=np.uint8)
    Image.fromarray(coarse).resize((70, 64), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def frame(tmp_path: Path) -> pl.DataFrame:
    """Six images, of which one is torn and one is gone."""
    files = [draw(tmp_path / f"{seed}.png", seed) for seed in range(5)] + [tmp_path / "gone.png"]
    files[3].write_bytes(files[3].read_bytes()[:700])
    return pl.DataFrame({"image": [f"i{n}" for n in range(6)], "file": [str(file) for file in files]})


def expected(frame: pl.DataFrame, image: str) -> np.ndarray:
    return picture_of(Path(frame.filter(image=image)["file"][0]).read_bytes(), 32, "squash")


def test_every_image_has_its_picture_or_a_reason(frame: pl.DataFrame, tmp_path: Path) -> None:
    store = build_store(frame, tmp_path / "store", 32)
    assert store.dropped() == {"i3": "truncated", "i5": "file_missing"}
    assert store.pixels.shape == (4, 32, 32) and store.pixels.dtype == np.uint8
    for image in ("i0", "i1", "i2", "i4"):
        assert image in store
        assert np.array_equal(store.picture(image), expected(frame, image))
    assert "i3" not in store and "unheard of" not in store
    with pytest.raises(KeyError):
        store.picture("i3")


def test_a_store_opens_as_it_was_built(frame: pl.DataFrame, tmp_path: Path) -> None:
    built, opened = build_store(frame, tmp_path / "store", 32), PixelStore.open(tmp_path / "store")
    assert opened.entries == built.entries
    assert np.array_equal(opened.pixels, built.pixels)
    with pytest.raises(ValueError, match="read-only"):
        opened.pixels[0, 0, 0] = 1


def test_a_second_build_writes_nothing(frame: pl.DataFrame, tmp_path: Path) -> None:
    build_store(frame, tmp_path / "store", 32)
    before = [(tmp_path / "store" / name).stat().st_mtime_ns for name in ("pixels.u8", "meta.json")]
    journal = (tmp_path / "store/journal.jsonl").read_text()
    build_store(frame.head(5), tmp_path / "store", 32)
    assert [(tmp_path / "store" / name).stat().st_mtime_ns for name in ("pixels.u8", "meta.json")] == before
    assert (tmp_path / "store/journal.jsonl").read_text() == journal


def test_a_killed_build_goes_on_where_it_stopped(frame: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CHUNK", 2)
    whole = build_store(frame, tmp_path / "whole", 32)
    build_store(frame, tmp_path / "torn", 32)
    journal = tmp_path / "torn/journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2]) + lines[2][:20])  # killed within the third line
    os.truncate(tmp_path / "torn/pixels.u8", 2 * 32 * 32)
    assert len(PixelStore.open(tmp_path / "torn").entries) == 2
    again = build_store(frame, tmp_path / "torn", 32)
    assert again.entries == whole.entries
    assert np.array_equal(again.pixels, whole.pixels)


def test_a_changed_file_is_read_again_into_its_row(frame: pl.DataFrame, tmp_path: Path) -> None:
    before = build_store(frame, tmp_path / "store", 32)
    file = Path(frame["file"][1])
    stat = file.stat()
    draw(file, 99)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # content counts, never the time
    draw(Path(frame["file"][5]), 7)
    after = build_store(frame, tmp_path / "store", 32)
    assert after.row("i1") == before.row("i1")
    for image in ("i0", "i1", "i5"):
        assert np.array_equal(after.picture(image), expected(frame, image))
    assert after.dropped() == {"i3": "truncated"}


def test_a_picture_that_breaks_later_loses_its_place_in_the_table(frame: pl.DataFrame, tmp_path: Path) -> None:
    build_store(frame, tmp_path / "store", 32)
    Path(frame["file"][0]).write_bytes(b"")
    store = build_store(frame, tmp_path / "store", 32)
    assert store.dropped()["i0"] == "empty_file" and "i0" not in store
    assert np.array_equal(store.picture("i4"), expected(frame, "i4"))


def test_sizes_alone_are_compared_where_content_is_not_verified(frame: pl.DataFrame, tmp_path: Path) -> None:
    before = build_store(frame, tmp_path / "store", 32)
    file = Path(frame["file"][0])
    file.write_bytes(file.read_bytes()[::-1])
    after = build_store(frame, tmp_path / "store", 32, verify=False)
    assert np.array_equal(after.picture("i0"), before.picture("i0"))


def test_a_store_of_another_kind_is_not_written_over(frame: pl.DataFrame, tmp_path: Path) -> None:
    build_store(frame, tmp_path / "store", 32)
    for size, resize in ((64, "squash"), (32, "pad")):
        with pytest.raises(ConfigError, match="another kind"):
            build_store(frame, tmp_path / "store", size, resize)  # type: ignore[arg-type]


def test_two_runs_do_not_fill_one_store(frame: pl.DataFrame, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LockHeld):
            build_store(frame, folder, 32)


def test_damage_is_an_error_not_wrong_pixels(frame: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        PixelStore.open(tmp_path / "store")
    build_store(frame, tmp_path / "store", 32)
    os.truncate(tmp_path / "store/pixels.u8", 100)
    with pytest.raises(ReadError, match="pixels are shorter"):
        PixelStore.open(tmp_path / "store")
    (tmp_path / "store/journal.jsonl").write_text("not json\n")
    with pytest.raises(ReadError, match="journal"):
        PixelStore.open(tmp_path / "store")
    (tmp_path / "store/meta.json").write_text("{}")
    with pytest.raises(ReadError, match=r"meta\.json"):
        PixelStore.open(tmp_path / "store")


def chest_dicom(path: Path, values: np.ndarray, *, modality: str = "DX", photometric: str = "MONOCHROME2") -> None:
    """A 12-bit radiograph as DICOM, explicit VR little endian."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    data.StudyInstanceUID, data.SeriesInstanceUID = (generate_uid(entropy_srcs=[path.name, part]) for part in ("study", "series"))
    data.Modality, data.PatientID, data.BodyPartExamined, data.ViewPosition = modality, "P1", "CHEST", "PA"
    data.PresentationIntentType, data.PhotometricInterpretation, data.SamplesPerPixel = "FOR PRESENTATION", photometric, 1
    data.Rows, data.Columns = values.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.WindowCenter, data.WindowWidth = 2048, 4096
    data.PixelData = values.astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)


def test_dicom_files_are_read_bone_bright_and_refused_by_their_headers(tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 5), dtype=np.uint8)
    bright = np.asarray(Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC)).astype(np.uint16) * 16
    chest_dicom(tmp_path / "plain", bright)
    chest_dicom(tmp_path / "inverse", 4095 - bright, photometric="MONOCHROME1")
    chest_dicom(tmp_path / "scan", bright, modality="CT")
    draw(tmp_path / "picture.png", 3)
    names = ["plain", "picture.png", "inverse", "scan"]
    frame = pl.DataFrame({"image": names, "file": [str(tmp_path / name) for name in names]})
    store = build_store(frame, tmp_path / "store", 32)
    assert store.dropped() == {"scan": "wrong_modality"}
    small = np.asarray(Image.fromarray((bright / 16).astype(np.uint8)).resize((32, 32), Image.Resampling.LANCZOS))
    for name in ("plain", "inverse"):
        assert np.abs(store.picture(name).astype(int) - small).mean() < 3
    assert np.array_equal(store.picture("picture.png"), expected(frame, "picture.png"))
