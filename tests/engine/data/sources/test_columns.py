from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from engine.data.sources.columns import read_columns
from engine.errors import ConfigError, InputMissing, ReadError


def test_cells_are_texts_and_blanks_are_null(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('x,y,z\n010,,"a\nb"\n-1.0,nan,\n')
    frame = read_columns(tmp_path / "a.csv", ["z", "x"], ["w", "y"])
    assert frame.rows() == [("a\nb", "010", None, None), (None, "-1.0", None, "nan")]


def test_a_gzipped_table_is_found_under_its_plain_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"x\n1\n"))
    assert read_columns(tmp_path / "a.csv", ["x"])["x"].to_list() == ["1"]


def test_a_missing_a_cut_off_and_another_table_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"a\.csv is not there"):
        read_columns(tmp_path / "a.csv", ["x"])
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"x\n1\n")[:-9])
    with pytest.raises(ReadError, match=r"a\.csv\.gz cannot be read"):
        read_columns(tmp_path / "a.csv", ["x"])
    (tmp_path / "a.csv").write_text("x\nsecret,more\n")
    with pytest.raises(ReadError) as caught:
        read_columns(tmp_path / "a.csv", ["x"])
    assert "secret" not in str(caught.value)
    (tmp_path / "a.csv").write_text("x\n1\n")
    with pytest.raises(ConfigError, match="no column y, z"):
        read_columns(tmp_path / "a.csv", ["x", "y", "z"])
