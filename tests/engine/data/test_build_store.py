from __future__ import annotations

import fcntl
import os
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from engine.data import build_store as filling_module
from engine.data.build_store import StoreProgress, build_store, fill_store
from engine.data.store import PixelStore
from engine.errors import ConfigError, LockHeld
from engine.intake.reader import read_file
from engine.model.preprocessing import resized


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
    reading = read_file(Path(frame.filter(image=image)["file"][0]), size=32, plain_images=True)
    assert reading.image is not None
    return resized(reading.image, 32, "squash")


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


def test_a_second_build_writes_nothing(frame: pl.DataFrame, tmp_path: Path) -> None:
    build_store(frame, tmp_path / "store", 32)
    before = [(tmp_path / "store" / name).stat().st_mtime_ns for name in ("pixels.u8", "meta.json")]
    journal = (tmp_path / "store/journal.jsonl").read_text()
    build_store(frame.head(5), tmp_path / "store", 32)
    assert [(tmp_path / "store" / name).stat().st_mtime_ns for name in ("pixels.u8", "meta.json")] == before
    assert (tmp_path / "store/journal.jsonl").read_text() == journal


def test_a_killed_build_goes_on_where_it_stopped(frame: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling_module, "CHUNK", 2)
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


@pytest.mark.parametrize("verify", [False, True])
def test_a_changed_file_is_read_again_into_its_row(frame: pl.DataFrame, tmp_path: Path, verify: bool) -> None:
    before = build_store(frame, tmp_path / "store", 32)
    draw(Path(frame["file"][1]), 99)
    draw(Path(frame["file"][5]), 7)
    after = build_store(frame, tmp_path / "store", 32, verify=verify)
    assert after.row("i1") == before.row("i1")
    for image in ("i0", "i1", "i5"):
        assert np.array_equal(after.picture(image), expected(frame, image))
    assert after.dropped() == {"i3": "truncated"}


def test_a_change_that_hides_its_size_and_time_is_found_where_content_is_verified(frame: pl.DataFrame, tmp_path: Path) -> None:
    before = build_store(frame, tmp_path / "store", 32)
    file = Path(frame["file"][0])
    stat = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert np.array_equal(build_store(frame, tmp_path / "store", 32).picture("i0"), before.picture("i0"))
    assert "i0" in build_store(frame, tmp_path / "store", 32, verify=True).dropped()


def test_a_picture_that_breaks_later_loses_its_place_in_the_table(frame: pl.DataFrame, tmp_path: Path) -> None:
    build_store(frame, tmp_path / "store", 32)
    Path(frame["file"][0]).write_bytes(b"")
    store = build_store(frame, tmp_path / "store", 32)
    assert store.dropped()["i0"] == "empty_file" and "i0" not in store
    assert np.array_equal(store.picture("i4"), expected(frame, "i4"))


def test_it_tells_how_far_it_is_and_keeps_what_was_done_when_closed(
    frame: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling_module, "CHUNK", 2)
    steps = fill_store(frame, tmp_path / "store", 32, workers=1)
    assert next(steps) == StoreProgress(done=2, total=6, read=2, dropped=0)
    steps.close()
    assert len(PixelStore.open(tmp_path / "store").entries) == 2
    *_, last = fill_store(frame, tmp_path / "store", 32)
    assert last == StoreProgress(done=6, total=6, read=4, dropped=2)
    *_, last = fill_store(frame, tmp_path / "store", 32)
    assert last == StoreProgress(done=6, total=6, read=1, dropped=2)  # the missing file is looked for again


def test_members_of_zips_are_read_in_place(frame: pl.DataFrame, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "0.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in frame["file"][:3]:
            archive.write(file, Path(file).name)
    inside = frame.head(4).with_columns(file=pl.Series([f"{tmp_path}/0.zip/{number}.png" for number in range(4)]))
    store = build_store(inside, tmp_path / "store", 32)
    for image in ("i0", "i1", "i2"):
        assert np.array_equal(store.picture(image), expected(frame, image))
    assert store.dropped() == {"i3": "file_missing"}
    assert build_store(inside.head(3), tmp_path / "store", 32).entries == store.entries


def test_pictures_of_a_store_are_files_too(frame: pl.DataFrame, tmp_path: Path) -> None:
    first = build_store(frame.head(3), tmp_path / "first", 64)
    rows = frame.head(3).with_columns(file=pl.Series([f"{tmp_path}/first/pixels.u8/{number}" for number in (2, 0, 3)]))
    second = build_store(rows, tmp_path / "second", 64)
    assert np.array_equal(second.picture("i0"), first.picture("i2"))
    assert np.array_equal(second.picture("i1"), first.picture("i0"))
    assert second.dropped() == {"i2": "file_missing"}


def test_a_picture_that_was_never_fetched_says_so(frame: pl.DataFrame, tmp_path: Path) -> None:
    Path(frame["file"][2]).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    assert build_store(frame, tmp_path / "store", 32).dropped()["i2"] == "lfs_pointer"


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
