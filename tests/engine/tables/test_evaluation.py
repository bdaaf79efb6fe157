"""The files of an evaluation."""

import json

import polars as pl

from engine.tables.columns import NOTICE, file_hash
from engine.tables.evaluation import PREDICTIONS, SCHEMAS, clear_evaluation, publish_evaluation, publish_evaluation_record

TABLES = {"metrics": [{"evaluation": "e", "model": "=m", "finding": "Edema", "n": 3, "auroc": 0.5}]}


def test_every_table_is_there_with_its_columns_even_where_it_is_empty(tmp_path):
    publish_evaluation(tmp_path, TABLES, pl.DataFrame(schema=PREDICTIONS), {"counts": 1})
    for name, schema in SCHEMAS.items():
        frame = pl.read_parquet(tmp_path / f"{name}.parquet")
        assert dict(frame.schema) == schema
        assert (tmp_path / f"{name}.csv").read_text().splitlines()[0] == ",".join([*schema, NOTICE])
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"][0]["auroc"] == 0.5


def test_a_name_that_a_spreadsheet_would_run_is_neutralised(tmp_path):
    publish_evaluation(tmp_path, TABLES, pl.DataFrame(schema=PREDICTIONS), {})
    assert "'=m" in (tmp_path / "metrics.csv").read_text()


def test_the_record_hashes_what_is_there_and_goes_first(tmp_path):
    publish_evaluation(tmp_path, TABLES, pl.DataFrame(schema=PREDICTIONS), {})
    record = publish_evaluation_record(tmp_path, {"device": "cpu"})
    assert record["outputs"]["metrics.csv"] == file_hash(tmp_path / "metrics.csv")
    assert "calibration.json" not in record["outputs"]
    (tmp_path / "table").mkdir()
    clear_evaluation(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
