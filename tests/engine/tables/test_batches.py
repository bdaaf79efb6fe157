"""Tables that come in batches are the tables they would be at once, and need no more memory for being longer."""

import subprocess
import sys

import polars as pl
import pytest

from engine.tables.batches import Batches, batches_of

SCHEMA = {"a": pl.Int64, "b": pl.String}
FRAME = pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]}, schema=SCHEMA)


@pytest.fixture
def table():
    return Batches(SCHEMA, lambda: iter([FRAME.head(2), FRAME.tail(1)]))


def test_batches_are_gone_through_as_often_as_is_asked(table):
    assert table.frame().equals(FRAME)
    assert table.frame().equals(FRAME)
    assert batches_of(FRAME).frame().equals(FRAME)
    assert batches_of(table) is table


def test_no_rows_are_a_table_all_the_same():
    assert Batches(SCHEMA, list).frame().schema == pl.Schema(SCHEMA)
    assert Batches(SCHEMA, list).lazy().collect().schema == pl.Schema(SCHEMA)


def test_every_batch_is_changed(table):
    assert table.changed(lambda frame: frame.with_columns(pl.col("a") * 2)).frame()["a"].to_list() == [2, 4, 6]


def test_polars_may_ask_for_rows_and_columns(table):
    assert table.lazy().filter(pl.col("a") > 1).select("b").collect()["b"].to_list() == [None, "z"]
    assert table.lazy().head(1).collect().equals(FRAME.head(1))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in kilobytes on Linux")
def test_a_long_table_is_written_without_being_held(tmp_path):
    code = f"""if True:
        import pathlib, resource, sys
        import polars as pl
        from engine.tables.batches import Batches
        from engine.tables.columns import write_csv
        from engine.tables.columns import write_parquet
        text = pl.int_range(1024, eager=True).cast(pl.String).str.pad_start(200, "0")
        def write(batches):
            table = Batches({{"text": pl.String}}, lambda: (pl.DataFrame({{"text": text}}) for _ in range(batches)))
            write_parquet(table, pathlib.Path({str(tmp_path)!r}, "a.parquet"))
            write_csv(table, pathlib.Path({str(tmp_path)!r}, "a.csv"))
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = write(40)
        print(write(400) - before)
    """
    grown = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert grown < 30_000, "of 80 MB, in kilobytes"
    assert pl.scan_parquet(tmp_path / "a.parquet").select(pl.len()).collect().item() == 400 * 1024
