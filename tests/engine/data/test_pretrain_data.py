from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from PIL import Image

from engine.data.entities import Recogniser, load_recogniser
from engine.data.pretrain_data import recogniser_of, summary, training_images, words
from engine.errors import ConfigError
from engine.model.tokenizer import train_tokenizer
from engine.recipe.pretraining import PretrainRecipe

TEXTS = {"a": ("no effusion", "lungs are clear"), "b": ("pneumonia and effusion", "lungs are clear")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures of three patients: two with a report each and one without."""
    rows = ["file,study,patient,report"]
    for number in range(6):
        pixels = np.arange(70 * 70, dtype=np.uint16).reshape(70, 70) // (number + 4)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,s{number // 2},p{number // 2},{['No effusion.', 'Pneumonia.', ''][number // 2]}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def recipe(folder: Path, **changes: Any) -> PretrainRecipe:
    sources = [{"kind": "table", "file": str(folder / "table.csv")}]
    settings = {"version": 1, "sources": sources, "steps": 1, "store_size": 16, "tokenizer": {"vocab": 300}}
    return PretrainRecipe.model_validate(settings | changes)


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "FINDING", "pattern": "effusion"}])
    nlp.to_disk(folder := tmp_path_factory.mktemp("ruler"))
    return load_recogniser(str(folder))


def test_pictures_texts_and_pools_of_a_table(folder, tmp_path):
    found = training_images(recipe(folder), tmp_path / "data", verify=True)
    assert found.frame["paired"].to_list() == [True] * 4 + [False] * 2
    assert sorted(text for texts in found.texts.values() for text in texts) == ["No effusion.", "Pneumonia."]
    assert found.store.picture("0.png").shape == (16, 16)
    assert found.dropped == {}


def test_no_word_of_a_held_out_or_unpaired_image_is_learned_from(tmp_path):
    rows = ["file,patient,report"]
    for number in range(20):
        Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,p{number},Report {number}.")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    source = {"kind": "table", "file": str(tmp_path / "table.csv"), "split": {"train": 0.5}, "unpaired_share": 0.5}
    found = training_images(recipe(tmp_path, sources=[source]), tmp_path / "data", verify=True)
    learned = {text for texts in found.texts.values() for text in texts}
    for row in found.table.frame.iter_rows(named=True):
        assert not row["report"] or (row["report"] in learned) == (row["paired"] and not row["held_out"])
    assert 0 < len(learned) < 20


def test_the_content_hash_follows_pictures_words_and_pools_and_no_path(folder, tmp_path):
    def content() -> str:
        return training_images(recipe(folder), tmp_path / "data", verify=True).content_hash

    first = content()
    assert content() == first
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folder.glob("*.*"):
        (moved / file.name).write_bytes(file.read_bytes())
    assert training_images(recipe(moved), tmp_path / "data", verify=True).content_hash == first
    table = (folder / "table.csv").read_text()
    (folder / "table.csv").write_text(table.replace("Pneumonia", "Oedema"))
    words_changed = content()
    (folder / "table.csv").write_text(table)
    (folder / "0.png").write_bytes((folder / "5.png").read_bytes())
    pixels_changed = content()
    assert len({first, words_changed, pixels_changed}) == 3


def test_other_sizes_do_not_share_a_store(folder, tmp_path):
    small = training_images(recipe(folder), tmp_path / "data", verify=True)
    large = training_images(recipe(folder, store_size=20), tmp_path / "data", verify=True)
    assert small.store.folder != large.store.folder
    assert large.store.picture("0.png").shape == (20, 20)


def test_nothing_to_train_on_is_an_error_that_counts_reasons(folder, tmp_path):
    for file in folder.glob("*.png"):
        file.write_bytes(b"no picture at all")
    with pytest.raises(ConfigError, match=r"no image is left to train on: 6 \w+"):
        training_images(recipe(folder), tmp_path / "data", verify=True)


def test_a_kept_bank_is_the_bank_that_was_made(tmp_path, recogniser):
    tokenizer = train_tokenizer(["no effusion", "lungs are clear"], 300, 12)
    made = words(TEXTS, tokenizer, recogniser, 12, tmp_path)
    kept = words(TEXTS, tokenizer, recogniser, 12, tmp_path)
    assert len(list(tmp_path.glob("texts-*.npz"))) == 1
    for name in ("input_ids", "lengths", "entity_ids"):
        assert np.array_equal(getattr(made, name), getattr(kept, name))
    assert {key: places.tolist() for key, places in kept.places.items()} == {"a": [0, 1], "b": [2, 1]}
    assert made.entity_ids.any()


def test_another_text_tokenizer_recogniser_or_length_makes_another_bank(tmp_path, recogniser):
    tokenizer = train_tokenizer(["no effusion"], 300, 12)
    words(TEXTS, tokenizer, recogniser, 12, tmp_path)
    words({"a": ("other words",)}, tokenizer, recogniser, 12, tmp_path)
    words(TEXTS, train_tokenizer(["effusion effusion effusion"], 301, 12), recogniser, 12, tmp_path)
    words(TEXTS, tokenizer, None, 12, tmp_path)
    words(TEXTS, tokenizer, recogniser, 9, tmp_path)
    assert len(list(tmp_path.glob("texts-*.npz"))) == 5


def test_a_damaged_bank_is_made_again(tmp_path, recogniser):
    tokenizer = train_tokenizer(["no effusion"], 300, 12)
    made = words(TEXTS, tokenizer, recogniser, 12, tmp_path)
    file = next(tmp_path.glob("texts-*.npz"))
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(words(TEXTS, tokenizer, recogniser, 12, tmp_path).input_ids, made.input_ids)


def test_no_texts_are_a_bank_too(tmp_path, recogniser):
    tokenizer = train_tokenizer(["no effusion"], 300, 12)
    for _ in range(2):
        bank = words({}, tokenizer, recogniser, 12, tmp_path)
        assert bank.input_ids.shape == (0, 12)
        assert bank.places == {}


def test_what_is_told_of_ready_data_adds_up(folder, tmp_path):
    (folder / "5.png").write_bytes(b"no picture at all")
    told = summary(training_images(recipe(folder), tmp_path / "data", verify=True), 0.5, 1.23456)
    assert (told.images, told.paired, told.unpaired, told.held_out, told.texts) == (5, 4, 1, 0, 2)
    assert sum(told.dropped.values()) == 1
    assert (told.entities, told.seconds) == (0.5, 1.235)


def test_a_recogniser_is_loaded_only_where_a_switch_asks_for_entities(folder, tmp_path):
    absent = {"entities": "no_such_model"}
    assert recogniser_of(recipe(folder, entmlm={"strategy": "random"}, **absent)) is None
    assert recogniser_of(recipe(folder, batch={"paired": 0, "unpaired": 2}, **absent)) is None
    for asks in ({"strategy": "entity"}, {"strategy": "random", "targets": "entities"}):
        with pytest.raises(ConfigError, match="no entity model is called no_such_model"):
            recogniser_of(recipe(folder, entmlm=asks, **absent))
