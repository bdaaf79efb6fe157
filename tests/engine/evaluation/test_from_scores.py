"""Scores and labels that are there -> figures; and what labels and scores people bring."""

import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

from engine.errors import ConfigError, InputMissing, LabelsError, NotFinite, UsageError
from engine.evaluation.events import EvaluationFinished, EvaluationNotice
from engine.evaluation.from_scores import judge
from engine.score import score

STUDIES = [f"s{number}" for number in range(40)]


@pytest.fixture(autouse=True)
def site_key(monkeypatch):
    monkeypatch.setenv("MMCLIP_SITE_KEY", "a key for tests")


@pytest.fixture
def files(tmp_path):
    """scores.csv and labels.csv of 40 studies: edema scored well, pneumonia at random."""
    rng = np.random.default_rng(0)
    edema = rng.integers(0, 2, 40)
    pl.DataFrame({"study": STUDIES, "Edema": edema * 0.5 + rng.random(40) / 2, "Pneumonia": rng.random(40)}).write_csv(
        tmp_path / "scores.csv"
    )
    labels = pl.DataFrame({"study": STUDIES, "Edema": edema, "Pneumonia": rng.integers(0, 2, 40)})
    labels.write_csv(tmp_path / "labels.csv")
    return tmp_path, labels


def run(folder, **options):
    events = list(judge(folder / "scores.csv", folder / "labels.csv", out=folder / "out", resamples=50, **options))
    assert isinstance(events[-1], EvaluationFinished)
    return events[-1], [event.message for event in events if isinstance(event, EvaluationNotice)]


def figures(finished):
    return {row["finding"]: row for row in finished.tables["metrics"]}


def test_columns_in_another_order_and_spelling_are_the_same_findings(files):
    folder, labels = files
    one, _ = run(folder)
    labels.select(pl.col("Pneumonia").alias("pneumonia"), pl.col("Edema").alias("EDEMA"), "study").write_csv(folder / "labels.csv")
    two, _ = run(folder)
    assert figures(one).keys() == figures(two).keys()
    assert [row["auroc"] for row in one.tables["metrics"]] == [row["auroc"] for row in two.tables["metrics"]]


def test_uncertain_and_blank_labels_are_unknown_and_counted(files):
    folder, labels = files
    cells = ["-1", "", "-1.0", *labels["Edema"].cast(pl.String)[3:]]
    labels.with_columns(pl.Series("Edema", cells)).write_csv(folder / "labels.csv")
    finished, notices = run(folder)
    assert figures(finished)["Edema"]["n"] == 37
    assert finished.run["labels"]["uncertain_cells"] == 2
    assert any("uncertain" in notice for notice in notices)


def test_rows_that_repeat_disagree_or_match_nothing_are_listed(files):
    folder, labels = files
    more = pl.DataFrame(
        {"study": ["s0", "s1", "else"], "Edema": [1 - labels["Edema"][0], labels["Edema"][1], 1], "Pneumonia": [None, None, 1]}
    )
    pl.concat([labels.head(38), more]).write_csv(folder / "labels.csv")
    finished, notices = run(folder)
    account = finished.run["labels"]
    assert (account["duplicate_rows"], account["disagreements"], account["unmatched_rows"], account["studies_without_labels"]) == (
        2,
        1,
        1,
        2,
    )
    assert account["listed"]["disagreeing"][0]["finding"] == "Edema"
    assert figures(finished)["Edema"]["n"] == 37
    assert len(notices) == 4


def test_one_class_is_null_with_its_reason_and_shifts_nothing(files):
    folder, labels = files
    one, _ = run(folder)
    labels.with_columns(Pneumonia=pl.lit(0)).write_csv(folder / "labels.csv")
    two, _ = run(folder)
    assert figures(two)["Pneumonia"]["reason"] == "no study with the finding"
    assert figures(two)["Edema"] == figures(one)["Edema"]
    assert figures(two)["macro"]["auroc"] == figures(two)["Edema"]["auroc"]


def test_validation_studies_choose_the_threshold_and_are_not_judged_by(files):
    folder, labels = files
    labels.with_columns(split=pl.Series(["valid"] * 15 + ["test"] * 20 + ["train"] * 5)).write_csv(folder / "labels.csv")
    finished, _ = run(folder)
    row = figures(finished)["Edema"]
    assert (row["n"], row["threshold_source"]) == (20, "val_mcc")
    assert finished.run["parts"]["validation"]["studies"] == 15


def test_a_split_with_a_patient_in_two_parts_is_refused(files):
    folder, labels = files
    split, patient = ["valid", "test"] * 20, [f"p{number // 4}" for number in range(40)]
    labels.with_columns(split=pl.Series(split), patient=pl.Series(patient)).write_csv(folder / "labels.csv")
    with pytest.raises(LabelsError, match=r"leakage.*10 patients in test and validation"):
        run(folder)


@pytest.mark.parametrize(
    ("change", "error", "why"),
    [
        (
            lambda frame: frame.with_columns(Edema=pl.when(pl.col("study") == "s3").then(float("nan")).otherwise("Edema")),
            NotFinite,
            "1 of Edema",
        ),
        (lambda frame: frame.with_columns(Edema=pl.col("Edema") * 3), ConfigError, r"not in \[0, 1\]"),
        (lambda frame: frame.rename({"study": "case"}), ConfigError, "no column `study`"),
        (lambda frame: pl.concat([frame, frame.head(1)]), ConfigError, "several rows"),
        (lambda frame: frame.select("study"), ConfigError, "no column of a finding"),
        (lambda frame: frame.with_columns(Edema=pl.lit("much")), ConfigError, "no numbers"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(files, change, error, why):
    folder, _ = files
    change(pl.read_csv(folder / "scores.csv")).write_csv(folder / "scores.csv")
    with pytest.raises(error, match=why):
        run(folder)


def test_labels_that_match_nothing_are_refused(files):
    folder, labels = files
    labels.with_columns(study=pl.concat_str(pl.lit("x"), "study")).write_csv(folder / "labels.csv")
    with pytest.raises(LabelsError, match="matches a scored study"):
        run(folder)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("study,Edema\ns1,1\n")
    with pytest.raises(InputMissing, match=r"run\.json"):
        list(judge(tmp_path, tmp_path / "labels.csv", out=tmp_path / "out"))


def test_calibration_of_a_table_of_scores_is_refused(files):
    with pytest.raises(UsageError, match="model and prompts"):
        run(files[0], calibrate=True)


def test_a_run_of_score_is_judged_calibrated_and_scored_again(toy, tmp_path):
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("version: 1\nfindings:\n  Edema: {positive: [edema], negative: [clear]}\n")
    rng = np.random.default_rng(0)
    rows = [{"file": f"{number}.png", "study": f"s{number}"} for number in range(60)]
    for number, row in enumerate(rows):
        Image.fromarray(np.clip(rng.normal(2 * number + 60, 20, (64, 64)), 0, 255).astype(np.uint8)).save(tmp_path / row["file"])
    pl.DataFrame(rows).write_csv(tmp_path / "images.csv")
    options = {"prompts": prompts, "model": toy, "workers": 1, "batch_size": 8}
    list(score([tmp_path / "images.csv"], out=tmp_path / "scored", **options))
    studies = pl.read_parquet(tmp_path / "scored" / "scores.parquet")
    # Labels that the score can be calibrated to: present in the upper half, but for every fifth study
    ranks = studies["Edema"].rank("ordinal").to_list()
    present = [int((rank > 30) != (rank % 5 == 0)) for rank in ranks]
    pl.DataFrame({"study": studies["study"], "Edema": present}).write_csv(tmp_path / "labels.csv")
    finished = list(judge(tmp_path / "scored", tmp_path / "labels.csv", out=tmp_path / "judged", resamples=50, calibrate=True))[-1]
    calibration = tmp_path / "judged" / "calibration.json"
    fitted = json.loads(calibration.read_text())["findings"]["Edema"]
    assert fitted["n"] + finished.tables["metrics"][0]["n"] == 60
    assert {row["scores"] for row in finished.tables["reliability"]} == {"raw", "calibrated"}
    run = list(score([tmp_path / "images.csv"], out=tmp_path / "scored", calibration=calibration, **options))[-1].run
    again, before = (frame["Edema"].cast(pl.Float64) for frame in (pl.read_parquet(tmp_path / "scored" / "scores.parquet"), studies))
    expected = 1 / (1 + (-(fitted["slope"] * (before / (1 - before)).log() + fitted["shift"])).exp())
    assert np.allclose(again, expected, atol=1e-5)
    assert run["calibration"]["method"] == "platt"
    with pytest.raises(ConfigError, match="another aggregate"):
        list(score([tmp_path / "images.csv"], out=tmp_path / "max", aggregate="max", calibration=calibration, **options))


def test_uids_of_labels_are_known_whatever_the_site_key_was(make_studies, toy, tmp_path, monkeypatch):
    """`make score` names its studies under a key of its own; whoever evaluates them next has another one."""
    rows = make_studies.make_synthetic(tmp_path / "in", seed=1, each=2)
    pl.DataFrame(rows).select("StudyInstanceUID", "Cardiomegaly").write_csv(tmp_path / "labels.csv")
    list(score([tmp_path / "in"], prompts="chest14", model=toy, out=tmp_path / "scored", workers=1))
    monkeypatch.setenv("MMCLIP_SITE_KEY", "another key")
    finished = list(judge(tmp_path / "scored", tmp_path / "labels.csv", out=tmp_path / "judged", resamples=50))[-1]
    assert (figures(finished)["Cardiomegaly"]["n"], figures(finished)["Cardiomegaly"]["n_positive"]) == (6, 2)
