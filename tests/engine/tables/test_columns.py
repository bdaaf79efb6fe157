"""Cells that are safe to open, tables that read back, and the sentence in all of them."""

import csv

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.tables.columns import (
    FORMULA_STARTS,
    NOTICE,
    check_findings,
    file_hash,
    image_schema,
    neutral,
    plain_code,
    study_schema,
    write_csv,
    write_parquet,
)


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_no_cell_is_a_formula(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    write_csv(pl.DataFrame({"x": [text, "plain", None], "y": [1, 2, 3]}), path)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert len(rows) == 4
    assert rows[1][0] == neutral(text)
    assert not rows[1][0].startswith(FORMULA_STARTS)
    assert rows[2][0] == "plain"


def test_names_of_columns_are_cells_too_and_quotes_stay_exact(tmp_path):
    name = 'quote " comma , line\nbreak é'
    write_csv(pl.DataFrame({"=1+1": ["a"], name: [0.5]}), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows == [["'=1+1", name, NOTICE], ["a", "0.500000", ""]]


def test_negative_numbers_stay_numbers(tmp_path):
    write_csv(pl.DataFrame({"x": [-0.5]}), tmp_path / "a.csv")
    assert pl.read_csv(tmp_path / "a.csv")["x"].to_list() == [-0.5]


def test_the_notice_stands_in_empty_tables_too(tmp_path):
    empty = pl.DataFrame(schema=study_schema(["Edema"]))
    write_csv(empty, tmp_path / "a.csv")
    write_parquet(empty, tmp_path / "a.parquet")
    assert (tmp_path / "a.csv").read_text() == f"study,n_images,Edema,flags,{NOTICE}\n"
    assert pl.read_parquet_metadata(tmp_path / "a.parquet")["notice"] == NOTICE
    assert pl.read_parquet(tmp_path / "a.parquet").schema == pl.Schema(study_schema(["Edema"]))


def test_columns_stand_in_the_promised_order():
    assert list(study_schema(["Edema", "Fracture"])) == ["study", "n_images", "Edema", "Fracture", "flags"]
    assert list(image_schema(["Edema"]))[:6] == ["image", "study", "content_hash", "outcome", "reason", "detail"]
    assert list(image_schema(["Edema"]))[-1] == "Edema"


def test_a_finding_may_not_be_called_like_a_column():
    check_findings(["Edema"])
    with pytest.raises(ConfigError, match="path, study"):
        check_findings(["study", "Edema", "path"])


@pytest.mark.parametrize(("text", "code"), [("PA", "PA"), (" DX ", "DX"), ("1.2.840", "1.2.840"), ("", None), (None, None)])
def test_a_code_is_repeated(text, code):
    assert plain_code(text) == code


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "<script>", "DOE^JOHN", "a\x1b[31m", "x" * 65, "größe"])
def test_what_is_no_code_is_not_repeated(text):
    assert plain_code(text) is None


def test_a_hash_is_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
