"""What every source yields."""

import polars as pl

from engine.data.sources.image_table import COLUMNS, DROPS, ImageTable, drops


def table(source, *files):
    rows = [{"image": file, "file": f"/{file}", "source": source, "report_key": "k", "paired": True, "held_out": False} for file in files]
    return ImageTable(pl.DataFrame(rows, schema=COLUMNS), drops([]), (), {"k": ("clear lungs",)}, {"source": source})


def test_an_image_of_two_tables_is_kept_from_the_first():
    joined = ImageTable.joined([table("a", "x.png"), table("b", "x.png", "y.png")])
    assert joined.frame["source"].to_list() == ["a", "b"]
    assert joined.dropped.rows() == [("/x.png", "duplicate_image")]
    assert joined.facts["taken_twice"] == 1


def test_every_reason_is_explained():
    assert all(DROPS.values())
