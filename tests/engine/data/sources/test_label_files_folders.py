from __future__ import annotations

import zipfile
from pathlib import Path

import polars as pl

from engine.data.sources.label_files import found_files


def table(*rows: tuple[str, str, str | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"folder": pl.String, "image": pl.String, "reason": pl.String}, orient="row")


def test_a_folder_goes_before_its_zip_and_members_may_lie_in_folders(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.png").touch()
    with zipfile.ZipFile(tmp_path / "0.zip", "w") as archive:
        archive.writestr("0/a.png", "other")
        archive.writestr("0/b.png", "b")
    found = found_files(table(("0", "a.png", None), ("0", "b.png", None), ("0", "c.png", None), ("9", "d.png", None)), tmp_path)
    assert found["file"].to_list() == [f"{tmp_path}/{name}" for name in ("0/a.png", "0.zip/0/b.png", "0/c.png", "9/d.png")]
    assert found["reason"].to_list() == [None, None, "file_missing", "file_missing"]


def test_rows_that_have_a_reason_keep_it(tmp_path: Path) -> None:
    found = found_files(table(("0", "a.png", "lateral_view"), ("0", "b.png", None)), tmp_path)
    assert found["reason"].to_list() == ["lateral_view", "file_missing"]
