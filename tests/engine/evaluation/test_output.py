"""The files of an evaluation."""

import json

import numpy as np
import polars as pl

from engine.evaluation.output import PREDICTIONS, SCHEMAS, clear_evaluation, predictions_of, publish_evaluation, publish_evaluation_record
from engine.tables.columns import NOTICE, file_hash

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


def test_predictions_have_a_row_for_each_study_and_finding_and_blank_for_unknown():
    scores, labels = np.array([[0.1, 0.9], [0.2, 0.8]]), np.array([[1.0, np.nan], [0.0, 1.0]])
    frame = predictions_of("t", "m", ["a", "b"], ("Edema", "Fracture"), scores, labels)
    assert frame.schema == pl.Schema(PREDICTIONS)
    assert frame.select("study", "finding", "score", "label").rows() == [
        ("a", "Edema", 0.1, 1), ("b", "Edema", 0.2, 0), ("a", "Fracture", 0.9, None), ("b", "Fracture", 0.8, 1),
    ]  # fmt: skip
    assert predictions_of("t", "m", [], (), np.zeros((0, 0)), np.zeros((0, 0))).schema == frame.schema
