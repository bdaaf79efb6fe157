"""Labelled pictures and their batches."""

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from engine.data.build_store import build_store
from engine.data.finetune_data import LabelledBatches, labelled_images
from engine.data.finetune_plan import finetune_table
from engine.data.label_fractions import labels_of
from engine.errors import ConfigError
from engine.recipe.finetuning import FinetuneRecipe

SIDE = 72


def drawn(number):
    """A picture whose first pixel is `number`."""
    picture = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE), dtype=np.uint8)
    picture[0, 0] = number
    return picture


@pytest.fixture
def recipe(tmp_path):
    """Twelve patients with a picture each in a table that writes its labels as tables do; one file is no picture."""
    rows = ["Edema,patient,file,Cardiomegaly"]
    for number in range(12):
        Image.fromarray(drawn(number)).save(tmp_path / f"{number}.png")
        rows.append(f"{number % 2}.0,p{number},{number}.png,{['', '-1', '1'][number % 3]}")
    (tmp_path / "12.png").write_bytes(b"no picture at all")
    rows.append("1,p12,12.png,0")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")

    def recipe(**changes):
        source = {"kind": "table", "file": str(tmp_path / "table.csv"), "split": {"train": 0.7}, **changes.pop("source", {})}
        return FinetuneRecipe.model_validate({"version": 1, "sources": [source], "validation": {"share": 0.4}, **changes})

    return recipe


def labelled(recipe, folder, **options):
    return labelled_images(recipe, finetune_table(recipe), folder, **options)


def test_labels_are_found_by_name_and_what_is_uncertain_is_unknown(recipe, tmp_path):
    found = labelled(recipe(), tmp_path / "data", size=16, resize="squash", verify=True)
    assert set(found.findings) == {"Edema", "Cardiomegaly"}
    assert list(found.dropped.values()) == [1]
    frame = found.split.frame.sort(pl.col("patient").str.extract(r"(\d+)$").cast(pl.Int32))
    known = labels_of(frame, ("Edema", "Cardiomegaly"))
    np.testing.assert_array_equal(known[:, 0], [0, 1] * 6)
    np.testing.assert_array_equal(known[:, 1], [np.nan, np.nan, 1] * 4)
    assert found.seen.size == 16
    assert found.views is found.seen


def test_the_hash_is_of_what_is_learned_from_and_of_no_path(recipe, tmp_path):
    def found(**changes):
        return labelled(recipe(**changes), tmp_path / "data", size=16, resize="squash", verify=True)

    assert found().content_hash == found(store_size=18).content_hash
    assert found(findings=["Edema"]).content_hash != found().content_hash
    told = found().prepared(1.5)
    assert sum(told.images.values()) == sum(told.patients.values()) == 12
    assert (told.findings, told.disagreeing, told.seconds) == (found().findings, 0, 1.5)


def test_views_have_a_store_of_their_own_where_the_recipe_asks_and_the_tower_learns(recipe, tmp_path):
    full = labelled(recipe(store_size=18), tmp_path / "data", size=16, resize="squash", verify=True)
    linear = labelled(recipe(store_size=18, mode="linear"), tmp_path / "data", size=16, resize="squash", verify=True)
    assert (full.views.size, full.seen.size, linear.views.size) == (18, 16, 16)


def test_a_table_without_findings_says_so(recipe, tmp_path):
    blind = recipe(source={"rename": {"Edema": None, "Cardiomegaly": None}})
    with pytest.raises(ConfigError, match="label no finding"):
        labelled(blind, tmp_path / "data", size=16, resize="squash", verify=True)


def test_a_finding_that_is_not_there_is_named_beside_those_that_are(recipe, tmp_path):
    with pytest.raises(ConfigError, match=r"no column Oedema .did you mean 'Edema'.*: it has Edema, Cardiomegaly"):
        labelled(recipe(findings=["Oedema"]), tmp_path / "data", size=16, resize="squash", verify=True)


@pytest.fixture
def batches(tmp_path):
    names = []
    for number in range(7):
        Image.fromarray(drawn(number)).save(tmp_path / f"{number}.png")
        names.append(f"{number}.png")
    store = build_store(pl.DataFrame({"image": names, "file": [str(tmp_path / name) for name in names]}), tmp_path / "store", SIDE)
    labels = np.arange(7, dtype=np.float32)[:, None]

    def batches(batch=3, seed=0):
        return LabelledBatches(store, names, labels, batch=batch, seed=seed)

    return batches


def test_an_epoch_shows_every_image_once_with_its_own_label(batches):
    stream = batches()
    assert len(stream) == 3
    seen = torch.cat([stream.at(step)["images"][:, 0, 0] for step in range(7)])  # 21 places: three epochs
    told = torch.cat([stream.at(step)["labels"][:, 0] for step in range(7)])
    assert torch.equal(seen.float(), told)
    for epoch in seen.split(7):
        assert sorted(epoch.tolist()) == list(range(7))


def test_a_batch_depends_on_seed_and_step_alone(batches):
    forwards = [batches().at(step)["labels"] for step in range(5)]
    stream = batches()
    for step in reversed(range(5)):
        assert torch.equal(stream.at(step)["labels"], forwards[step])
    assert any(not torch.equal(batches(seed=1).at(step)["labels"], forwards[step]) for step in range(5))


def test_a_batch_larger_than_the_part_holds_images_again(batches):
    assert sorted(batches(batch=14).at(0)["labels"][:, 0].tolist()) == sorted([*range(7), *range(7)])
