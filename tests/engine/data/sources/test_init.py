from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.data.sources import read_sources
from engine.errors import ConfigError
from engine.recipe import load_recipe
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.sources import MimicSource, TableSource

FREE = {"CC BY 4.0", "CC BY 3.0", "CC BY", "NIH, free use with attribution"}


def test_one_source_is_its_own_table(make_table: Any) -> None:
    path = make_table([{"file": "a.png"}, {"file": "b.png"}])
    assert read_sources([TableSource(file=str(path))]).frame["image"].to_list() == ["a.png", "b.png"]


def test_a_published_data_set_that_is_not_there_is_an_error_before_any_table_is_read(tmp_path: Path) -> None:
    sources = [TableSource(file=str(tmp_path / "none.csv")), MimicSource(kind="mimic_cxr", root=str(tmp_path / "mimic"))]
    with pytest.raises(ConfigError):
        read_sources(sources)


def test_the_shipped_model_learns_from_freely_licensed_images_alone() -> None:
    recipe = load_recipe("tiny", PretrainRecipe)
    for source in recipe.sources:
        assert isinstance(source, TableSource)
        assert set(source.where["license"]) <= FREE
    kermany, nih, _ = recipe.sources
    assert isinstance(kermany, TableSource) and isinstance(nih, TableSource)
    assert nih.split.train == 0.7
    assert 0 < kermany.split.train < 1


def test_both_recipes_keep_the_same_patients_unseen() -> None:
    tiny, notes = load_recipe("tiny", PretrainRecipe), load_recipe("notes", PretrainRecipe)
    assert tiny.sources[:2] == notes.sources[:2]
