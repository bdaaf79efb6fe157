"""Files of mmclip in an output folder, told from a user's by name."""

from pathlib import Path

import pytest

from engine.tables.own_files import is_own_file

OUT = Path("/data/out")


@pytest.mark.parametrize(
    "name",
    [
        "scores.csv", "images.parquet", "run.json", "log.jsonl", "report.html", ".lock", "private/files.parquet", "private/heatmaps/ab.png",
        "table/0123456789abcdef/shard-1-2.parquet", "private/table/0123456789abcdef/part-1-2.parquet", ".scores.csv.77.part",
        "pictures-0123/pixels.u8", "curve.svg",
    ],
)  # fmt: skip
def test_results_shards_and_temporary_files_are_ours(name):
    assert is_own_file(OUT / name, OUT)


@pytest.mark.parametrize(
    "name",
    [
        "1.dcm",
        "scores.dcm",
        "private/1.dcm",
        "table/1.dcm",
        "sub/scores.csv",
        "private/heatmaps/1.dcm",
        "table/short/shard-1.parquet",
        "images/1.csv",
    ],
)
def test_a_user_s_files_are_not(name):
    assert not is_own_file(OUT / name, OUT)


def test_a_file_elsewhere_is_not():
    assert not is_own_file(Path("/data/in/scores.csv"), OUT)
