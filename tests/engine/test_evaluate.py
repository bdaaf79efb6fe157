"""Evaluation from a table of pictures to figures, with toy models: what is measured, refused, remembered and said of what is missing."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from engine.errors import ConfigError, LabelsError, ModelError, OutputError, UsageError
from engine.evaluate import BASELINE, evaluate
from engine.evaluation.events import EvaluationFinished, EvaluationSkipped, ImageEncoded, ModelFigures
from engine.model.bundle import load_bundle, save_bundle
from engine.model.head import Head
from engine.tables.calibrations import read_calibration
from engine.tables.columns import file_hash
from engine.tables.text_tables import read_text_table

PROMPTS = """
version: 1
findings:
  Edema: {positive: [edema, fluid], negative: [no edema]}
  Pneumonia: {positive: [pneumonia], negative: [no pneumonia, clear]}
  Fracture: {positive: [fracture], negative: [no fracture]}
"""
RECIPE = """
version: 1
source: a test
title: drawn studies
sources:
  - {kind: table, file: FOLDER/table.csv, name: drawn, split: {train: 0.5, seed: 0}, reports: none}
prompts: FOLDER/prompts.yaml
models: [FOLDER/toy]
resamples: 50
"""


@pytest.fixture(autouse=True)
def site_key(monkeypatch):
    monkeypatch.setenv("MMCLIP_SITE_KEY", "a key for tests")


@pytest.fixture(scope="module")
def folder(random_bundle, tmp_path_factory):
    """60 pictures of 30 patients, brighter where pneumonia is present; edema is known in half of them, nobody has a fracture."""
    folder = tmp_path_factory.mktemp("evaluated")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        present = int(rng.integers(0, 2))
        grey = np.clip(rng.normal(90 + 60 * present, 25, (72, 72)), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
        edema = int(rng.integers(0, 2)) if number % 2 else None
        row = {"file": f"{number}.png", "patient": f"p{number // 2}", "sex": "FM"[number % 2], "age": 15 + number}
        rows.append(row | {"Fracture": 0, "Pneumonia": present, "Edema": edema})
    pl.DataFrame(rows).write_csv(folder / "table.csv")
    (folder / "prompts.yaml").write_text(PROMPTS)
    (folder / "row.yaml").write_text(RECIPE.replace("FOLDER", str(folder)))
    random_bundle(folder / "toy")
    random_bundle(folder / "other", seed=1)
    return folder


def run(folder, out, recipe="row.yaml", **options):
    events = list(evaluate(folder / recipe, out=out, workers=1, **options))
    finished = events[-1]
    assert isinstance(finished, EvaluationFinished)
    return events, finished


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """One run with everything on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCLIP_SITE_KEY", "a key for tests")
        out = tmp_path_factory.mktemp("out")
        settings = ["baseline=raw_pixels", "parts.validation_share=0.4", "threshold.source=val_f1"]
        events, finished = run(folder, out, settings=settings, against=str(folder / "other"))
    return out, events, finished


def test_figures_are_those_of_the_predictions(whole):
    out, _, finished = whole
    predictions = pl.read_parquet(out / "predictions.parquet")
    rows = {(row["model"], row["finding"]): row for row in finished.tables["metrics"]}
    for (model, finding), mine in predictions.drop_nulls("label").group_by("model", "finding"):
        row = rows[model, finding]
        assert row["n"] == mine.height
        if finding == "Fracture":
            assert (row["auroc"], row["reason"]) == (None, "no study with the finding")
        else:
            assert row["auroc"] == pytest.approx(roc_auc_score(mine["label"], mine["score"]))
    assert rows["toy", "macro"]["n"] == 2


def test_every_table_stands_as_csv_and_parquet_and_run_json_hashes_them(whole):
    out, _, finished = whole
    stored = json.loads((out / "run.json").read_text())
    assert stored == finished.run
    for name, digest in stored["outputs"].items():
        assert file_hash(out / name) == digest
    assert {"metrics.csv", "table.csv", "subgroups.parquet", "prompt_sensitivity.csv", "comparisons.csv"} <= set(stored["outputs"])
    assert read_text_table(out / "metrics.csv", ConfigError).height == len(finished.tables["metrics"])


def test_the_parts_share_no_patient_and_are_named_and_hashed(whole):
    _, _, finished = whole
    parts = finished.run["evaluations"][0]["parts"]
    assert sum(part["patients"] for part in parts.values()) == 30
    assert sum(part["images"] for part in parts.values()) == 60
    assert len({part["sha256"] for part in parts.values()}) == 3


def test_thresholds_come_from_the_validation_part(whole):
    _, _, finished = whole
    sources = {row["threshold_source"] for row in finished.tables["metrics"] if row["model"] == "toy" and row["finding"] == "Pneumonia"}
    assert sources == {"val_f1"}


def test_the_baseline_sees_brightness(whole):
    _, _, finished = whole
    row = next(row for row in finished.tables["metrics"] if (row["model"], row["finding"]) == (BASELINE, "Pneumonia"))
    assert row["auroc"] > 0.9


def test_two_models_are_compared_on_the_same_studies(whole):
    _, _, finished = whole
    rows = {row["finding"]: row for row in finished.tables["comparisons"]}
    areas = {row["model"]: row["auroc"] for row in finished.tables["metrics"] if row["finding"] == "Pneumonia"}
    assert rows["Pneumonia"]["difference"] == pytest.approx(areas["toy"] - areas["other"])
    assert "one class" in rows["Fracture"]["reason"]


def test_groups_and_phrases_have_figures_of_their_own(whole):
    _, _, finished = whole
    groups = {(row["column"], row["group"]) for row in finished.tables["subgroups"]}
    assert {("sex", "F"), ("sex", "M"), ("age", "under 18"), ("age", "18-39")} & groups
    small = [row for row in finished.tables["subgroups"] if row["group"] == "under 18" and row["finding"] == "Pneumonia"]
    assert all("are needed" in row["reason"] for row in small)
    phrases = {(row["finding"], row["side"], row["phrase"]) for row in finished.tables["prompt_sensitivity"]}
    assert ("Edema", "positive", "fluid") in phrases
    assert ("Pneumonia", "positive", "pneumonia") not in phrases  # the only one of its side


def test_no_name_of_a_file_or_patient_leaves_private(whole):
    out, _, _ = whole
    for path in out.rglob("*"):
        if path.is_file() and "private" not in path.parts:
            raw = path.read_bytes()
            assert b"table.csv" not in raw or path.suffix == ".json"
            assert b"p12" not in raw.replace(b"patient_bootstrap", b"") or path.suffix == ".parquet"


def test_a_second_run_costs_no_pixel_work(folder, tmp_path):
    first, one = run(folder, tmp_path)
    second, two = run(folder, tmp_path)
    assert not any(event.known for event in first if isinstance(event, ImageEncoded))
    assert all(event.known for event in second if isinstance(event, ImageEncoded))
    assert one.tables == two.tables


def test_calibration_is_fitted_on_other_patients_than_it_is_judged_by(folder, tmp_path):
    _, finished = run(folder, tmp_path, calibrate=True, settings=["parts.test=all", "findings=[Pneumonia]"])
    stored = json.loads((tmp_path / "calibration.json").read_text())
    parts = finished.run["evaluations"][0]["parts"]
    assert parts["test"]["patients"] + parts["validation"]["patients"] == 30
    assert stored["fitted_on"]["sha256"] == parts["validation"]["sha256"]
    models = [event.model for event in [*evaluate(folder / "row.yaml", out=tmp_path, workers=1)] if isinstance(event, ModelFigures)]
    assert models == ["toy"]
    fitted = stored["findings"]["Pneumonia"]
    assert ("slope" in fitted) != ("reason" in fitted)
    again = read_calibration
    (tmp_path / "kept.json").write_text(json.dumps(stored))
    hashes = {"model": stored["model"]["sha256"], "prompts": file_hash(folder / "prompts.yaml")}
    assert again(tmp_path / "kept.json", **hashes, aggregate="mean").about["method"] == "platt"
    with pytest.raises(ConfigError, match="another model"):
        again(tmp_path / "kept.json", model="0" * 64, prompts=hashes["prompts"], aggregate="mean")


def test_an_ensemble_scores_as_the_mean_of_its_members(folder, tmp_path):
    members = []
    for name in ("toy", "other"):
        run(folder, tmp_path, model=str(folder / name))
        members.append(pl.read_parquet(tmp_path / "predictions.parquet")["score"].to_numpy())
    for how in ("prob_mean", "weight_soup"):
        run(folder, tmp_path, settings=[f"models=[{folder}/toy, {folder}/other]", f"ensemble={how}"])
        joint = pl.read_parquet(tmp_path / "predictions.parquet")["score"].to_numpy()
        assert (how == "prob_mean") == np.allclose(joint, np.mean(members, axis=0), atol=1e-9)


def test_random_weights_are_a_model_of_their_own(folder, tmp_path):
    _, one = run(folder, tmp_path, model=f"random:{folder}/toy")
    assert one.run["evaluations"][0]["models"][0]["name"] == "toy with random weights"


def test_a_split_with_a_patient_in_two_parts_is_refused(folder, tmp_path):
    frame = pl.read_csv(folder / "table.csv").with_columns(split=pl.Series(["test", "valid"] * 30))
    frame.with_columns(pl.concat_str(pl.lit(f"{folder}/"), "file").alias("file")).write_csv(tmp_path / "table.csv")
    (tmp_path / "row.yaml").write_text((folder / "row.yaml").read_text().replace(f"{folder}/table.csv", f"{tmp_path}/table.csv"))
    with pytest.raises(LabelsError, match=r"leakage.*30 patients in test and validation"):
        list(evaluate(tmp_path / "row.yaml", settings=["parts={test: test, validation: valid}"], out=tmp_path / "out", dry_run=True))


def test_what_is_missing_is_an_error_of_one_recipe_and_a_cell_of_a_set(folder, tmp_path):
    recipe = (folder / "row.yaml").read_text()
    (tmp_path / "here.yaml").write_text(recipe)
    (tmp_path / "gone.yaml").write_text(recipe.replace("table.csv", "gone.csv").replace("drawn studies", "others"))
    (tmp_path / "nih.yaml").write_text("version: 1\nsource: a test\ntitle: nih\nsources: [{kind: nih14, root: gone}]\npublished: nih14\n")
    (tmp_path / "set.yaml").write_text("version: 1\nsource: a test\ntitle: both\nrows: [here.yaml, gone.yaml, nih.yaml]\n")
    with pytest.raises(ConfigError, match=r"needs data set table at sources\.0\.file"):
        list(evaluate(tmp_path / "gone.yaml", out=tmp_path / "out"))
    events, finished = run(tmp_path, tmp_path / "out", recipe="set.yaml")
    needs = {event.evaluation: event.needs for event in events if isinstance(event, EvaluationSkipped)}
    assert needs["nih"] == "needs data set nih14 at roots.nih14"
    assert set(needs) == {"others", "nih"}
    cells = [row for row in finished.tables["table"] if row["evaluation"] == "nih"]
    assert [row["model"] for row in cells] == ["tiny", "KAD", "MAVL"]
    assert all(value for row in finished.tables["table"] for value in row.values())
    assert set(list(cells[0].values())[2:-1]) == {needs["nih"]}


def test_every_row_of_the_paper_s_table_has_a_value_or_says_what_it_needs(tmp_path):
    kinds = ("chexpert", "rsna", "nih14", "covidx", "padchest_evaluation")
    finished = [*evaluate("eval/paper", out=tmp_path, settings=[f"roots.{kind}={tmp_path}/none" for kind in kinds])][-1]
    for row in finished.tables["table"]:
        for column in ("auc", "f1", "accuracy", "auroc", "f1_at_threshold", "accuracy_at_threshold", "threshold"):
            assert row[column].startswith(("needs data set ", "not published")) or float(row[column]) > 0


def test_a_dry_run_counts_what_the_run_counts_and_writes_nothing(folder, tmp_path):
    (plan,) = evaluate(folder / "row.yaml", out=tmp_path / "out", dry_run=True)
    assert not (tmp_path / "out").exists()
    (row,) = plan.rows
    assert (row.splits["test"]["patients"] + row.splits["train"]["patients"], plan.device) == (30, "cuda" if _has_gpu() else "cpu")
    assert row.notices == ("no AUROC, because the test studies have no positive or no negative: Fracture",)
    events, finished = run(folder, tmp_path / "out")
    assert events[0] == plan
    for figures in finished.tables["metrics"][:3]:
        positives, negatives = row.labels[figures["finding"]]["test"]
        assert (figures["n"], figures["n_positive"]) == (positives + negatives, positives)


def _has_gpu():
    import torch

    return torch.cuda.is_available()


def test_a_dry_run_finds_a_damaged_model_and_a_full_disk(folder, tmp_path, monkeypatch):
    shutil.copytree(folder / "toy", tmp_path / "toy")
    (tmp_path / "toy" / "config.json").write_text("{}")
    with pytest.raises(ModelError):
        list(evaluate(folder / "row.yaml", model=str(tmp_path / "toy"), out=tmp_path / "out", dry_run=True))
    monkeypatch.setattr("engine.evaluate.FEATURE_BYTES", 10**18)
    with pytest.raises(OutputError, match="not enough disk space"):
        list(evaluate(folder / "row.yaml", out=tmp_path / "out", dry_run=True))


@pytest.mark.parametrize(
    ("settings", "options", "error", "why"),
    [
        (["findings=[Hernia]"], {}, ConfigError, "no source labels: Hernia"),
        (["parts.test=autumn"], {}, ConfigError, "no image is in the test split"),
        ([], {"model": "FOLDER/table.csv"}, ConfigError, "needs model"),
        (["classifiers={1 %: FOLDER/toy}"], {"calibrate": True}, UsageError, "one model"),
        ([], {"device": "cuda"}, UsageError, "no GPU"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_the_dry_run_already(folder, tmp_path, settings, options, error, why):
    if options.get("device") == "cuda" and _has_gpu():
        pytest.skip("there is a GPU here")
    settings = [each.replace("FOLDER", str(folder)) for each in settings]
    options = {key: value.replace("FOLDER", str(folder)) if isinstance(value, str) else value for key, value in options.items()}
    with pytest.raises(error, match=why):
        list(evaluate(folder / "row.yaml", settings=settings, out=tmp_path, workers=1, dry_run=True, **options))


def test_models_of_two_architectures_make_no_soup(random_bundle, folder, tmp_path):
    random_bundle(tmp_path / "large", size=64)
    with pytest.raises(ModelError, match="model 2 of the soup has another architecture"):
        settings = [f"models=[{folder}/toy, {tmp_path}/large]", "ensemble=weight_soup"]
        list(evaluate(folder / "row.yaml", settings=settings, out=tmp_path / "out", dry_run=True))


def test_a_part_of_a_data_set_is_judged_and_said_to_be_a_part(folder, tmp_path):
    frame = pl.read_csv(folder / "table.csv")
    files = [f"{folder}/{file}" if number % 4 else f"{folder}/gone{file}" for number, file in enumerate(frame["file"])]
    frame.with_columns(file=pl.Series(files)).write_csv(tmp_path / "table.csv")
    (tmp_path / "row.yaml").write_text((folder / "row.yaml").read_text().replace(f"{folder}/table.csv", f"{tmp_path}/table.csv"))
    _, finished = run(tmp_path, tmp_path / "out")
    assert finished.run["evaluations"][0]["dropped"] == {"file_missing": 15}
    assert finished.tables["table"][0]["note"].endswith("15 images of the tables are missing")


def test_classifiers_are_rows_of_their_own(folder, tmp_path):
    bundle = load_bundle(folder / "toy")
    width = bundle.clip.config.projection_dim
    head = Head(("Edema", "Pneumonia"), np.ones((2, width), np.float32), np.zeros(2, np.float32))
    save_bundle(tmp_path / "one", bundle.clip, bundle.tokenizer, bundle.preprocessing, name="one", head=head)
    with pytest.raises(ConfigError, match="does not know Fracture"):
        list(evaluate(folder / "row.yaml", settings=[f"classifiers={{1 %: {tmp_path}/one}}"], out=tmp_path / "out", dry_run=True))
    events, _ = run(
        folder, tmp_path / "out", settings=[f"classifiers={{1 %: {tmp_path}/one, 10 %: {tmp_path}/one}}", "findings=[Edema, Pneumonia]"]
    )
    measured = [event for event in events if isinstance(event, ModelFigures)]
    assert [event.model for event in measured] == ["1 %", "10 %"]
    assert measured[0].figures == measured[1].figures
