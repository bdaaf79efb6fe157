"""`mmclip recipes`, through the installed command."""

import json

from engine.recipe import recipe_name, shipped_recipes


def test_list_names_every_shipped_recipe(mmclip):
    done = mmclip("recipes", "list")
    assert done.returncode == 0
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["name", "kind", "version", "source"]
    assert [line.split()[0] for line in lines] == [recipe_name(path) for path in shipped_recipes()]


def test_list_for_machines(mmclip):
    found = json.loads(mmclip("recipes", "list", "--json").stdout)["recipes"]
    assert {each["name"]: each["kind"] for each in found}["mimic_padchest"] == "pretraining"


def test_show_prints_the_recipe_as_it_is_written(mmclip):
    (path,) = (path for path in shipped_recipes() if path.stem == "mimic_padchest")
    assert mmclip("recipes", "show", "mimic_padchest").stdout == path.read_text("utf-8")


def test_show_for_machines_is_whole_and_takes_settings(mmclip):
    found = json.loads(mmclip("recipes", "show", "mimic_padchest.yaml", "--json", "--set", "optimizer.lr=1e-3").stdout)
    assert found["recipe"]["optimizer"]["lr"] == 1e-3
    assert found["recipe"]["optimizer"]["clip_norm"] is None  # a default that the file leaves out


def test_show_with_settings_but_without_json_is_a_usage_error(mmclip):
    assert mmclip("recipes", "show", "mimic_padchest", "--set", "steps=1").returncode == 2


def test_check_of_all_shipped_recipes_finds_no_fault(mmclip):
    done = mmclip("recipes", "check")
    assert done.returncode == 0
    assert done.stdout.count("without fault") == len(shipped_recipes())


def test_check_says_which_data_are_not_there(mmclip):
    found = json.loads(mmclip("recipes", "check", "mimic_padchest", "--json").stdout)["recipes"]
    assert [piece.split(":")[0] for piece in found[0]["absent"]][::2] == ["sources.0.root", "sources.0.jpg_root", "sources.1.root"]


def test_check_reports_every_fault_with_its_line(mmclip):
    (mmclip.folder / "own.yaml").write_text("version: 1\nsteps: ten\nsteps: 5\nbatch: {pared: 4}\n")
    done = mmclip("recipes", "check", "own.yaml")
    assert done.returncode == 78
    assert done.stdout.splitlines() == [
        "own.yaml: 4 faults",
        "  line 1: sources: missing",
        "  line 2: steps: 'ten' should be a whole number",
        "  line 3: steps: given twice, first on line 2",
        "  line 4: batch.pared: unknown key; did you mean batch.paired?",
    ]


def test_check_of_several_goes_on_after_a_missing_one(mmclip):
    done = mmclip("recipes", "check", "nothing", "chest14", "--json")
    assert done.returncode == 66
    assert [bool(each["faults"]) for each in json.loads(done.stdout)["recipes"]] == [True, False]
