"""Fine-tuning, whole: an image tower, labels and a fraction of the patients -> a classifier bundle, and what it is worth.

out/
    bundle/              the classifier of the largest fraction, for `score --model`
    finetune.html        verdicts in words, the curve and its figures as one page
    curve.csv .json .svg figures of every fraction on the test part, with raw pixels on the same images and zero-shot
    metrics.csv          the largest fraction's rows, as `score` writes them
    fraction-0.1/        of each fraction: bundle/ (but the largest's), checkpoints/, best/ and validation.json of `mode: full`
    data/                images and features, prepared once
    log.jsonl run.json   every event; versions, seed, recipe, hashes, counts that add up

    sources -> parts by patient -> fraction of the training patients -> head on kept features, or training, validated now and then
            -> the best of them, once, on the test part
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.data.batches import augment
from engine.data.finetune_data import FinetuneDataSummary, LabelledBatches, LabelledImages, labelled_images
from engine.data.finetune_plan import FinetunePlan, finetune_table, plan_finetuning, split_by_of
from engine.data.label_fractions import Fraction, FractionSplit, checked_fractions, fraction_split, labels_of
from engine.data.leak_check import leak_by_copies
from engine.data.sources.published import check_there
from engine.data.splits import TEST, TRAIN
from engine.dicom.reader_version import reader_version
from engine.errors import UsageError
from engine.evaluation.learning_curve import CurvePoint, HeldOutSet, ValidationChoice, curve_rows, publish_curve
from engine.evaluation.verdicts import TestScores, Verdict, compare, finetuning_page
from engine.metrics.calibration import sigmoid
from engine.metrics.roc import macro_auroc, mean_log_loss
from engine.model.bundle import Bundle, load_bundle
from engine.model.bundle_folder import describe, local_folder
from engine.model.cards import classifier_facts, save_finetuned
from engine.model.classifier import Classifier, bce_loss, class_balance, layer_scales, pos_weights, randomised, text_head, zero_head
from engine.model.head import Head
from engine.model.linear_probe import Fit, Floats, best_fit, fits, raw_pixels
from engine.model.phrases import check_phrases
from engine.model.population import Population
from engine.model.zero_shot import Words, logit_scale, words_by_finding, zero_shot
from engine.recipe.loader import load_recipe
from engine.recipe.prompts import PromptRecipe
from engine.scoring.image_features import content_features
from engine.scoring.output import publish_metrics
from engine.scoring.scorers import encode
from engine.tables.atomic import locked
from engine.tables.columns import METRIC_COLUMNS
from engine.tables.disk_space import check_disk_space
from engine.tables.run_log import Notice, RunLog, versions
from engine.tables.shards import ShardFolder
from engine.training.checkpoint import Checkpoints, Refused, Saved
from engine.training.distributed import resolved_device
from engine.training.early_stopping import ValidationHistory, ValidationResult, train_with_early_stopping
from engine.training.finetuning import check_checkpoints, finetuning_facts, finetuning_plan
from engine.training.loop import LossesOf, Step
from engine.training.optimizer import make_optimizer, parameter_groups
from engine.training.provenance import changed_keys, outcome_recorded, recipe_hash, run_identity

if TYPE_CHECKING:
    import polars as pl

    from engine.data.sources import ImageTable
    from engine.recipe.finetuning import FinetuneRecipe

BATCH = 64
"""Images per forward pass where nothing is trained."""
ONE_CLASS = "one class only in the training part"


@dataclass(frozen=True)
class FinetuneStarted:
    """The first step is about to be taken: step `start` of at most `stop` (0-based)."""

    device: str
    parameters: int
    start: int
    stop: int


@dataclass(frozen=True)
class FinetuneFinished:
    """The run has ended; the classifier of the largest fraction is in `bundle`, and `curve` holds the rows of curve.csv."""

    bundle: Path
    curve: tuple[Mapping[str, Any], ...]
    seconds: float


Event = (
    FinetunePlan
    | Notice
    | FinetuneDataSummary
    | FractionSplit
    | Refused
    | FinetuneStarted
    | Step
    | Saved
    | ValidationResult
    | ValidationChoice
    | CurvePoint
    | Verdict
    | FinetuneFinished
)


def finetune(
    recipe: FinetuneRecipe,
    out: Path,
    *,
    fractions: Sequence[float] = (1.0,),
    resume: bool = False,
    device: str = "auto",
    data: Path | None = None,
    dry_run: bool = False,
) -> Generator[Event, None, None]:
    """Make a classifier of each fraction of the training patients, in the folder `out`; yield events.

    Args:
        fractions: shares of the training patients, each above 0 and at most 1; smaller ones are subsets of larger ones.
        resume: go on with the run in `out`, to the bit (on a CPU with the same number of threads).
        device: auto | cpu | cuda.
        data: folder of prepared images and features, which several runs may share; None: `out/data`.
        dry_run: check everything that can be known without reading an image, yield the plan, and write nothing.

    Raises:
        UsageError: a fraction out of range, `out` holds a run and `resume` is not set, or there is no such device.
        ConfigError, InputMissing, ReadError, LabelsError: data that are missing, do not fit the recipe, or leak between parts.
        ModelError: a model or checkpoint that cannot be used. NotFinite: a loss, feature or score is NaN.
        OutputError: the disk is full. LockHeld: another run works in `out`.
    """
    check_there(recipe.sources)
    fractions = checked_fractions(fractions)
    where = resolved_device(device)
    if local_folder(recipe.model) is not None:
        describe(recipe.model)  # its files are whole
    table = finetune_table(recipe)
    plan = plan_finetuning(recipe, fractions, table)
    if dry_run:
        check_disk_space(out, _bytes_needed(recipe, table))
        yield plan
        return
    with locked(out):
        if (out / "run.json").exists() and not resume:
            raise UsageError("the output folder holds a run", hint="--resume to go on with it, or another --out")
        check_disk_space(out, _bytes_needed(recipe, table))
        changed = tuple(changed_keys(out, recipe))  # before run.json is written again
        run = _FinetuneRun(recipe, out, fractions, where, data or out / "data", time.monotonic(), changed=changed)
        log = RunLog(out, finetuning_facts(recipe, fractions, where), waits=resume)
        events = _events(run, log, resume, table, plan)
        with outcome_recorded(log, where, "a smaller batch"), contextlib.closing(events):
            for event in events:
                log.append(event)
                yield event
        finished = FinetuneFinished(out / "bundle", tuple(run.curve), round(time.monotonic() - run.begun, 3))
        log.append(dataclasses.replace(finished, curve=()))
        yield finished


@dataclass
class _FinetuneRun:
    """What stays the same over the fractions, and the rows that grow."""

    recipe: FinetuneRecipe
    out: Path
    fractions: tuple[float, ...]
    device: torch.device
    data: Path
    begun: float
    curve: list[dict[str, Any]] = field(default_factory=list)
    changed: tuple[str, ...] = ()
    verdicts: list[Verdict] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def folder(self, fraction: float) -> Path:
        return self.out / f"fraction-{fraction:g}"

    def bundle(self, fraction: float) -> Path:
        return self.out / "bundle" if fraction == self.fractions[-1] else self.folder(fraction) / "bundle"


@dataclass(frozen=True)
class _Seen:
    """The images as the pretrained model sees them, its features of them, computed once, and its words."""

    base: Bundle
    found: LabelledImages
    data: Path
    prompts: PromptRecipe
    words: Mapping[str, Words]
    held_out: HeldOutSet

    def pictures(self, frame: pl.DataFrame) -> list[NDArray[np.uint8]]:
        return [self.found.seen.picture(image) for image in frame["image"]]

    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        names = frame["image"].to_list()
        contents = [self.found.content(image) for image in names]
        store = self.found.seen
        reader = f"{reader_version()} in a pixel store {store.size} {store.resize}"
        shards = ShardFolder(self.data / "features", self.base.content_hash, reader, int(self.base.clip.config.projection_dim))
        return content_features(
            contents, lambda place: store.picture(names[place]), shards, lambda images: encode(self.base, images, BATCH)
        )


def _bytes_needed(recipe: FinetuneRecipe, table: ImageTable) -> int:
    """About what the run writes: two pixel stores of the largest usual size, features, and the model a few times over."""
    side = recipe.store_size or 256
    return len(table.frame) * (2 * side * side + 4096) + 200_000_000


def _events(run: _FinetuneRun, log: RunLog, resume: bool, table: ImageTable, plan: FinetunePlan) -> Generator[Event, None, None]:
    """The run as a story: model, data and parts, zero-shot, then every fraction."""
    recipe = run.recipe
    yield plan
    run.notices += plan.notices
    yield from map(Notice, plan.notices)
    base = load_bundle(recipe.model, run.device)
    if recipe.init == "random":
        base = randomised(base, recipe.seed)
    preprocessing = base.preprocessing
    found = labelled_images(recipe, table, run.data, size=preprocessing.read_size, resize=preprocessing.resize, verify=not resume)
    prepared = found.prepared(round(time.monotonic() - run.begun, 3))
    identity = run_identity(recipe) | {"model": base.content_hash, "data": found.content_hash}
    check_checkpoints((run.folder(fraction) / "checkpoints" for fraction in run.fractions), identity, run.changed)
    log.waits = False
    log.update(prepared=prepared, model={"name": base.name, "sha256": base.content_hash}, sources=found.facts)
    yield prepared

    seen = _seen(run, base, found)
    tested, trained = (seen.pictures(found.split.part(part)) for part in (TEST, TRAIN))
    if copies := leak_by_copies(tested, trained):
        run.notices.append(copies)
        yield Notice(copies)
    own = {name: seen.prompts.findings[name] for name in found.findings if name in seen.prompts.findings}
    yield from map(Notice, check_phrases(own, base.tokenizer, base.context, base.name))
    zero, words = _zero_shot(seen)
    yield zero
    run.curve += curve_rows(zero)
    for fraction in run.fractions:
        yield from _fraction(run, seen, identity, fraction, words)
    account = {
        "split_sha256": dict(prepared.split_sha256),
        "recipe_sha256": recipe_hash(recipe),
        "split_by": plan.split_by,
        "verdicts": [str(each) for each in run.verdicts],
    }
    publish_curve(run.out, run.curve, account)
    finetuning_page(run.out, run.curve, run.verdicts, run.notices)
    best = [row for row in run.curve if row["fraction"] == run.fractions[-1] and row["method"] == recipe.mode]
    publish_metrics(run.out, [{key: row[key] for key in METRIC_COLUMNS} for row in best], {})
    log.update(curve=run.curve)


def _seen(run: _FinetuneRun, base: Bundle, found: LabelledImages) -> _Seen:
    prompts = load_recipe(run.recipe.head.prompts, PromptRecipe)
    words = words_by_finding(prompts, lambda texts: base.text_features(texts).cpu().numpy())
    test = found.split.part("test")
    labels, patients = labels_of(test, found.findings), test["patient"].to_numpy().astype(str)
    return _Seen(base, found, run.data, prompts, words, HeldOutSet(found.findings, labels, patients))


def _zero_shot(seen: _Seen) -> tuple[CurvePoint, TestScores]:
    """The 0 % point: words alone; and its scores."""
    prompts, test = seen.prompts, seen.found.split.part("test")
    spoken = {name: seen.words[name] for name in seen.found.findings if name in seen.words}
    scale = logit_scale(prompts, seen.base.logit_scale)
    scores = zero_shot(seen.features(test), spoken, score=prompts.score, pool=prompts.pool, scale=scale)
    measured = seen.held_out.measured(0.0, "zero_shot", list(spoken), scores, "no prompt for it")
    return measured, TestScores("zero_shot", tuple(spoken), scores)


def _fraction(run: _FinetuneRun, seen: _Seen, identity: Mapping[str, str], share: float, words: TestScores) -> Generator[Event, None, None]:
    """One fraction: draw, learn, choose on the validation part, judge once on the test part, save."""
    recipe, found = run.recipe, seen.found
    part = fraction_split(found.split, found.findings, share, recipe.seed, scaled=recipe.validation.scaled)
    drawn = part.drawn
    yield drawn
    if recipe.mode == "linear":
        head, chosen = _linear(recipe, seen, part)
        tower = seen.base
    else:
        tower, head, chosen = yield from _full(run, seen, part, identity)
    yield chosen
    model = dataclasses.replace(tower, head=head)
    features = seen.features(part.test) if recipe.mode == "linear" else encode(model, seen.pictures(part.test), BATCH)
    scores = head.scores(features)
    scored = seen.held_out.measured(share, recipe.mode, part.learned, scores, ONE_CLASS)
    yield scored
    baseline, chosen, pixels = _raw_pixels(recipe, seen, part)
    yield chosen
    yield baseline
    mine, held_out = TestScores(recipe.mode, part.learned, scores), seen.held_out
    for other in (pixels, words):
        verdict = compare(share, mine, other, held_out.findings, held_out.labels, held_out.patients)
        if verdict is not None:
            run.verdicts.append(verdict)
            yield verdict
    rows = [row for each in (scored, baseline) for row in curve_rows(each, drawn.patients, drawn.images, drawn.positive)]
    run.curve += rows
    name = run.out.name if share == run.fractions[-1] else f"{run.out.name} {100 * share:g} %"
    facts = classifier_facts(
        recipe,
        recipe_hash(recipe),
        head.about,
        base_hash=model.content_hash,
        parts=part.account(),
        sources=part.sources,
        split_by=split_by_of(found.facts),
    )
    zero_shot_rows = run.curve[: len(found.findings) + 1]
    save_finetuned(
        run.bundle(share), model, name, recipe, facts, [*zero_shot_rows, *rows], versions=versions(), population=_population(part.train)
    )


def _population(frame: pl.DataFrame) -> dict[str, Any]:
    return Population.of(frame.select("source", "age", "view").iter_rows()).as_section()


# ---- learning ------------------------------------------------------------------------------------------------------------------


def _linear(recipe: FinetuneRecipe, seen: _Seen, part: Fraction) -> tuple[Head, ValidationChoice]:
    """The linear probe: logistic regression on kept features, its strength chosen on the validation part."""
    x, x_validation = (seen.features(each).astype(np.float64) for each in (part.train, part.validation))
    fit, area = _best_fit(recipe, part, x, x_validation)
    about = _about(recipe, part) | {"strength": fit.strength}
    head = Head(part.learned, fit.weight.astype(np.float32), fit.bias.astype(np.float32), about)
    return head, ValidationChoice(part.share, "linear", "strength", fit.strength, area)


def _raw_pixels(recipe: FinetuneRecipe, seen: _Seen, part: Fraction) -> tuple[CurvePoint, ValidationChoice, TestScores]:
    """The raw-pixel baseline on the same images, its strength chosen in the same way; and its scores."""
    parts = (part.train, part.validation, part.test)
    x, x_validation, x_test = (raw_pixels(seen.pictures(each), recipe.baseline.side) for each in parts)
    fit, area = _best_fit(recipe, part, x, x_validation)
    scores = sigmoid(fit.logits(x_test))
    measured = seen.held_out.measured(part.share, "raw_pixels", part.learned, scores, ONE_CLASS)
    choice = ValidationChoice(part.share, "raw_pixels", "strength", fit.strength, area)
    return measured, choice, TestScores("raw_pixels", part.learned, scores)


def _best_fit(recipe: FinetuneRecipe, part: Fraction, x: Floats, x_validation: Floats) -> tuple[Fit, float | None]:
    """The fit of the best macro AUROC on the validation part (of equals the stiffest), and that AUROC."""
    found = fits(x, part.labels, sorted(recipe.linear.strengths), balanced=recipe.pos_weight == "balanced")
    return best_fit(found, lambda fit: macro_auroc(fit.logits(x_validation), part.validation_labels))


def _full(
    run: _FinetuneRun, seen: _Seen, part: Fraction, identity: Mapping[str, str]
) -> Generator[Event, None, tuple[Bundle, Head, ValidationChoice]]:
    """Train tower and head with early stopping; the weights of the best validation result are kept."""
    recipe, folder = run.recipe, run.folder(part.share)
    bundle = dataclasses.replace(seen.base, clip=copy.deepcopy(seen.base.clip))
    start_head = zero_head(part.learned, int(bundle.clip.config.projection_dim))
    if recipe.head.init == "text":
        start_head = text_head(part.learned, seen.words, bundle.logit_scale)
    elif recipe.head.init == "probe":
        start_head, probed = _linear(recipe, seen, part)
        yield dataclasses.replace(probed, method="probe")
    module = Classifier(bundle.clip, start_head, bundle.logit_scale)
    scales = layer_scales(module.layers, recipe.optimizer.layer_decay)
    optimizer = make_optimizer(module, recipe.optimizer, parameter_groups(module, recipe.optimizer.weight_decay, scales))
    identity = {**identity, "fraction": f"{part.share:g}"}
    checkpoints = Checkpoints(folder / "checkpoints", identity, recipe.checkpoint.keep)
    start, refused = checkpoints.last_good()
    yield from refused
    if start:
        checkpoints.load(start, module, optimizer)
    batches = LabelledBatches(seen.found.views, part.train["image"].to_list(), part.labels, batch=recipe.batch, seed=recipe.seed)
    plan = finetuning_plan(recipe, max(recipe.least_steps, recipe.epochs * len(batches)), run.device)
    history = ValidationHistory(folder / "validation.json", start)
    parameters = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    yield FinetuneStarted(str(run.device), parameters, start, plan.stop)
    best = yield from train_with_early_stopping(
        module,
        optimizer,
        _losses_of(recipe, module, bundle, part),
        batches.at,
        plan,
        checkpoints,
        start=start,
        history=history,
        validate=lambda step: _validated(step, module, bundle, seen.pictures(part.validation), part.validation_labels),
        best=Checkpoints(folder / "best", identity, 1),
        times=recipe.looks,
        patience=recipe.patience,
    )
    head = module.head(_about(recipe, part) | {"steps": best.step})
    return bundle, head, ValidationChoice(part.share, "full", "step", best.step, best.auroc)


def _losses_of(recipe: FinetuneRecipe, module: Classifier, bundle: Bundle, part: Fraction) -> LossesOf:
    """Masked cross-entropy on random views of the stored images."""
    device, preprocessing = bundle.device, bundle.preprocessing
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    weights = torch.from_numpy(pos_weights(part.labels, balanced=recipe.pos_weight == "balanced")).to(device)

    def losses_of(batch: Mapping[str, torch.Tensor], step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        grey = augment(batch["images"], recipe.augmentation, preprocessing.size, generator)
        return {"bce": bce_loss(module((grey - mean) / std), batch["labels"], weights)}

    return losses_of


def _validated(
    step: int, module: Classifier, bundle: Bundle, pictures: Sequence[NDArray[np.uint8]], labels: NDArray[np.float32]
) -> ValidationResult:
    """Macro AUROC and loss on the validation split, scored as `mmclip score` would."""
    module.eval()
    scores = module.head({}).scores(encode(bundle, pictures, BATCH))
    return ValidationResult(step, macro_auroc(scores, labels), mean_log_loss(scores, labels))


def _about(recipe: FinetuneRecipe, part: Fraction) -> dict[str, Any]:
    """What mmclip.json says about the head."""
    balance = class_balance(part.learned, part.labels, balanced=recipe.pos_weight == "balanced")
    return {"mode": recipe.mode, "fraction": part.share, **balance}
