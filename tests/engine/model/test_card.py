from engine.model.card import first_card, portable_recipe


def test_a_first_card_says_what_is_known_and_that_nothing_was_judged(make_recipe):
    card = first_card(make_recipe(seed=7), steps=5, paired=3, unpaired=2, data_hash="d" * 64, recipe_hash="r" * 64)
    assert card.startswith("RESEARCH USE ONLY - not for clinical use.")
    assert "5 steps of 64 images with a report and 64 without, seed 7" in card
    assert "Images: 3 with words" in card
    assert f"data {'d' * 12}, recipe {'r' * 12}." in card
    assert "Not evaluated" in card


def test_a_recipe_leaves_its_machine_without_its_paths():
    recipe = {
        "sources": [{"kind": "table", "file": "/home/me/table.csv", "root": "data"}],
        "model": {"init": "/models/clip"},
        "entities": "/ner/x",
    }
    assert portable_recipe(recipe) == {
        "sources": [{"kind": "table", "file": "table.csv", "root": "data"}],
        "model": {"init": "clip"},
        "entities": "x",
    }
