"""Fine-tuning, whole: an image tower, labels and a fraction of the patients -> a classifier bundle, and what it is worth.

out/
    bundle/              the classifier of the largest fraction, for `score --model`
    curve.csv .json .svg figures of every fraction on the test part, beside raw pixels on the same images and zero-shot
    metrics.csv          the largest fraction's rows, as `score` writes them
    fraction-0.1/        of each fraction: bundle/ (but the largest's), checkpoints/, best/ and looks.json of `mode: full`
    data/                pictures and features, prepared once
    log.jsonl run.json   every event; versions, seed, recipe, hashes, counts that add up

    sources -> parts by patient -> fraction of the training patients -> head on kept features, or training with looks at the validation part
            -> the best of them, once, on the test part
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.data.batches import augment
from engine.data.labelled import LabelledBatches, LabelledPictures, labelled_pictures, labels_of
from engine.data.parts import PARTS, fraction_of, split_hash
from engine.errors import ConfigError, EngineError, UsageError
from engine.metrics.findings import FindingFigures, figures
from engine.metrics.macro import macro_auroc
from engine.model.bundle import Bundle, load_bundle, save_bundle
from engine.model.cards import classifier_card
from engine.model.classifier import Classifier, bce_loss, layer_scales, pos_weights, randomised, text_head, zero_head
from engine.model.encoding import encode
from engine.model.features import kept_features
from engine.model.head import Head
from engine.model.probe import fits, raw_pixels
from engine.model.zero_shot import Words, logit_scale, words_by_finding, zero_shot
from engine.recipe.loader import load_recipe
from engine.recipe.prompts import PromptRecipe
from engine.tables.columns import METRIC_COLUMNS
from engine.tables.learning_curve import publish_curve
from engine.tables.publish import locked, make_folder
from engine.tables.run_record import publish_metrics
from engine.training.checkpoint import Checkpoints, Refused, Saved
from engine.training.looks import Look, Looks
from engine.training.loop import LossesOf, Plan, Step, train
from engine.training.optimizer import learning_rate, make_optimizer, parameter_groups
from engine.training.record import RunRecord, code_version, device_facts, versions

if TYPE_CHECKING:
    import polars as pl

    from engine.recipe.finetuning import FinetuneRecipe

BATCH = 64
"""Pictures per forward pass where nothing is trained."""
READ_EVERY = 20
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "polars", "pillow")
ONE_CLASS = "one class only in the training part"


@dataclass(frozen=True)
class Prepared:
    """The data are ready: labelled images and patients of each part, `dropped` by reason, labels of equal pictures that disagreed."""

    findings: tuple[str, ...]
    images: Mapping[str, int]
    patients: Mapping[str, int]
    split_sha256: Mapping[str, str]
    dropped: Mapping[str, int]
    disagreeing: int
    seconds: float


@dataclass(frozen=True)
class Drawn:
    """The training part of one fraction. `one_class`: findings that it shows only present, or only absent: not learned."""

    fraction: float
    patients: int
    images: int
    positive: Mapping[str, int]
    negative: Mapping[str, int]
    one_class: tuple[str, ...]


@dataclass(frozen=True)
class Started:
    """The first step is about to be taken: step `start` of at most `stop` (0-based)."""

    device: str
    parameters: int
    start: int
    stop: int


@dataclass(frozen=True)
class Chosen:
    """What the validation part chose: the best look's step, or the best strength C of the linear probe; its macro AUROC there."""

    fraction: float
    method: str
    what: str
    value: float
    auroc: float | None


@dataclass(frozen=True)
class Measured:
    """Figures on the test part: one row per finding and their mean, by method (full, linear, raw_pixels, zero_shot)."""

    fraction: float
    method: str
    figures: tuple[FindingFigures, ...]


@dataclass(frozen=True)
class Finished:
    """The run has ended; the classifier of the largest fraction lies in `bundle`, and `curve` holds the rows of curve.csv."""

    bundle: Path
    curve: tuple[Mapping[str, Any], ...]
    seconds: float


Event = Prepared | Drawn | Refused | Started | Step | Saved | Look | Chosen | Measured | Finished


def finetune(
    recipe: FinetuneRecipe,
    out: Path,
    *,
    fractions: Sequence[float] = (1.0,),
    resume: bool = False,
    device: str = "auto",
    data: Path | None = None,
) -> Generator[Event, None, None]:
    """Make a classifier of each fraction of the training patients, in the folder `out`; tell what happens.

    Args:
        fractions: shares of the training patients, each above 0 and at most 1; smaller ones lie inside larger ones.
        resume: go on with the run in `out`, to the bit (on a CPU with the same number of threads).
        device: auto | cpu | cuda.
        data: folder of prepared pictures and features, which several runs may share; None: `out/data`.

    Raises:
        UsageError: a fraction out of range, `out` holds a run and `resume` is not set, or there is no such device.
        ConfigError, InputMissing, ReadError, LabelsError: data that are missing, do not fit the recipe, or leak between parts.
        ModelError: a model or checkpoint that cannot be used. NotFinite: a loss, feature or score is NaN.
        OutputError: the disk is full. LockHeld: another run works in `out`.
    """
    check_data(recipe)
    fractions = checked_fractions(fractions)
    where = _device(device)
    with locked(out):
        if (out / "run.json").exists() and not resume:
            raise UsageError("the output folder holds a run", hint="--resume to go on with it, or another --out")
        run = _Run(recipe, out, fractions, where, data or out / "data", time.monotonic())
        record = RunRecord(out, _facts(recipe, fractions, where), waits=resume)
        events = _events(run, record, resume)
        with _accounted(record, where), contextlib.closing(events):
            for event in events:
                record.log(event)
                yield event
        finished = Finished(out / "bundle", tuple(run.curve), round(time.monotonic() - run.begun, 3))
        record.log(dataclasses.replace(finished, curve=()))
        yield finished


def check_data(recipe: FinetuneRecipe) -> None:
    """Raises ConfigError where a source is not there: names every missing piece with the key to set and the layout that belongs there."""
    from engine.data.sources.published import missing_data

    if missing := missing_data(recipe.sources):
        raise ConfigError("the recipe's data are not there", why="; ".join(missing), hint="--set KEY=PATH for each of these")


def checked_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    """The same, ascending, each once. Raises UsageError for one that is not above 0 and at most 1."""
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise UsageError("a fraction is above 0 and at most 1", hint="--fraction 0.01,0.1,1")
    return tuple(sorted(set(fractions)))


@dataclass
class _Run:
    """What stays the same over the fractions, and the rows that grow."""

    recipe: FinetuneRecipe
    out: Path
    fractions: tuple[float, ...]
    device: torch.device
    data: Path
    begun: float
    curve: list[dict[str, Any]] = field(default_factory=list)

    def folder(self, fraction: float) -> Path:
        return self.out / f"fraction-{fraction:g}"

    def bundle(self, fraction: float) -> Path:
        return self.out / "bundle" if fraction == self.fractions[-1] else self.folder(fraction) / "bundle"


def _events(run: _Run, record: RunRecord, resume: bool) -> Generator[Event, None, None]:
    """The run as a story: model, data and parts, zero-shot, then every fraction."""
    recipe = run.recipe
    base = load_bundle(recipe.model, run.device)
    if recipe.init == "random":
        base = randomised(base, recipe.seed)
    found = labelled_pictures(recipe, run.data, size=base.preprocessing.size, resize=base.preprocessing.resize, verify=not resume)
    prepared = _prepared(found, run.begun)
    identity = {"recipe": recipe_hash(recipe), "code": code_version(), "model": base.content_hash, "data": _data_hash(found)}
    _check_identity(run, identity)
    record.waits = False
    record.say(prepared=prepared, model={"name": base.name, "sha256": base.content_hash}, sources=found.facts)
    yield prepared

    seen = _Seen(base, found, run.data)
    words = _words(recipe, base)
    yield (zero := _zero_shot(run, seen, words))
    run.curve += _rows(zero, 0, 0, {})
    for fraction in run.fractions:
        yield from _fraction(run, record, seen, words, identity, fraction)
    publish_curve(run.out, run.curve, {"split_sha256": dict(prepared.split_sha256), "recipe_sha256": recipe_hash(recipe)})
    best = [row for row in run.curve if row["fraction"] == run.fractions[-1] and row["method"] == recipe.mode]
    publish_metrics(run.out, [{key: row[key] for key in METRIC_COLUMNS} for row in best], {})
    record.say(curve=run.curve)


def _fraction(
    run: _Run, record: RunRecord, seen: _Seen, words: Mapping[str, Words], identity: Mapping[str, str], fraction: float
) -> Generator[Event, None, None]:
    """One fraction: draw, learn, choose on the validation part, judge once on the test part, save."""
    recipe, found = run.recipe, seen.found
    frame = fraction_of(found.split.part("train"), found.findings, fraction, recipe.seed)
    validation = found.split.part("validation")
    if recipe.validation.scaled:
        validation = fraction_of(validation, found.findings, fraction, recipe.seed)
    drawn = _drawn(frame, found.findings, fraction)
    yield drawn
    learned = tuple(name for name in found.findings if name not in drawn.one_class)
    if not learned:
        raise ConfigError(
            f"{100 * fraction:g} % of the training patients show one class only of every finding",
            why=f"{drawn.patients} patients, {drawn.images} images",
            hint="a larger --fraction",
        )
    part = _Part(seen, frame, validation, learned)
    if recipe.mode == "linear":
        head, chosen = _linear(recipe, part, fraction)
        tower = seen.base
    else:
        tower, head, chosen = yield from _full(run, part, words, identity, fraction)
    yield chosen
    model = dataclasses.replace(tower, head=head)
    test = found.split.part("test")
    features = seen.features(test) if recipe.mode == "linear" else encode(model, seen.pictures(test), BATCH)
    scored = _measured(fraction, recipe.mode, found, learned, head.scores(features), ONE_CLASS)
    yield scored
    baseline, chosen = _raw_pixels(recipe, part, fraction)
    yield chosen
    yield baseline
    positive = {**drawn.positive, "macro": sum(drawn.positive.values())}
    rows = [*_rows(scored, drawn.patients, drawn.images, positive), *_rows(baseline, drawn.patients, drawn.images, positive)]
    run.curve += rows
    _save(run, model, found, frame, validation, fraction, [*run.curve[: len(found.findings) + 1], *rows], chosen=head.about)


# ---- learning ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """The pictures as the pretrained model sees them, and its features of them, computed once."""

    base: Bundle
    found: LabelledPictures
    data: Path

    def pictures(self, frame: pl.DataFrame) -> list[NDArray[np.uint8]]:
        return [self.found.seen.picture(image) for image in frame["image"]]

    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        names = frame["image"].to_list()
        contents = [self.found.content(image) for image in names]
        folder = self.data / "features"
        make_folder(folder)
        return kept_features(self.base, contents, lambda number: self.found.seen.picture(names[number]), folder, BATCH)


@dataclass(frozen=True)
class _Part:
    """What one fraction learns from and chooses by."""

    seen: _Seen
    frame: pl.DataFrame
    validation: pl.DataFrame
    learned: tuple[str, ...]

    @property
    def labels(self) -> NDArray[np.float32]:
        return labels_of(self.frame, self.learned)

    @property
    def validation_labels(self) -> NDArray[np.float32]:
        return labels_of(self.validation, self.learned)


def _linear(recipe: FinetuneRecipe, part: _Part, fraction: float) -> tuple[Head, Chosen]:
    """The linear probe: logistic regression on kept features, its strength chosen on the validation part."""
    x, x_validation = (part.seen.features(each).astype(np.float64) for each in (part.frame, part.validation))
    fit, best, area = _best_fit(recipe, part, x, x_validation)
    about = _about(recipe, part, fraction) | {"strength": best}
    head = Head(part.learned, fit.weight.astype(np.float32), fit.bias.astype(np.float32), about)
    return head, Chosen(fraction, "linear", "strength", best, area)


def _raw_pixels(recipe: FinetuneRecipe, part: _Part, fraction: float) -> tuple[Measured, Chosen]:
    """The plainest competitor, on the same images, its strength chosen in the same way."""
    test = part.seen.found.split.part("test")
    x, x_validation, x_test = (raw_pixels(part.seen.pictures(each), recipe.baseline.side) for each in (part.frame, part.validation, test))
    fit, best, area = _best_fit(recipe, part, x, x_validation)
    scores = 0.5 + 0.5 * np.tanh(fit.logits(x_test) / 2)
    measured = _measured(fraction, "raw_pixels", part.seen.found, part.learned, scores, ONE_CLASS)
    return measured, Chosen(fraction, "raw_pixels", "strength", best, area)


def _best_fit(recipe: FinetuneRecipe, part: _Part, x: NDArray[np.float64], x_validation: NDArray[np.float64]) -> Any:
    """The fit of the best macro AUROC on the validation part (of equals the stiffest), its strength, and that AUROC."""
    found = fits(x, part.labels, sorted(recipe.linear.strengths), balanced=recipe.pos_weight == "balanced")
    areas = [macro_auroc(fit.logits(x_validation), part.validation_labels) for fit in found]
    best = max(range(len(found)), key=lambda number: (-1.0 if (area := areas[number]) is None else area, -number))
    return found[best], found[best].strength, areas[best]


def _full(
    run: _Run, part: _Part, words: Mapping[str, Words], identity: Mapping[str, str], fraction: float
) -> Generator[Event, None, tuple[Bundle, Head, Chosen]]:
    """Train tower and head; look at the validation part now and then; end with the weights of the best look."""
    recipe, found, folder = run.recipe, part.seen.found, run.folder(fraction)
    bundle = dataclasses.replace(part.seen.base, clip=copy.deepcopy(part.seen.base.clip))
    width, scale = int(bundle.clip.config.projection_dim), bundle.logit_scale
    start_head = zero_head(part.learned, width)
    if recipe.head.init == "text":
        start_head = text_head(part.learned, words, scale)
    elif recipe.head.init == "probe":
        start_head, probed = _linear(recipe, part, fraction)
        yield dataclasses.replace(probed, method="probe")
    module = Classifier(bundle.clip, start_head, scale)
    scales = layer_scales(module.layers, recipe.optimizer.layer_decay)
    optimizer = make_optimizer(module, recipe.optimizer, parameter_groups(module, recipe.optimizer.weight_decay, scales))
    identity = {**identity, "fraction": f"{fraction:g}"}
    checkpoints = Checkpoints(folder / "checkpoints", identity, recipe.checkpoint.keep)
    best = Checkpoints(folder / "best", identity, 1)
    start, refused = checkpoints.last_good()
    yield from refused
    if start:
        checkpoints.load(start, module, optimizer)
    looks = Looks(folder / "looks.json", start)
    batches = LabelledBatches(found.views, part.frame["image"].to_list(), part.labels, batch=recipe.batch, seed=recipe.seed)
    steps = max(recipe.least_steps, recipe.epochs * len(batches))
    losses_of = _losses_of(recipe, module, bundle, part)
    parameters = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    yield Started(str(run.device), parameters, start, steps)

    for stop in sorted({-(-steps * look // recipe.looks) for look in range(recipe.looks + 1)}):
        if looks.since_best() >= recipe.patience:
            break
        if stop > start:
            yield from train(module, optimizer, losses_of, batches.at, _plan(recipe, steps, stop, run.device), checkpoints, start=start)
            start = stop
        if stop == start and not looks.holds(stop):
            look = _look(stop, module, bundle, part)
            if looks.is_best(look):
                best.save(stop, module, optimizer)
            looks.add(look)
            yield look
    chosen = looks.best()
    best.load(chosen.step, module, optimizer)
    about = _about(recipe, part, fraction) | {"steps": chosen.step}
    return bundle, module.head(about), Chosen(fraction, "full", "step", chosen.step, chosen.auroc)


def _losses_of(recipe: FinetuneRecipe, module: Classifier, bundle: Bundle, part: _Part) -> LossesOf:
    """Masked cross-entropy on random views of the stored pictures."""
    device, preprocessing = bundle.device, bundle.preprocessing
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    weights = torch.from_numpy(pos_weights(part.labels, balanced=recipe.pos_weight == "balanced")).to(device)

    def losses_of(batch: Mapping[str, torch.Tensor], step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        grey = augment(batch["images"], recipe.augmentation, preprocessing.size, generator)
        return {"bce": bce_loss(module((grey - mean) / std), batch["labels"], weights)}

    return losses_of


def _look(step: int, module: Classifier, bundle: Bundle, part: _Part) -> Look:
    """Macro AUROC and loss on the validation part, scored as `mmclip score` would."""
    module.eval()
    scores = module.head({}).scores(encode(bundle, part.seen.pictures(part.validation), BATCH))
    labels = part.validation_labels
    known = ~np.isnan(labels)
    likely = np.where(labels == 1, scores, 1 - scores)[known]
    return Look(step, macro_auroc(scores, labels), float(-np.log(np.clip(likely, 1e-12, 1)).mean()))


def _plan(recipe: FinetuneRecipe, steps: int, stop: int, device: torch.device) -> Plan:
    return Plan(
        stop=stop,
        seed=recipe.seed,
        weights={"bce": 1.0},
        lr_at=lambda step: learning_rate(recipe.optimizer, step, steps),
        save_every=steps + 1,  # at every stop
        read_every=READ_EVERY if device.type == "cuda" else 1,
        batch_size=recipe.batch,
        precision=recipe.precision,
        clip_norm=recipe.optimizer.clip_norm,
    )


# ---- figures -------------------------------------------------------------------------------------------------------------------


def _measured(
    fraction: float, method: str, found: LabelledPictures, scored: Sequence[str], scores: NDArray[np.float64], reason: str
) -> Measured:
    """Figures on the test part; findings that were not scored keep their row, without figures, with the reason."""
    test = found.split.part("test")
    labels = labels_of(test, scored).astype(np.float64)
    rows = {row.finding: row for row in figures(list(scored), scores, labels, test["patient"].to_numpy().astype(str))}
    for name in found.findings:
        if name not in rows:
            column = test[name].drop_nulls()
            rows[name] = FindingFigures(name, len(column), int(column.sum()), reason=reason)
    return Measured(fraction, method, tuple(rows[name] for name in (*found.findings, "macro")))


def _words(recipe: FinetuneRecipe, bundle: Bundle) -> dict[str, Words]:
    prompts = load_recipe(recipe.head.prompts, PromptRecipe)
    return words_by_finding(prompts, lambda texts: bundle.text_features(texts).cpu().numpy())


def _zero_shot(run: _Run, seen: _Seen, words: Mapping[str, Words]) -> Measured:
    """The 0 % point: words alone."""
    prompts = load_recipe(run.recipe.head.prompts, PromptRecipe)
    test, findings = seen.found.split.part("test"), [name for name in seen.found.findings if name in words]
    scale = logit_scale(prompts, seen.base.logit_scale)
    spoken = {name: words[name] for name in findings}
    scores = zero_shot(seen.features(test), spoken, score=prompts.score, pool=prompts.pool, scale=scale)
    return _measured(0.0, "zero_shot", seen.found, findings, scores, "no prompt for it")


def _rows(measured: Measured, patients: int, images: int, positive: Mapping[str, int]) -> list[dict[str, Any]]:
    """Rows of the learning curve."""
    return [
        {
            "fraction": measured.fraction,
            "method": measured.method,
            "train_patients": patients,
            "train_images": images,
            "train_positive": positive.get(row.finding, 0),
            **row.as_row(),
        }
        for row in measured.figures
    ]


# ---- what is written about the run ---------------------------------------------------------------------------------------------


def recipe_hash(recipe: FinetuneRecipe) -> str:
    """A sha256 over every key of the recipe, those left to their defaults included."""
    return hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()


def _device(device: str) -> torch.device:
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"no device is called {device}", hint="auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("this machine has no GPU that torch can use", hint="--device cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _facts(recipe: FinetuneRecipe, fractions: Sequence[float], device: torch.device) -> dict[str, Any]:
    return {
        "notice": "RESEARCH USE ONLY - not for clinical use",
        "versions": versions(PACKAGES),
        "device": device_facts(device),
        "seed": recipe.seed,
        "fractions": list(fractions),
        "recipe_hash": recipe_hash(recipe),
        "recipe": recipe.model_dump(mode="json"),
    }


def _prepared(found: LabelledPictures, begun: float) -> Prepared:
    parts = {part: found.split.part(part) for part in PARTS}
    return Prepared(
        findings=found.findings,
        images={part: frame.height for part, frame in parts.items()},
        patients={part: frame["patient"].n_unique() for part, frame in parts.items()},
        split_sha256={part: split_hash(frame) for part, frame in parts.items()},
        dropped=found.dropped,
        disagreeing=found.split.disagreeing,
        seconds=round(time.monotonic() - begun, 3),
    )


def _drawn(frame: pl.DataFrame, findings: Sequence[str], fraction: float) -> Drawn:
    positive = {name: int((frame[name] == 1).sum()) for name in findings}
    negative = {name: int((frame[name] == 0).sum()) for name in findings}
    one_class = tuple(name for name in findings if not (positive[name] and negative[name]))
    return Drawn(fraction, frame["patient"].n_unique(), frame.height, positive, negative, one_class)


def _data_hash(found: LabelledPictures) -> str:
    """A sha256 over every image's bytes, part and labels; paths do not count."""
    digest = hashlib.sha256()
    frame = found.split.frame.sort("image")
    for image, *rest in frame.select("image", "part", "patient", *found.findings).iter_rows():
        digest.update(repr((image, found.content(image), rest)).encode())
    return digest.hexdigest()


def _check_identity(run: _Run, identity: Mapping[str, str]) -> None:
    """Refuse, before any training, to go on with checkpoints of another recipe, model, data or code."""
    for fraction in run.fractions:
        checkpoints = Checkpoints(run.folder(fraction) / "checkpoints", identity)
        for step in checkpoints.steps():
            checkpoints.check_identity(step)


def _about(recipe: FinetuneRecipe, part: _Part, fraction: float) -> dict[str, Any]:
    """What mmclip.json says about the head, for whoever calibrates it."""
    labels = part.labels
    prevalence = np.nanmean(labels, axis=0)
    weights = pos_weights(labels, balanced=recipe.pos_weight == "balanced")
    return {
        "mode": recipe.mode,
        "fraction": fraction,
        "prevalence": {name: round(float(value), 6) for name, value in zip(part.learned, prevalence, strict=True)},
        "pos_weight": {name: round(float(value), 6) for name, value in zip(part.learned, weights, strict=True)},
    }


def _save(
    run: _Run,
    model: Bundle,
    found: LabelledPictures,
    frame: pl.DataFrame,
    validation: pl.DataFrame,
    fraction: float,
    rows: Sequence[Mapping[str, Any]],
    *,
    chosen: Mapping[str, Any],
) -> None:
    """The classifier bundle, with its card."""
    recipe, head = run.recipe, model.head
    assert head is not None  # the caller has just put it there
    name = run.out.name if fraction == run.fractions[-1] else f"{run.out.name} {100 * fraction:g} %"
    used = {"train": frame, "validation": validation, "test": found.split.part("test")}
    parts = {
        part: {"patients": each["patient"].n_unique(), "images": each.height, "sha256": split_hash(each)} for part, each in used.items()
    }
    facts = {
        "base": Path(recipe.model).name,
        "base_hash": model.content_hash,
        "mode": recipe.mode,
        "init": recipe.init,
        "fraction": fraction,
        "seed": recipe.seed,
        "parts": parts,
        "steps": f"C = {chosen['strength']:g}" if "strength" in chosen else f"{chosen['steps']} steps of {recipe.batch} images",
        "pos_weight": recipe.pos_weight,
        "recipe_hash": recipe_hash(recipe),
        "sources": sorted(set(found.split.frame["source"])),
    }
    save_bundle(
        run.bundle(fraction),
        model.clip,
        model.tokenizer,
        model.preprocessing,
        name=name,
        card=classifier_card(name, facts, rows),
        provenance={**facts, "recipe": _portable(recipe.model_dump(mode="json")), "versions": versions(PACKAGES)},
        head=head,
    )


def _portable(value: Any) -> Any:
    """A recipe as a model may carry it to others: of an absolute path only its last part."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


@contextlib.contextmanager
def _accounted(record: RunRecord, device: torch.device) -> Iterator[None]:
    """Writes to `run.json` how the run ended, whatever ended it; the disk may be what failed, so that is no second error."""
    try:
        yield
        record.say(status="finished")
    except BaseException as error:
        with contextlib.suppress(EngineError):
            status = "failed" if isinstance(error, Exception) else "stopped"
            record.say(status=status, error=str(error) if isinstance(error, EngineError) else type(error).__name__)
        if isinstance(error, torch.OutOfMemoryError):
            raise EngineError(f"the {device.type} has too little memory for a step", hint="a smaller batch") from error
        raise
