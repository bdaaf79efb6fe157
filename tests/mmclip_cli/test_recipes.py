"""`mmclip recipes`, through the installed command."""

import json

from engine.recipe import recipe_names, shipped_recipes


def test_list_names_every_shipped_recipe(mmclip):
    done = mmclip("recipes", "list")
    assert done.returncode == 0
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["name", "kind", "version", "source"]
    assert [line.split()[0] for line in lines] == recipe_names()


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
    assert done.stdout.count("without fault") == len(recipe_names())


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


def test_show_of_a_row_prints_its_text_then_the_merged_recipe(mmclip):
    shown = mmclip("recipes", "show", "paper/table3_report").stdout
    assert shown.startswith("# Table III")
    whole = shown.split("paper/table3_report, merged with its base")[1]
    assert "strategy: report" in whole
    assert "iterations: 15000" in whole
    assert "base:" not in whole


def test_check_tells_in_what_a_row_differs_from_its_base(mmclip):
    done = mmclip("recipes", "check", "paper/table3_report", "paper/table4_entity")
    assert "  paper/table3_attmim, with attmim.strategy: attmim -> report" in done.stdout.splitlines()
    assert [line.split(":")[0] for line in done.stdout.splitlines() if not line.startswith(" ")][1:] == [
        f"paper/table4_entity@{ratio}" for ratio in (0.1, 0.2, 0.3, 0.5)
    ]


def test_check_names_the_base_s_file_where_the_fault_is_there(mmclip):
    (mmclip.folder / "below.yaml").write_text("version: 1\nsteps: ten\n")
    (mmclip.folder / "own.yaml").write_text(
        "version: 1\nbase: below.yaml\nsources: [{kind: table, file: a.csv}]\ntokenizer: {vocab: 512}\n"
    )
    done = mmclip("recipes", "check", "own.yaml")
    assert done.stdout.splitlines()[1] == "  below line 2: steps: 'ten' should be a whole number"


def test_a_point_of_a_sweep_is_a_recipe_to_run(mmclip):
    (mmclip.folder / "own.yaml").write_text("version: 1\nbase: tiny\nsources: [{file: a.csv, kind: table}]\nsweep: {seed: [1, 2]}\n")
    done = mmclip("pretrain", "own.yaml", "--dry-run")
    assert (done.returncode, "recipe own.yaml is a sweep" in done.stderr) == (2, True)
    done = mmclip("pretrain", "own.yaml@2", "--dry-run")
    assert (done.returncode, "table a.csv is missing" in done.stderr) == (66, True)


def test_check_with_a_model_names_phrases_that_it_cuts_and_refuses_those_it_cannot_tell_apart(mmclip):
    long = "there is " + "dense and patchy air space " * 12 + "opacity"
    findings = {"Long": {"positive": [long], "negative": ["clear"]}, "Edema": {"positive": ["edema"], "negative": ["no edema"]}}
    (mmclip.folder / "long.yaml").write_text(json.dumps({"version": 1, "findings": findings}))
    done = mmclip("recipes", "check", "long.yaml", "--model", "tiny")
    assert done.returncode == 0 and "warning: 1 phrase is longer than the 56 tokens of tiny" in done.stdout
    findings["Long"]["negative"] = [long.replace("opacity", "clearing")]
    (mmclip.folder / "long.yaml").write_text(json.dumps({"version": 1, "findings": findings}))
    done = mmclip("recipes", "check", "long.yaml", "--model", "tiny", "--json")
    (report,) = json.loads(done.stdout)["recipes"]
    assert done.returncode == 78 and "same to the model tiny" in report["faults"][0]["message"]
    assert mmclip("recipes", "check", "long.yaml").returncode == 0
