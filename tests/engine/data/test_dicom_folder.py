from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import dicom_folder
from engine.data.build_store import StoreProgress
from engine.data.dicom_folder import Ingested, ingest_folder
from engine.data.sources.image_table import COLUMNS
from engine.data.store import PixelStore
from engine.intake.files import input_files
from engine.tables.identity import Names

NAMES = Names(b"a site's key")


@pytest.fixture
def scans(tmp_path: Path, make_studies: Any) -> Path:
    """Three radiographs of two patients, a copy of one of them, a torn file, and a text."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, name in enumerate(["a", "b", "c"]):
        stored = make_studies.draw_chest("clear", np.random.default_rng(number))[::4, ::4]
        data = make_studies.chest_dataset(stored, name, make_studies.SYNTAXES[0])
        data.PatientID = "CANARY1" if number < 2 else "CANARY2"
        data.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    shutil.copyfile(folder / "a.dcm", folder / "copy.dcm")
    (folder / "torn.dcm").write_bytes((folder / "b.dcm").read_bytes()[:-9000])
    (folder / "Thumbs.db").write_text("junk")
    return folder


def steps(scans: Path, out: Path, **keys: Any) -> Iterator[Any]:
    (out / "private").mkdir(parents=True, exist_ok=True)
    items = input_files([scans], {})
    return ingest_folder(items, NAMES, out / "pictures", 32, "squash", workers=1, **keys)


def whole(scans: Path, out: Path, **keys: Any) -> tuple[Ingested, StoreProgress]:
    last = StoreProgress(0, 0, 0, 0)
    generator = steps(scans, out, **keys)
    while True:
        try:
            last = next(generator)
        except StopIteration as end:
            return end.value, last


def test_every_file_has_a_row_and_every_radiograph_its_picture(scans: Path, tmp_path: Path) -> None:
    found, filled = whole(scans, tmp_path / "out")
    assert found.private["reason"].to_list() == ["os_junk", None, None, None, "same_pixels", "truncated"]
    assert filled == StoreProgress(done=5, total=5, read=5, dropped=2)
    assert found.frame.columns[: len(COLUMNS)] == list(COLUMNS)
    assert found.frame["patient"].n_unique() == 2 and found.frame["study"].n_unique() == 3
    store = PixelStore.open(tmp_path / "out/pictures")
    assert found.frame["file"].to_list() == [f"pictures/pixels.u8/{store.row(image)}" for image in found.frame["image"]]
    assert store.pixels.shape == (3, 32, 32)


def test_no_identifier_and_no_path_leaves_the_private_folder(scans: Path, tmp_path: Path) -> None:
    found, _ = whole(scans, tmp_path / "out")
    for file in (tmp_path / "out/pictures").iterdir():
        assert b"CANARY" not in file.read_bytes() and b"scans" not in file.read_bytes()
    said = repr(found.frame.to_dicts())
    assert not any(word in said for word in ("CANARY", "scans", ".dcm", "1.2.826"))
    assert set(found.private["patient"].drop_nulls()) == {"CANARY1", "CANARY2"}
    halves = [*(tmp_path / "out/table").rglob("*.parquet"), *(tmp_path / "out/private").rglob("*.parquet")]
    assert [b"CANARY" in file.read_bytes() for file in halves] == [False, True]
    assert halves[1].stat().st_mode & 0o777 == 0o600


def test_a_second_run_reads_nothing_and_finds_the_same(scans: Path, tmp_path: Path) -> None:
    first, _ = whole(scans, tmp_path / "out")
    pixels = PixelStore.open(tmp_path / "out/pictures").pixels.copy()
    for verify in (False, True):
        again, filled = whole(scans, tmp_path / "out", verify=verify)
        assert filled.read == 0
        assert again.frame.equals(first.frame) and again.private.equals(first.private)
        assert np.array_equal(PixelStore.open(tmp_path / "out/pictures").pixels, pixels)


def test_a_closed_run_goes_on_where_it_was(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_folder, "CHUNK", 2)
    begun = steps(scans, tmp_path / "out")
    assert next(begun).done == 2
    begun.close()  # type: ignore[attr-defined]
    found, filled = whole(scans, tmp_path / "out")
    assert filled.read == 3
    fresh, _ = whole(scans, tmp_path / "other")
    assert found.frame.equals(fresh.frame) and found.private.equals(fresh.private)
    assert whole(scans, tmp_path / "out")[1].read == 0


def test_a_changed_file_is_read_again(scans: Path, tmp_path: Path, make_studies: Any) -> None:
    before, _ = whole(scans, tmp_path / "out")
    picture = PixelStore.open(tmp_path / "out/pictures").picture(before.frame["image"][1]).copy()
    make_studies.chest_dataset(
        make_studies.draw_chest("wide heart", np.random.default_rng(9))[::4, ::4], "b", make_studies.SYNTAXES[0]
    ).save_as(scans / "b.dcm", enforce_file_format=True)
    after, filled = whole(scans, tmp_path / "out")
    assert filled.read == 1
    assert after.frame["image"].to_list() == before.frame["image"].to_list()
    assert not np.array_equal(PixelStore.open(tmp_path / "out/pictures").picture(after.frame["image"][1]), picture)


def test_where_the_first_copy_is_gone_the_second_stands_for_it(scans: Path, tmp_path: Path) -> None:
    before, _ = whole(scans, tmp_path / "out")
    pixels = PixelStore.open(tmp_path / "out/pictures").pixels.copy()
    (scans / "a.dcm").unlink()
    after, _ = whole(scans, tmp_path / "out")
    assert set(after.frame["image"]) == set(before.frame["image"])
    assert np.array_equal(PixelStore.open(tmp_path / "out/pictures").pixels, pixels)


def test_a_folder_without_radiographs_is_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found, filled = whole(tmp_path / "empty", tmp_path / "out")
    assert filled == StoreProgress(0, 0, 0, 0)
    assert found.frame.is_empty() and list(COLUMNS) == found.frame.columns[: len(COLUMNS)]
