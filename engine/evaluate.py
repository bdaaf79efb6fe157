"""`evaluate`: labelled images and a model to figures with intervals, compared with published ones.

    recipe -> sources -> images in splits -> features (cached by content) -> scores -> studies -> figures, subgroups, phrases, calibration

Several recipes make one table; a row whose data or models are missing says what it needs. Everything that can be known before the first
image is read is checked first, in a dry run and in a run alike. engine/evaluation/output.py lists the files that are written;
engine/evaluation/from_scores.py evaluates scores that exist already.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.data.splits import TEST, TRAIN, VALIDATION
from engine.errors import ConfigError, InputMissing, NotFinite, UsageError
from engine.evaluation.events import (
    EvaluationFinished,
    EvaluationNotice,
    EvaluationPlan,
    EvaluationSkipped,
    Event,
    ModelFigures,
    ModelStarted,
    RowPlan,
    TablesWritten,
)
from engine.evaluation.image_encoder import ImageEncoder
from engine.evaluation.output import CALIBRATION, clear_evaluation, publish_evaluation, publish_evaluation_record
from engine.evaluation.published import missing_row, published_rows
from engine.evaluation.row_data import FEATURE_BYTES, RowData, check_models, missing_needs, read_row, row_plan
from engine.evaluation.studies import (
    ScoredStudies,
    calibrated,
    fit_calibration_maps,
    nonfinite_counts,
    paired_comparisons,
    validation_thresholds,
)
from engine.evaluation.study_scores import StudyTable, studies
from engine.evaluation.tables import EvaluationTables, comparison_rows, phrase_row
from engine.metrics.calibration import sigmoid
from engine.model.bundle_folder import card_summary
from engine.model.linear_probe import separate_logits
from engine.model.phrases import check_phrases
from engine.recipe.evaluation import PublishedFigures
from engine.recipe.evaluation_rows import EvaluationRow, rows_of
from engine.recipe.loader import find_recipe, load_recipe, recipe_name
from engine.scoring.scorers import RANDOM, Phrase, WordScorer, joint_hash, prob_mean, scorer_of, weight_soup
from engine.tables.atomic import locked, make_folder
from engine.tables.calibrations import write_calibration
from engine.tables.disk_space import check_disk_space
from engine.tables.identity import Names, site_key
from engine.tables.run_log import utc_time, versions

if TYPE_CHECKING:
    from engine.model.bundle import Bundle

Device = Literal["auto", "cpu", "cuda"]
PUBLISHED = "eval/published"
BASELINE = "raw pixels, supervised"
BASELINE_STRENGTH = 0.001
"""C of the baseline's logistic regression (as in scikit-learn), chosen once for 32 x 32 standardised pixels; not a key of recipes."""


def evaluate(
    recipe: str | Path,
    *,
    settings: Sequence[str] = (),
    model: str | None = None,
    against: str | None = None,
    calibrate: bool = False,
    out: Path = Path("mmclip-eval"),
    device: Device = "auto",
    workers: int | None = None,
    batch_size: int | None = None,
    dry_run: bool = False,
) -> Iterator[Event]:
    """Measure a recipe, or every row of a set of recipes, and write the tables to `out`.

    Args:
        recipe: an evaluation recipe or a set of them: a path, else a shipped name.
        settings: `key=value`, as `--set`.
        model: replaces `models` in every row that has one model.
        against: a second model on the same studies, for a paired test of the difference.
        calibrate: fit calibration maps on the validation split and also measure the calibrated scores; one recipe with one model.
        out: the output folder; features are cached there for the next run.
        dry_run: check and count everything that needs no image, and write nothing.

    Rows of a set that lack data or a model are `EvaluationSkipped`; of a single recipe that is an error.

    Raises:
        InputMissing, RecipeError, ConfigError, ModelError, LabelsError: see the message; leakage is a LabelsError.
        NotFinite: a model gives NaN. UsageError: options that do not fit the recipe. OutputError, LockHeld: `out`.
    """
    from engine.training.distributed import resolved_device

    begun = time.monotonic()
    rows, of_a_set = rows_of(recipe, settings, model)
    if calibrate and (of_a_set or rows[0].recipe.classifiers):
        raise UsageError("--calibrate fits the maps of one model", hint="one evaluation recipe without `classifiers`")
    chosen_device = resolved_device(device).type
    plans, row_data = _checked_rows(rows, of_a_set, against, calibrate)
    check_disk_space(out, FEATURE_BYTES * sum(data.frame.height * _model_count(data, against) for data in row_data.values()))
    yield EvaluationPlan(tuple(plans), chosen_device)
    if dry_run:
        return
    with locked(out):
        make_folder(out / "private", mode=0o700)
        encoder = ImageEncoder(out, workers or len(os.sched_getaffinity(0)), batch_size or (64 if chosen_device == "cuda" else 8))
        measuring = _Measuring(encoder, chosen_device)
        for number, (row, plan) in enumerate(zip(rows, plans, strict=True)):
            needs = plan.needs
            if not needs:
                try:
                    yield from measuring.measure(row_data.pop(number), against, calibrate)
                except (ConfigError, InputMissing) as error:
                    if not of_a_set:
                        raise
                    needs = f"needs {error}"
            if needs:
                yield EvaluationSkipped(row.recipe.title, needs)
                measuring.tables.add("table", _missing_rows(row, needs))
            measuring.tables.add("table", _published_after(rows, number))
        clear_evaluation(out)
        record: dict[str, Any] = {
            "time": utc_time(),
            "versions": versions(),
            "device": chosen_device,
            "recipe": {"name": recipe_name(find_recipe(recipe)), "settings": list(settings), "against": against},
            "evaluations": measuring.records,
        }
        tables = measuring.tables
        publish_evaluation(out, tables.rows, tables.predictions(), {"evaluations": measuring.records})
        if measuring.calibration is not None:
            write_calibration(out / CALIBRATION, measuring.calibration)
        record["seconds"] = round(time.monotonic() - begun, 3)
        yield TablesWritten(out, record, tables.rows, tables.curves)
        yield EvaluationFinished(publish_evaluation_record(out, record), tables.rows)


def _checked_rows(
    rows: Sequence[EvaluationRow], of_a_set: bool, against: str | None, calibrate: bool
) -> tuple[list[RowPlan], dict[int, RowData]]:
    """The plan of every row, and the data of those that lack nothing, by number."""
    plans, found = [], {}
    for number, row in enumerate(rows):
        needs = missing_needs(row)
        if needs and not of_a_set:
            raise ConfigError("the evaluation's data or models are not there", why=needs, hint="--set KEY=VALUE for each of these")
        if not needs:
            try:
                data = read_row(row, calibrate=calibrate)
                check_models(data, against)
                found[number] = data
            except (ConfigError, InputMissing) as error:
                if not of_a_set:
                    raise
                needs = f"needs {error}"
        plans.append(row_plan(found[number]) if number in found else RowPlan(row.recipe.title, needs))
    return plans, found


def _model_count(data: RowData, against: str | None) -> int:
    """Number of models that encode the images of a row."""
    recipe = data.recipe
    return sum(len(names) for _, names in recipe.contenders) + (against is not None) + (recipe.baseline != "none")


def _missing_rows(row: EvaluationRow, needs: str) -> list[dict[str, Any]]:
    names = [label or (models[0] if len(models) == 1 else row.recipe.joint_name) for label, models in row.recipe.contenders]
    return [missing_row(row.recipe.title, name, needs).as_row() for name in names]


def _published_after(rows: Sequence[EvaluationRow], number: int) -> list[dict[str, Any]]:
    """The published figures that follow this row of the table: those of the last row that names them."""
    tables = load_recipe(PUBLISHED, PublishedFigures).tables
    name = rows[number].recipe.published
    if name not in tables or name in {each.recipe.published for each in rows[number + 1 :]}:
        return []
    title = next(each.recipe.title for each in rows if each.recipe.published == name)
    return [each.as_row() for each in published_rows(title, tables[name])]


class _Measuring:
    """Measures rows one after the other; collects the tables, the entries of run.json and the calibration."""

    def __init__(self, encoder: ImageEncoder, device: str) -> None:
        self.encoder, self.device = encoder, device
        self.pseudonyms = Names(site_key())
        self.tables = EvaluationTables()
        self.records: list[dict[str, Any]] = []
        self.calibration: dict[str, Any] | None = None

    def measure(self, data: RowData, against: str | None, calibrate: bool) -> Iterator[Event]:
        """All figures of one row."""
        recipe = data.recipe
        first: tuple[str, ScoredStudies] | None = None
        for label, names in recipe.contenders:
            measured = yield from self._model(data, label, names, calibrate)
            first = first or measured
        if against is not None and first is not None:
            name, second = yield from self._model(data, "", (against,), calibrate=False)
            self.tables.add("comparisons", comparison_rows(recipe.title, first[0], name, paired_comparisons(first[1], second)))
        if recipe.baseline == "raw_pixels":
            yield from self._baseline(data)
        self.records.append(data.record)

    def _model(self, data: RowData, label: str, names: Sequence[str], calibrate: bool) -> Generator[Event, None, tuple[str, ScoredStudies]]:
        """Figures, subgroups, phrases and calibration of one model or ensemble; its name and the test studies."""
        recipe, title = data.recipe, data.recipe.title
        bundles = [self._bundle(name) for name in names]
        bundles = [weight_soup(bundles)] if recipe.ensemble == "weight_soup" else bundles
        name = label or (bundles[0].name if len(bundles) == 1 else recipe.joint_name)
        used = [TEST] if recipe.threshold.source == "fixed" and not calibrate else [TEST, VALIDATION]
        images, size = pl.concat([data.split(split) for split in used]), data.split(TEST).height
        yield ModelStarted(title, name, images.height * len(bundles))
        scores, phrases, unread = [], [], Counter[str]()
        for bundle in bundles:
            if bundle.head is None:
                found = check_phrases(data.prompts.findings, bundle.tokenizer, bundle.context, bundle.name)
                yield from (EvaluationNotice(f"{title}: {each}") for each in found)
            features, reasons = yield from self.encoder.features(images["file"].to_list(), bundle)
            unread.update(reasons)
            scorer = scorer_of(bundle, data.prompts, list(data.columns))
            scores.append(scorer.scores(features))
            if recipe.phrasings and isinstance(scorer, WordScorer):
                phrases.append(list(scorer.phrases(features[:size])))
        joint = prob_mean(scores)
        test, table = data.studies(TEST, joint[:size])
        if table.frame.is_empty():
            why = ", ".join(f"{count} {reason}" for reason, count in sorted(unread.items()))
            raise ConfigError(f"none of the {size} test images of {title} can be read", why=why, hint="mmclip score says more")
        valid = data.studies(VALIDATION, joint[size:])[0] if VALIDATION in used else None
        if broken := nonfinite_counts(test):
            raise NotFinite(f"scores that are not finite: {', '.join(f'{count} of {each}' for each, count in broken.items())}")
        for same_phrase in zip(*phrases, strict=True):
            self._add_phrase(data, name, test, same_phrase)
        content = joint_hash([bundle.content_hash for bundle in bundles], recipe.ensemble)
        about = {"name": name, "sha256": content, "summary": card_summary(bundles[0].card) if len(bundles) == 1 else ""}
        data.record["models"].append(about | {"unread": dict(unread), "disagreeing_labels": table.disagreeing})
        yield self._add_model(data, name, test, valid, table)
        if calibrate and valid is not None:
            yield self._add_calibrated(data, name, content, test, valid, table)
        return name, test

    def _add_phrase(self, data: RowData, name: str, test: ScoredStudies, same_phrase: Sequence[Phrase]) -> None:
        """AUROC of one phrase, scored by every model of an ensemble."""
        phrase = same_phrase[0]
        mean = prob_mean([each.scores[:, None] for each in same_phrase])
        scores = studies(data.split(TEST), mean, {phrase.finding: data.columns[phrase.finding]}, data.recipe).scores[:, 0]
        row = phrase_row(data.recipe.title, name, test, phrase.finding, phrase.side, phrase.text, scores)
        self.tables.add("prompt_sensitivity", [row])

    def _add_model(self, data: RowData, name: str, test: ScoredStudies, valid: ScoredStudies | None, table: StudyTable) -> ModelFigures:
        recipe = data.recipe
        thresholds = validation_thresholds(valid, test.findings, recipe.threshold.source, recipe.threshold.value)
        note = f"{table.frame.height} {'studies' if recipe.level == 'study' else 'images'} of {table.frame['patient'].n_unique()} patients"
        if missing := data.record["dropped"].get("file_missing"):
            note += f"; {missing} images of the tables are missing"
        names = [self.pseudonyms.of(study) for study in table.frame["study"]]
        return self.tables.add_model(
            recipe.title, name, test, thresholds, names=names, note=note, fewest=recipe.fewest, resamples=recipe.resamples, seed=recipe.seed
        )

    def _add_calibrated(
        self, data: RowData, name: str, content: str, test: ScoredStudies, valid: ScoredStudies, table: StudyTable
    ) -> ModelFigures:
        recipe, title = data.recipe, data.recipe.title
        fitted = fit_calibration_maps(valid, recipe.calibration.method)
        maps = {finding: each.map for finding, each in fitted.items()}
        after = calibrated(test, maps)
        self.tables.add_reliability(title, name, test, after, resamples=recipe.resamples, seed=recipe.seed)
        self.calibration = {
            "method": recipe.calibration.method,
            "aggregate": recipe.aggregate,
            "model": {"name": name, "sha256": content},
            "prompts": data.record["prompts"],
            "fitted_on": {"evaluation": title, **data.record["parts"][VALIDATION]},
            "findings": {finding: each.as_section() for finding, each in fitted.items()},
        }
        return self._add_model(data, f"{name}, calibrated", after, calibrated(valid, maps), table)

    def _baseline(self, data: RowData) -> Iterator[Event]:
        """Logistic regression on raw pixels, fitted to the labels of the training images, on the same test studies."""
        test_images, train_images = data.split(TEST), data.split(TRAIN)
        if train_images.is_empty():
            return
        images = pl.concat([test_images, train_images])
        yield ModelStarted(data.recipe.title, BASELINE, images.height)
        pixels, _ = yield from self.encoder.features(images["file"].to_list(), None)
        size = test_images.height
        labels: NDArray[np.float32] = train_images.select(
            pl.col(column).cast(pl.Float32).fill_null(float("nan")) for column in data.columns.values()
        ).to_numpy()
        test, table = data.studies(TEST, sigmoid(separate_logits(pixels[size:], labels, pixels[:size], BASELINE_STRENGTH)))
        yield self._add_model(data, BASELINE, test, None, table)

    def _bundle(self, name: str) -> Bundle:
        from engine.model.bundle import load_bundle
        from engine.model.classifier import randomised

        bundle = load_bundle(name.removeprefix(RANDOM), self.device)
        return randomised(bundle, 0) if name.startswith(RANDOM) else bundle
