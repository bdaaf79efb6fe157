import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from PIL import Image

from engine.data.build_store import StoreProgress
from engine.data.pretrain_data import PretrainDataSummary, training_images
from engine.errors import ConfigError, LockHeld, ModelError, NotFinite, UsageError
from engine.model.bundle import load_bundle
from engine.pretrain import Event, Forced, PretrainFinished, PretrainStarted, pretrain
from engine.recipe.pretraining import PretrainRecipe
from engine.tables.atomic import locked
from engine.tables.run_log import event_name
from engine.training.checkpoint import Refused, Saved
from engine.training.loop import Step
from engine.training.monitor import FigureWritten, Vitals
from engine.training.provenance import recipe_hash

FINDINGS = ("Pneumonia", "No Finding", "Pleural Effusion")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small pictures of twelve patients with a finding each, one that is no picture, and one that is not there."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows = ["file,patient,labels"]
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (72, 80), dtype=np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,p{number},{FINDINGS[number % 3]}")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:-700])
    rows += ["broken.png,p20,Pneumonia", "gone.png,p21,Pneumonia"]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder / "table.csv"


@pytest.fixture(scope="module")
def ruler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser of three terms."""
    nlp = spacy.blank("en")
    terms = [{"label": "FINDING", "pattern": [{"LOWER": word}]} for word in ("pneumonia", "effusion", "consolidation")]
    nlp.add_pipe("entity_ruler").add_patterns(terms)
    folder = tmp_path_factory.mktemp("recogniser") / "ruler"
    nlp.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def recipe(table: Path, ruler: Path) -> Callable[..., PretrainRecipe]:
    def with_changes(**changes: Any) -> PretrainRecipe:
        tower = {"width": 16, "layers": 1, "heads": 2}
        settings: dict[str, Any] = {
            "version": 1,
            "sources": [
                {
                    "kind": "table",
                    "file": str(table),
                    "labels": "labels",
                    "exhaustive": list(FINDINGS),
                    "reports": "weak",
                    "unpaired_share": 0.4,
                    "variants": 4,
                }
            ],
            "model": {
                "image": {**tower, "size": 32, "patch": 8},
                "text": {**tower, "context": 24},
                "projection": 16,
                "image_decoder": tower,
                "text_decoder": {"layers": 1, "heads": 2},
            },
            "prompt": {"findings": list(FINDINGS)},
            "warmup": {"iterations": 2},
            "batch": {"paired": 4, "unpaired": 2},
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.1, "schedule": "cosine", "lr_warmup": 1, "clip_norm": 1.0},
            "augmentation": {"scale": (0.8, 1.0), "rotate": 5.0, "contrast": 0.1},
            "tokenizer": {"vocab": 400},
            "checkpoint": {"every": 2, "keep": 2},
            "entities": str(ruler),
            "steps": 6,
            "store_size": 40,
        }
        return PretrainRecipe.model_validate(settings | changes)

    return with_changes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data that the runs of this file share, as the runs of an ablation would."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def whole(recipe, data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """An unbroken run: its folder and all it told."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, list(pretrain(recipe(), out, device="cpu", data=data))


def steps_of(events: list[Event]) -> list[tuple[int, dict[str, float], float]]:
    return [(event.step, event.losses, event.lr) for event in events if isinstance(event, Step)]


def weights_of(out: Path) -> str:
    return hashlib.sha256((out / "bundle" / "model.safetensors").read_bytes()).hexdigest()


def test_pictures_and_weak_words_become_a_bundle(recipe, whole):
    out, events = whole
    filled, prepared, started, finished = *events[:3], events[-1]
    assert isinstance(filled, StoreProgress)
    assert isinstance(prepared, PretrainDataSummary)
    assert isinstance(started, PretrainStarted)
    assert isinstance(finished, PretrainFinished)
    assert (prepared.images, prepared.paired + prepared.unpaired) == (12, 12)
    assert 0 < prepared.unpaired < 12
    assert (filled.done, filled.total, filled.dropped) == (13, 13, 1)  # the table leaves out the file that is not there
    assert sum(prepared.dropped.values()) == 2
    assert prepared.entities is not None
    assert 0 < prepared.entities <= 1

    names = [set(losses) for _, losses, _ in steps_of(events)]
    assert names == [{"mim", "mim_unpaired", "mlm"}] * 2 + [{"align", "mim", "mim_unpaired", "mlm"}] * 4
    bundle = load_bundle(finished.bundle)
    features = bundle.image_features(bundle.pixels([np.arange(48 * 40, dtype=np.uint32).astype(np.uint8).reshape(48, 40)]))
    cosines = features @ bundle.text_features(["pneumonia", "no pneumonia"]).T
    assert features.shape == (1, 16)
    assert bool(torch.isfinite(cosines).all())

    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "finished"
    assert run["steps"] == 6
    assert run["recipe_hash"] == recipe_hash(recipe()) == bundle.provenance["recipe_hash"]
    assert str(out.parent.parent) not in (out / "bundle" / "mmclip.json").read_text()
    assert bundle.provenance["recipe"]["sources"][0]["file"] == "table.csv"
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == [event_name(event) for event in events]
    assert [line["loss"] for line in lines if line["event"] == "step"] == [event.loss for event in events if isinstance(event, Step)]


@pytest.mark.parametrize("how", ["max_steps", "closed"])
def test_a_resumed_run_repeats_the_unbroken_one_to_the_bit(recipe, whole, data, tmp_path, how):
    begun: list[Event] = []
    if how == "max_steps":
        begun = list(pretrain(recipe(), tmp_path / "broken", device="cpu", max_steps=3, data=data))
    else:
        with contextlib.closing(pretrain(recipe(), tmp_path / "broken", device="cpu", data=data)) as run:
            while len(steps_of(begun)) < 3:
                begun.append(next(run))
        assert json.loads((tmp_path / "broken" / "run.json").read_text())["status"] == "stopped"
    ended = list(pretrain(recipe(), tmp_path / "broken", device="cpu", resume=True, data=data))
    assert len(steps_of(ended)) == 3
    assert steps_of(begun) + steps_of(ended) == steps_of(whole[1])
    assert weights_of(tmp_path / "broken") == weights_of(whole[0])


def test_another_seed_is_another_run(recipe, data, tmp_path):
    first = steps_of(list(pretrain(recipe(), tmp_path / "a", device="cpu", max_steps=1, data=data)))
    other = steps_of(list(pretrain(recipe(seed=1), tmp_path / "b", device="cpu", max_steps=1, data=data)))
    assert first != other


def test_a_folder_with_checkpoints_is_not_written_over(recipe, data, tmp_path):
    list(pretrain(recipe(), tmp_path, device="cpu", max_steps=2, data=data))
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UsageError, match=r"--resume .* or another --out"):
        list(pretrain(recipe(), tmp_path, device="cpu", data=data))
    assert (tmp_path / "run.json").read_bytes() == before


def test_another_recipe_cannot_go_on_from_a_checkpoint(recipe, data, tmp_path):
    list(pretrain(recipe(), tmp_path, device="cpu", max_steps=2, data=data))
    before = (tmp_path / "run.json").read_bytes()
    refused = pretrain(recipe(seed=5), tmp_path, device="cpu", resume=True, data=data)
    with pytest.raises(ModelError, match=r"a run with another recipe .*keys that differ: seed\..*--resume without --set"):
        next(refused)  # before any work on the data
    assert (tmp_path / "run.json").read_bytes() == before


def test_forced_it_goes_on_from_another_recipe_and_says_so(recipe, data, tmp_path):
    list(pretrain(recipe(), tmp_path, device="cpu", max_steps=2, data=data))
    events = list(pretrain(recipe(seed=5), tmp_path, device="cpu", force=True, max_steps=4, data=data))
    forced = [event for event in events if isinstance(event, Forced)]
    assert [(event.step, set(event.differences)) for event in forced] == [(2, {"recipe"})]
    assert [step for step, _, _ in steps_of(events)] == [3, 4]
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["forced"]["step"] == 2
    assert recipe_hash(recipe())[:12] in record["forced"]["recipe"]


def test_forced_or_not_weights_of_another_shape_are_refused(recipe, data, tmp_path):
    list(pretrain(recipe(), tmp_path, device="cpu", max_steps=2, data=data))
    model = recipe().model.model_dump() | {"projection": 8}
    with pytest.raises(ModelError, match="of another shape"):
        list(pretrain(recipe(model=model), tmp_path, device="cpu", force=True, data=data))


def test_other_keys_of_compute_are_no_other_recipe(recipe, data, whole, tmp_path):
    """A run that met the end of its memory goes on in smaller parts, and learns the same."""
    list(pretrain(recipe(precision="fp32"), tmp_path / "run", device="cpu", max_steps=3, data=data))
    smaller = recipe(precision="fp32", compute={"micro_batch": 2, "checkpoint_activations": True, "ahead": 0})
    assert recipe_hash(smaller) == recipe_hash(recipe(precision="fp32"))
    events = list(pretrain(smaller, tmp_path / "run", device="cpu", resume=True, data=data))
    assert next(event for event in events if isinstance(event, PretrainStarted)).micro_batches == 3
    unbroken = steps_of(list(pretrain(recipe(precision="fp32"), tmp_path / "unbroken", device="cpu", data=data)))
    for (step, losses, _), (same_step, expected, _) in zip(steps_of(events), unbroken[3:], strict=True):
        assert step == same_step
        assert losses == pytest.approx(expected, rel=1e-4)  # AdamW makes much of the rounding of gradients that are nearly 0


def test_bf16_in_parts_computes_blocks_again_as_they_were(recipe, data, tmp_path):
    lean = recipe(compute={"micro_batch": 2, "checkpoint_activations": True})
    plain = steps_of(list(pretrain(recipe(), tmp_path / "plain", device="cpu", max_steps=1, data=data)))
    found = steps_of(list(pretrain(lean, tmp_path / "lean", device="cpu", max_steps=1, data=data)))
    assert found[0][1] == pytest.approx(plain[0][1], rel=0.02)


def test_a_changed_picture_is_noticed_and_other_data_are_refused(recipe, data, table, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for file in table.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    source = recipe().sources[0].model_copy(update={"file": str(folder / "table.csv")})
    moved = recipe(sources=[source.model_dump()])
    list(pretrain(moved, tmp_path / "run", device="cpu", max_steps=2, data=data))
    Image.fromarray(np.full((72, 80), 9, np.uint8) + np.arange(80, dtype=np.uint8)).save(folder / "3.png")
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(ModelError, match="a run with another data"):
        list(pretrain(moved, tmp_path / "run", device="cpu", resume=True, data=data))
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(recipe, whole, data, tmp_path):
    list(pretrain(recipe(), tmp_path / "run", device="cpu", max_steps=4, data=data))
    newest = tmp_path / "run" / "checkpoints" / "step-00000004" / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-10])
    events = list(pretrain(recipe(), tmp_path / "run", device="cpu", resume=True, data=data))
    refused = [event for event in events if isinstance(event, Refused)]
    assert [one.name for one in refused] == ["step-00000004"]
    assert [event.step for event in events if isinstance(event, Step)] == [3, 4, 5, 6]
    assert [event.step for event in events if isinstance(event, Saved)] == [4, 6]
    assert weights_of(tmp_path / "run") == weights_of(whole[0])


def test_resume_without_a_checkpoint_begins(recipe, data, tmp_path):
    events = list(pretrain(recipe(), tmp_path, device="cpu", resume=True, max_steps=1, data=data))
    assert [event.step for event in events if isinstance(event, Step)] == [1]


def test_a_run_that_has_ended_only_writes_its_bundle_again(recipe, data, tmp_path):
    list(pretrain(recipe(), tmp_path, device="cpu", data=data))
    before = weights_of(tmp_path)
    events = list(pretrain(recipe(), tmp_path, device="cpu", resume=True, data=data))
    assert steps_of(events) == []
    assert weights_of(tmp_path) == before


def test_a_rate_that_blows_up_stops_naming_step_and_loss(recipe, data, tmp_path):
    wild = recipe(optimizer={"name": "sgd", "lr": 1e30, "momentum": 0.0}, precision="fp32", checkpoint={"every": 1, "keep": 2})
    with pytest.raises(NotFinite, match=r"step [12]\b"):
        list(pretrain(wild, tmp_path, device="cpu", data=data))
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["status"] == "failed"
    assert "step" in run["error"]


def test_two_runs_do_not_share_a_folder_and_do_share_prepared_data(recipe, data, tmp_path):
    with locked(tmp_path / "run"), pytest.raises(LockHeld):
        list(pretrain(recipe(), tmp_path / "run", device="cpu", data=data))
    for name in ("a", "b"):
        list(pretrain(recipe(seed=ord(name)), tmp_path / name, device="cpu", max_steps=1, data=tmp_path / "data"))
    assert len(list((tmp_path / "data").glob("texts-*.npz"))) == 1
    assert not (tmp_path / "a" / "data").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"init": "tiny", "text": {"context": 24}}}, "both `model.init` and `tokenizer.vocab`"),
        (
            {"prompt": {"findings": ["pleural effusion and very much more"] * 9}},
            r"disease prompts need \d+ tokens, the text tower has 24",
        ),
        ({"entities": "no_such_model"}, "no entity model is called no_such_model"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(recipe, data, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        list(pretrain(recipe(**changes), tmp_path, device="cpu", data=data))


def test_separate_prompts_input_masks_and_images_alone_train_too(recipe, data, tmp_path):
    for name, changes in {
        "separate": {"prompt": {"findings": list(FINDINGS), "mode": "separate"}},
        "input": {"attmim": {"mask_level": "input"}, "entmlm": {"mode": "input"}},
        "alone": {"batch": {"paired": 0, "unpaired": 3}},
        "contrastive": {"attmim": {"strategy": "none"}, "entmlm": {"strategy": "none"}, "warmup": {"iterations": 0}},
    }.items():
        events = list(pretrain(recipe(**changes), tmp_path / name, device="cpu", max_steps=3, data=data))
        losses = steps_of(events)[-1][1]
        wanted = {"alone": {"mim_unpaired"}, "contrastive": {"align"}}.get(name, {"align", "mim", "mim_unpaired", "mlm"})
        assert set(losses) == wanted


def test_a_model_goes_on_from_the_weights_of_another(recipe, data, tmp_path):
    first = list(pretrain(recipe(), tmp_path / "first", device="cpu", max_steps=1, data=data))[-1]
    assert isinstance(first, PretrainFinished)
    model = recipe().model.model_dump() | {"init": str(first.bundle)}
    second = recipe(model=model, tokenizer={}, optimizer={"name": "sgd", "lr": 1e-12, "momentum": 0.0})
    list(pretrain(second, tmp_path / "second", device="cpu", max_steps=1, data=data))
    old, new = (load_bundle(tmp_path / name / "bundle").clip.state_dict() for name in ("first", "second"))
    assert all(torch.allclose(old[name], new[name], atol=1e-6) for name in old)


def test_no_device_is_invented(recipe, data, tmp_path):
    with pytest.raises(UsageError, match="no device is called tpu"):
        list(pretrain(recipe(), tmp_path, device="tpu"))


def test_held_out_patients_are_never_drawn(recipe, data, tmp_path):
    source = recipe().sources[0].model_dump() | {"split": {"train": 0.5, "seed": 3}, "unpaired_share": 0.0}
    found = training_images(recipe(sources=[source]), tmp_path, verify=True)
    held_out = set(found.table.frame.filter(found.table.frame["held_out"])["image"])
    assert 0 < len(held_out) < 12
    assert not held_out & set(found.frame["image"])


# ---- seeing


def test_a_run_that_is_watched_learns_the_same_to_the_bit(recipe, data, whole, tmp_path: Path) -> None:
    shown = {"vitals_every": 2, "pictures_every": 3, "pictures": 2, "peak_tflops": 0.001}
    out = tmp_path / "run"
    events = list(pretrain(recipe(logging=shown), out, device="cpu", data=data))
    assert weights_of(out) == weights_of(whole[0])
    assert recipe_hash(recipe(logging=shown)) == recipe_hash(recipe())  # so that a run may go on with other eyes
    vitals = [event for event in events if isinstance(event, Vitals)]
    assert [event.step for event in vitals] == [2, 4, 6]
    assert all(event.mfu is not None and event.mfu > 0 and event.images_per_second > 0 for event in vitals)
    assert vitals[0].masks.keys() == {"paired", "unpaired", "words"}
    assert vitals[0].masks["paired"]["hidden"] == 0.75

    figures = ["pictures/step-00000003.png", "pictures/step-00000006.png"]
    assert [event.file for event in events if isinstance(event, FigureWritten)] == figures
    assert (out / "pictures").stat().st_mode & 0o777 == 0o700
    for name in figures:
        with Image.open(out / name) as sheet:
            sheet.verify()
    facts = json.loads((out / "run.json").read_text())
    assert facts["peak"] == {"flops_per_second": 1e9, "source": "the recipe's logging.peak_tflops"}
    assert facts["flops_per_step"]["image_tower"] > facts["flops_per_warmup_step"]["align"] == 0


def test_the_numbers_of_a_run_become_curves(recipe, data, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra [tensorboard] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    settings = {"logging": {"tensorboard": True, "vitals_every": 2}, "entmlm": {"strategy": "none"}}
    for stop in (2, 4):
        events = list(pretrain(recipe(**settings), out, device="cpu", data=data, max_steps=stop, resume=stop > 2))
    read: Any = EventAccumulator(str(out / "tensorboard"))
    read.Reload()
    assert [each.step for each in read.Scalars("loss/mim")] == [1, 2, 3, 4]
    assert [each.step for each in read.Scalars("masks_paired/hidden")] == [2, 4]
    assert [step for step, _, _ in steps_of(events)] == [3, 4]


def test_a_run_without_masks_draws_none(recipe, data, tmp_path: Path) -> None:
    settings = {
        "attmim": {"strategy": "none"},
        "warmup": {"iterations": 0},
        "steps": 2,
        "logging": {"vitals_every": 2, "pictures_every": 1},
    }
    events = list(pretrain(recipe(**settings), tmp_path / "run", device="cpu", data=data))
    assert not [event for event in events if isinstance(event, FigureWritten)]
    assert [event.masks.keys() for event in events if isinstance(event, Vitals)] == [{"words"}]
    assert not (tmp_path / "run" / "pictures").exists()
