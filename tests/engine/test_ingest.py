from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.data.pretrain_data import training_images
from engine.data.sources import read_sources
from engine.data.store import PixelStore
from engine.errors import ConfigError, InputMissing, LockHeld, RecipeError, UsageError
from engine.ingest import IngestFinished, IngestPlan, Recognised, ingest
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.sources import TableSource
from engine.tables.atomic import locked
from engine.tables.image_table import UserImageTable

ROWS = [
    {"image": "a", "patient": "10000032", "study": "51", "report": " IMPRESSION: \n Edema.\n"},
    {"image": "b", "patient": "10000032", "study": "52", "view": "LL"},
    {"image": "c", "patient": "11000032", "study": "53", "split": "test"},
]


def run(*inputs: Any, out: Path, **keys: Any) -> dict[str, Any]:
    events = list(ingest(inputs, out, **keys))
    assert isinstance(events[0], Recognised) and isinstance(events[-1], IngestFinished)
    return events[-1].run


@pytest.fixture
def mimic(make_mimic: Callable[..., Any]) -> dict[str, Any]:
    return make_mimic(ROWS)


def test_the_table_of_a_data_set_is_what_recipes_and_scoring_take(mimic: dict[str, Any], tmp_path: Path) -> None:
    record = run(mimic["root"], mimic["jpg_root"], out=tmp_path / "out")
    counts = record["counts"]
    assert counts == counts | {"rows": 3, "images": 2, "dropped": {"lateral_view": 1}, "left_out": 0, "paired": 1, "held_out": 1, "read": 2}
    assert json.loads((tmp_path / "out/run.json").read_text()) == record
    given = UserImageTable(tmp_path / "out/images.parquet").rows()
    assert [Path(row.file).is_file() for row in given] == [True, True]
    table = read_sources([TableSource(file=str(tmp_path / "out/images.parquet"))])
    assert table.frame["report"].to_list() == ["Edema.", ""]
    assert table.frame["held_out"].to_list() == [False, True]
    assert pl.read_parquet(tmp_path / "out/dropped.parquet")["reason"].to_list() == ["lateral_view"]


def test_pretraining_reads_no_picture_again(mimic: dict[str, Any], tmp_path: Path) -> None:
    recipe = {"version": 1, "sources": [mimic], "steps": 1, "store_size": 32, "tokenizer": {"vocab": 300}}
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(recipe))
    run(file, out=tmp_path / "out")
    (store,) = (tmp_path / "out").glob("pictures-*")
    before = (store / "journal.jsonl").read_bytes()
    found = training_images(PretrainRecipe.model_validate(recipe), tmp_path / "out")
    assert found.store.folder == store
    assert (store / "journal.jsonl").read_bytes() == before


def test_a_picture_that_cannot_be_read_is_dropped_and_counted(mimic: dict[str, Any], tmp_path: Path) -> None:
    (file,) = Path(mimic["jpg_root"]).rglob("a.jpg")
    file.write_bytes(file.read_bytes()[:-300])
    counts = run(mimic["jpg_root"], out=tmp_path / "out", settings=[f"sources.0.root={mimic['root']}"])["counts"]
    assert counts["dropped"] == {"lateral_view": 1, "truncated": 1}
    assert counts["rows"] == counts["images"] + sum(counts["dropped"].values()) + counts["left_out"]
    assert pl.read_parquet(tmp_path / "out/images.parquet")["image"].to_list() == ["c"]


def test_a_dry_run_counts_and_writes_nothing(mimic: dict[str, Any], tmp_path: Path) -> None:
    *_, plan = ingest([mimic["root"], mimic["jpg_root"]], tmp_path / "out", dry_run=True)
    assert plan == IngestPlan(images=2, dropped={"lateral_view": 1}, left_out=0)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_dicom_becomes_a_table_without_names(tmp_path: Path, make_studies: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMCLIP_SITE_KEY", "a key")
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(2):
        stored = make_studies.draw_chest("clear", np.random.default_rng(number))[::4, ::4]
        make_studies.chest_dataset(stored, f"n{number}", make_studies.SYNTAXES[0]).save_as(
            scans / f"{number}.dcm", enforce_file_format=True
        )
    (scans / "text.dcm").write_text("no DICOM")
    counts = run(scans, out=tmp_path / "out", settings=["store_size=64"])["counts"]
    assert (counts["rows"], counts["images"], counts["dropped"]) == (3, 2, {"not_dicom": 1})
    assert (tmp_path / "out/private").stat().st_mode & 0o777 == 0o700
    for name in ("images.parquet", "run.json"):
        assert b"SYNTHETIC" not in (tmp_path / "out" / name).read_bytes()
    table = read_sources([TableSource(file=str(tmp_path / "out/images.parquet"))])
    assert len(table.frame) == 2
    store = PixelStore.open(tmp_path / "out/pictures-64-squash")
    assert store.pixels.shape == (2, 64, 64)
    *_, plan = ingest([scans], tmp_path / "out", dry_run=True)
    assert plan == IngestPlan(images=3, dropped={}, left_out=0)


def test_inputs_that_do_not_go_together_are_refused(mimic: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="a recipe says by itself"):
        run("mimic_padchest", mimic["root"], out=out)
    with pytest.raises(UsageError, match="a prompts recipe names no images"):
        run("chest14", out=out)
    with pytest.raises(InputMissing):
        run(tmp_path / "gone", out=out)
    with pytest.raises(UsageError, match="no such key"):
        run(mimic["jpg_root"], out=out, settings=["sources.0.rot=x"])
    with pytest.raises(RecipeError, match="store_size"):
        run(mimic["jpg_root"], out=out, settings=["store_size=-1"])
    with pytest.raises(ConfigError, match=r"sources\.0\.root: no reports there"):
        run(mimic["jpg_root"], out=out)
    assert not out.exists() or not list(out.glob("*.parquet"))


def test_one_run_at_a_time(mimic: dict[str, Any], tmp_path: Path) -> None:
    with locked(tmp_path / "out"), pytest.raises(LockHeld):
        run(mimic["root"], mimic["jpg_root"], out=tmp_path / "out")
