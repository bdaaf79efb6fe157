"""Fine-tuning from a table to a classifier bundle, on drawn pictures that a toy model learns to tell apart."""

import json

import numpy as np
import polars as pl
import pytest
from PIL import Image
from transformers import CLIPModel

from engine.data.finetune_data import FinetuneDataSummary
from engine.data.label_fractions import FractionSplit
from engine.data.sources import read_table
from engine.errors import ConfigError, LabelsError, LockHeld, ModelError, NotFinite, UsageError
from engine.evaluation.learning_curve import CurvePoint, ValidationChoice
from engine.finetune import FinetuneFinished, finetune
from engine.metrics import roc
from engine.model.bundle import load_bundle
from engine.recipe.finetuning import FinetuneRecipe
from engine.recipe.sources import TableSource
from engine.tables.atomic import locked
from engine.training.checkpoint import Saved
from engine.training.early_stopping import ValidationResult
from engine.training.loop import Step

PATIENTS = 60


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Sixty patients: Edema is a bright lower half, Nodule (unknown in every third patient) a bright square."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows = ["Nodule,file,Edema,patient"]
    for number in range(PATIENTS):
        picture = rng.integers(0, 90, (72, 72))
        edema, nodule = number % 2, number // 2 % 2
        picture[36:] += 120 * edema
        picture[8:28, 8:28] += 150 * nodule
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{'' if number % 3 == 0 else nodule},{number}.png,{edema},patient-{number}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder / "table.csv"


@pytest.fixture(scope="module")
def recipe(table, toy):
    def with_changes(source=None, **changes):
        settings = {
            "version": 1,
            "sources": [
                {
                    "kind": "table",
                    "name": "toy",
                    "file": str(table),
                    "rename": {"Nodule": "Nodule"},
                    "split": {"train": 0.7},
                    "reports": "none",
                }
                | (source or {})
            ],
            "model": str(toy),
            "validation": {"share": 0.3},
            "head": {"init": "zeros"},
            "epochs": 2,
            "least_steps": 8,
            "looks": 4,
            "batch": 8,
            "optimizer": {"lr": 3e-3, "lr_warmup": 2},
            "linear": {"strengths": [0.01, 1.0]},
            "baseline": {"side": 8},
            "precision": "fp32",
        }
        return FinetuneRecipe.model_validate(settings | changes)

    return with_changes


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def run(recipe, out, data, **options):
    return list(finetune(recipe, out, **{"device": "cpu", "data": data} | options))


def auroc(events, method, finding="Edema"):
    (measured,) = (event for event in of(events, CurvePoint) if event.method == method and event.fraction in (0, 1))
    return next(row.auroc for row in measured.figures if row.finding == finding)


@pytest.fixture(scope="module")
def linear(recipe, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("linear")
    return out, run(recipe(mode="linear"), out, data, fractions=(1.0, 0.2))


@pytest.fixture(scope="module")
def full(recipe, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("full")
    return out, run(recipe(), out, data)


def test_figures_are_those_of_the_bundle_on_its_test_part(linear, table):
    out, events = linear
    bundle = load_bundle(out / "bundle")
    rows = read_table(TableSource(file=str(table), name="toy", rename={"Nodule": "Nodule"}, split={"train": 0.7}, reports="none")).frame
    test = rows.filter(pl.col("held_out"))
    pictures = [np.asarray(Image.open(file)) for file in test["file"]]
    scores = bundle.head.scores(bundle.image_features(bundle.pixels(pictures)).numpy())
    column = bundle.head.findings.index("Edema")
    assert roc.auroc(scores[:, column], test["Edema"].to_numpy()) == auroc(events, "linear")


def test_a_linear_probe_learns_what_words_do_not_know(linear):
    _, events = linear
    (prepared,) = of(events, FinetuneDataSummary)
    assert sum(prepared.patients.values()) == PATIENTS
    assert set(prepared.findings) == {"Edema", "Nodule"}
    assert auroc(events, "linear") > 0.95
    assert auroc(events, "linear", "Nodule") > 0.8
    assert auroc(events, "raw_pixels") > 0.95
    assert {event.method for event in of(events, ValidationChoice)} == {"linear", "raw_pixels"}


def test_a_learning_curve_counts_what_it_was_drawn_from(linear):
    out, events = linear
    small, whole = of(events, FractionSplit)
    assert (small.fraction, whole.fraction) == (0.2, 1.0)
    assert small.patients == round(0.2 * whole.patients)
    assert small.positive["Edema"] + small.negative["Edema"] == small.images
    assert whole.positive["Nodule"] + whole.negative["Nodule"] < whole.images  # unknown ones are neither
    curve = pl.read_csv(out / "curve.csv")
    assert curve.filter(finding="macro").select("fraction", "method").rows() == [
        (0.0, "zero_shot"), (0.2, "linear"), (0.2, "raw_pixels"), (1.0, "linear"), (1.0, "raw_pixels"),
    ]  # fmt: skip
    assert curve.filter(finding="Edema", method="linear")["train_positive"].to_list() == [small.positive["Edema"], whole.positive["Edema"]]
    assert json.loads((out / "curve.json").read_text())["split_sha256"].keys() == {"train", "validation", "test"}
    assert (out / "curve.svg").read_bytes().startswith(b"<?xml")
    assert pl.read_csv(out / "metrics.csv")["finding"].to_list() == ["Nodule", "Edema", "macro"]
    assert json.loads((out / "run.json").read_text())["status"] == "finished"


def test_every_fraction_leaves_a_classifier_and_the_largest_the_bundle(linear):
    out, events = linear
    (finished,) = of(events, FinetuneFinished)
    assert finished.bundle == out / "bundle"
    small, whole = load_bundle(out / "fraction-0.2" / "bundle"), load_bundle(out / "bundle")
    assert small.head.findings == whole.head.findings
    assert (small.head.about["fraction"], whole.head.about["fraction"]) == (0.2, 1.0)
    assert small.content_hash != whole.content_hash
    assert 0.3 < whole.head.about["prevalence"]["Edema"] < 0.7
    assert isinstance(CLIPModel.from_pretrained(out / "bundle"), CLIPModel)
    test = next(event for event in of(events, FinetuneDataSummary)).split_sha256["test"]
    assert test[:16] in whole.card
    assert f"{auroc(events, 'linear'):.3f}" in whole.card
    assert "patient-" not in whole.card + (out / "run.json").read_text() + (out / "log.jsonl").read_text()
    assert str(out.parent) not in json.dumps(dict(whole.provenance))


def test_the_tower_learns_and_the_best_weights_are_kept(full, toy):
    out, events = full
    results = of(events, ValidationResult)
    assert next(result.step for result in results) == 0
    (chosen,) = of(events, ValidationChoice)[:1]
    assert (chosen.method, chosen.what) == ("full", "step")
    best = max(results, key=lambda result: result.rank)
    assert (chosen.value, chosen.auroc) == (best.step, best.auroc)
    assert auroc(events, "full") > 0.95
    tuned, base = load_bundle(out / "bundle"), load_bundle(toy)
    weight = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert not np.array_equal(tuned.clip.state_dict()[weight], base.clip.state_dict()[weight])
    text = "text_model.encoder.layers.0.mlp.fc1.weight"
    assert np.array_equal(tuned.clip.state_dict()[text], base.clip.state_dict()[text])


def weights(out):
    return (out / "bundle" / "model.safetensors").read_bytes(), (out / "bundle" / "head.safetensors").read_bytes()


@pytest.mark.parametrize("after", [1, 3, 4])
def test_a_run_that_is_broken_off_goes_on_to_the_bit(recipe, data, full, tmp_path, after):
    out, whole = full
    begun = []
    with_holes = finetune(recipe(), tmp_path / "run", device="cpu", data=data)
    for event in with_holes:
        begun.append(event)
        if isinstance(event, Step) and event.step == after:
            break
    with_holes.close()
    ended = run(recipe(), tmp_path / "run", data, resume=True)
    told = {event.step: event.losses for event in of([*begun, *ended], Step)}
    assert told == {event.step: event.losses for event in of(whole, Step)}
    assert of(ended, ValidationChoice)[0] == of(whole, ValidationChoice)[0]
    assert weights(tmp_path / "run") == weights(out)


def test_a_run_that_has_ended_is_only_judged_again(recipe, data, full, tmp_path):
    out, whole = full
    run(recipe(), tmp_path, data)
    again = run(recipe(), tmp_path, data, resume=True)
    assert not of(again, Step) and not of(again, Saved)
    assert of(again, CurvePoint) == of(whole, CurvePoint)
    assert weights(tmp_path) == weights(out)


def test_patience_ends_a_run_that_no_longer_gains(recipe, data, tmp_path):
    still = recipe(optimizer={"lr": 1e-12, "lr_warmup": 0}, patience=1, head={"init": "probe"})
    events = run(still, tmp_path, data)
    assert max(event.step for event in of(events, Step)) < 8
    assert "probe" in {event.method for event in of(events, ValidationChoice)}


@pytest.mark.parametrize("changes", [{"init": "random"}, {"seed": 1, "init": "random"}, {"pos_weight": "none"}])
def test_switches_make_other_classifiers(recipe, data, linear, tmp_path, changes):
    run(recipe(mode="linear", **changes), tmp_path, data)
    assert weights(tmp_path)[1] != weights(linear[0])[1]


def test_the_text_start_scores_as_zero_shot_does(recipe, data, tmp_path):
    (tmp_path / "words.yaml").write_text(
        "version: 1\nfindings:\n  Edema: {positive: [pleural effusion], negative: [no pleural effusion]}\n"
        "  Nodule: {positive: [nodule], negative: [none]}\n"
    )
    head = {"init": "text", "prompts": str(tmp_path / "words.yaml")}
    still = recipe(head=head, optimizer={"lr": 1e-12, "lr_warmup": 0}, epochs=1, least_steps=1, looks=1)
    events = run(still, tmp_path / "run", data)
    assert auroc(events, "full") == pytest.approx(auroc(events, "zero_shot"), abs=1e-6)


def test_a_finding_with_one_class_is_left_out_and_says_so(recipe, data, table, tmp_path):
    lines = table.read_text().splitlines()
    rows = [f"{lines[0]},Fracture", *(f"{line},1" for line in lines[1:])]
    other = table.with_name("fracture.csv")
    other.write_text("\n".join(rows) + "\n")
    events = run(recipe(source={"file": str(other)}, mode="linear"), tmp_path, data)
    assert of(events, FractionSplit)[0].one_class == ("Fracture",)
    measured = next(event for event in of(events, CurvePoint) if event.method == "linear")
    assert {row.finding: row.reason for row in measured.figures}["Fracture"] == "one class only in the training part"
    assert "Fracture" not in load_bundle(tmp_path / "bundle").head.findings
    with pytest.raises(ConfigError, match="no finding with both classes"):
        run(recipe(source={"file": str(other)}, mode="linear", findings=["Fracture"]), tmp_path / "none", data)


def test_leakage_in_the_table_s_own_split_is_refused(recipe, data, table, tmp_path):
    lines = table.read_text().splitlines()
    rows = [f"{lines[0]},split", *(f"{line.rpartition(',')[0]},patient-1,{('train', 'test')[n % 2]}" for n, line in enumerate(lines[1:]))]
    other = table.with_name("leaky.csv")
    other.write_text("\n".join(rows) + "\n")
    with pytest.raises(LabelsError, match="leakage"):
        run(recipe(source={"file": str(other)}), tmp_path, data)


def test_missing_data_name_the_key_and_the_layout(recipe, tmp_path):
    with pytest.raises(ConfigError, match=r"sources\.0\.file: no table there; set it to a CSV or Parquet file with a column `file`"):
        run(recipe(source={"file": "absent.csv"}), tmp_path / "run", None)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_written_over_nor_gone_on_with_under_another_recipe(recipe, data, tmp_path):
    run(recipe(epochs=1, least_steps=1, looks=1), tmp_path, data)
    with pytest.raises(UsageError, match="--resume"):
        run(recipe(), tmp_path, data)
    with pytest.raises(ModelError, match=r"another recipe .*keys that differ: seed\. Try: the run's own recipe, or another --out"):
        run(recipe(seed=4, epochs=1, least_steps=1, looks=1), tmp_path, data, resume=True)
    with locked(tmp_path), pytest.raises(LockHeld):
        run(recipe(), tmp_path, data, resume=True)


@pytest.mark.parametrize("fractions", [(), (0.0,), (0.5, 1.5), (float("nan"),)])
def test_a_fraction_out_of_range_is_refused(recipe, tmp_path, fractions):
    with pytest.raises(UsageError, match="fraction"):
        run(recipe(), tmp_path, None, fractions=fractions)


def test_a_rate_that_blows_up_ends_with_its_step_and_no_bundle(recipe, data, tmp_path):
    wild = recipe(optimizer={"name": "sgd", "lr": 1e38, "clip_norm": None, "lr_warmup": 0})
    with pytest.raises(NotFinite):
        run(wild, tmp_path, data)
    assert not (tmp_path / "bundle").exists()
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "failed"


def test_no_device_is_invented(recipe, tmp_path):
    with pytest.raises(UsageError, match="no device is called tpu"):
        run(recipe(), tmp_path, None, device="tpu")
