"""`mmclip evaluate` as it is typed."""

import json

from mmclip_cli.evaluate import _say_maps


def test_the_paper_s_table_is_printed_whole_without_any_data(mmclip):
    done = mmclip("evaluate", "eval/paper", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "MMCLIP + Ensemble" in done.stdout
    assert "0.9053" in done.stdout
    assert "(1) needs data set chexpert at roots.chexpert" in done.stdout
    assert (mmclip.folder / "mmclip-eval" / "evaluation.html").read_text().startswith("<!doctype html>")
    assert json.loads((mmclip.folder / "mmclip-eval" / "run.json").read_text())["recipe"]["name"] == "eval/paper"


def test_one_recipe_without_its_data_says_which_key_to_set(mmclip):
    done = mmclip("evaluate", "eval/chexpert")
    assert (done.returncode, "needs data set chexpert at sources.0.root" in done.stderr) == (78, True)


def test_a_dry_run_says_what_is_ready_as_json(mmclip):
    done = mmclip("evaluate", "eval/paper", "--dry-run", "--json")
    rows = json.loads(done.stdout)["rows"]
    assert (len(rows), rows[0]["needs"]) == (14, "needs data set chexpert at roots.chexpert")
    assert not (mmclip.folder / "mmclip-eval").exists()


def test_a_recipe_or_scores_with_labels_but_not_both(mmclip):
    for arguments in ((), ("--scores", "a.csv"), ("eval/paper", "--scores", "a.csv", "--labels", "b.csv")):
        assert mmclip("evaluate", *arguments).returncode == 2


def test_scores_and_labels_give_figures_as_json(mmclip):
    rows = [f"s{number},{number / 20},{1 - number / 20}" for number in range(20)]
    (mmclip.folder / "scores.csv").write_text("\n".join(["study,Edema,Pneumonia", *rows]))
    rows = [f"{int(number > 9)},s{number}" for number in range(20)]
    (mmclip.folder / "labels.csv").write_text("\n".join(["edema,study", *rows]))
    done = mmclip("evaluate", "--scores", "scores.csv", "--labels", "labels.csv", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    (edema, _macro) = json.loads(done.stdout)["tables"]["metrics"]
    assert (edema["finding"], edema["auroc"], edema["n_positive"]) == ("Edema", 1.0, 10)


def test_what_could_not_be_calibrated_is_said_with_the_reason(tmp_path, capsys):
    _say_maps(tmp_path)
    assert capsys.readouterr().out == ""
    findings = {"Edema": {"n": 4, "reason": "one class only"}, "Fracture": {"n": 4, "reason": "one class only"}}
    (tmp_path / "calibration.json").write_text(json.dumps({"findings": findings}))
    _say_maps(tmp_path)
    assert capsys.readouterr().out == "\nno calibration, one class only: Edema, Fracture: their scores are not calibrated\n"
    findings["Pneumonia"] = {"n": 90, "slope": 2.0, "shift": 0.1}
    (tmp_path / "calibration.json").write_text(json.dumps({"findings": findings}))
    _say_maps(tmp_path)
    assert "turns scores into probabilities: mmclip score --calibration" in capsys.readouterr().out


def test_scores_that_are_not_there_are_named_as_such(mmclip):
    (mmclip.folder / "labels.csv").write_text("study,Edema\na,1\n")
    done = mmclip("evaluate", "--scores", "gone", "--labels", "labels.csv")
    assert done.returncode == 66
    assert "there are no scores at --scores" in json.loads(done.stderr)["message"]
