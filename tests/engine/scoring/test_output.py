import hashlib
import json

import polars as pl

from engine.scoring.output import OUTPUTS, add_tables, clear_previous, contents_hash, publish_metrics
from engine.tables.atomic import atomic_group
from engine.tables.batches import Batches, batches_of
from engine.tables.columns import METRIC_COLUMNS, NOTICE, PRIVATE_COLUMNS, image_schema, study_schema
from engine.tables.run_log import publish_run


def publish_all(out):
    (out / "private").mkdir(exist_ok=True)
    with atomic_group() as files:
        add_tables(files, out, *(Batches(schema, list) for schema in (study_schema(["a"]), image_schema(["a"]), PRIVATE_COLUMNS)))
        files.publish()


def test_the_record_has_a_hash_of_every_file(tmp_path):
    publish_all(tmp_path)
    publish_metrics(tmp_path, [dict.fromkeys(METRIC_COLUMNS) | {"finding": "a", "n": 1}], {"rows": 1})
    record = publish_run(tmp_path, {"notice": NOTICE}, OUTPUTS)
    assert json.loads((tmp_path / "run.json").read_text()) == record
    assert set(record["outputs"]) == {
        "scores.csv", "scores.parquet", "images.csv", "images.parquet", "metrics.csv", "metrics.json", "private/files.parquet",
        "private/files.csv",
    }  # fmt: skip
    for name, digest in record["outputs"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    for name in ("files.parquet", "files.csv"):
        assert (tmp_path / "private" / name).stat().st_mode & 0o077 == 0


def test_one_private_sheet_says_whose_a_row_is_and_what_became_of_it(tmp_path):
    (tmp_path / "private").mkdir()
    images = pl.DataFrame(
        [{"image": "i", "study": "s", "outcome": "reject", "reason": "truncated", "flags": ""}, {"image": "j", "outcome": "skip"}],
        schema=image_schema(["a"]),
    )
    private = pl.DataFrame(
        [{"image": "i", "path": "=cmd|x/Müller, 1.dcm", "patient": "@7"}, {"image": "j", "path": "b"}], schema=PRIVATE_COLUMNS
    )
    with atomic_group() as files:
        add_tables(files, tmp_path, *map(batches_of, (pl.DataFrame(schema=study_schema(["a"])), images, private)))
        files.publish()
    raw = (tmp_path / "private" / "files.csv").read_bytes()
    assert raw.startswith("\ufeffimage,path,".encode())  # what tells Excel that this is UTF-8
    sheet = pl.read_csv(tmp_path / "private" / "files.csv")
    assert sheet.columns == [*PRIVATE_COLUMNS, "study", "outcome", "reason", "detail", "flags", NOTICE]
    assert sheet.select("path", "patient", "study", "outcome", "reason").rows() == [
        ("'=cmd|x/Müller, 1.dcm", "'@7", "s", "reject", "truncated"),
        ("b", None, None, "skip", None),
    ]


def test_metrics_read_back_with_their_columns(tmp_path):
    publish_metrics(tmp_path, [dict.fromkeys(METRIC_COLUMNS) | {"finding": "a", "n": 1, "n_positive": 0}], {"rows": 1})
    assert pl.read_csv(tmp_path / "metrics.csv").columns == [*METRIC_COLUMNS, NOTICE]
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"][0]["auroc"] is None


def test_figures_of_an_earlier_run_never_stand_beside_a_later_one(tmp_path):
    publish_all(tmp_path)
    for name in ("metrics.csv", "metrics.json", "report.html", "run.json"):
        (tmp_path / name).write_text("old")
    clear_previous(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "images.csv",
        "images.parquet",
        "scores.csv",
        "scores.parquet",
    ]


def test_the_hash_of_the_inputs_does_not_depend_on_their_order():
    a, b, c = (hashlib.sha256(letter).hexdigest() for letter in (b"a", b"b", b"c"))
    whole = contents_hash([pl.Series([b, None, a]), pl.Series([c])])
    assert whole == contents_hash([pl.Series([c, a, b])]) != contents_hash([pl.Series([a, b])])
    assert whole == hashlib.sha256("".join(f"{each}\n" for each in sorted([a, b, c])).encode()).hexdigest()
    assert contents_hash([]) == hashlib.sha256(b"").hexdigest()
