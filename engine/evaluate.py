"""Evaluate: labelled images and a model -> figures with intervals, beside those that were published.

    recipe -> sources -> image table with parts -> features (by content, once) -> scores -> studies -> figures, groups, phrases, maps

Several recipes make one table. A row whose data or model are not here is not left out: its cells say what they need.
What is written stands in engine/tables/evaluation.py. Scores that exist already are study_figures by engine/judge.py.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.data.sources import read_sources
from engine.data.sources.published import missing_pieces
from engine.data.splits import TEST, TRAIN, VALIDATION, StudyTable, finding_columns, part_account, studies, with_parts
from engine.dicom.reader_version import reader_version, same_readers
from engine.errors import ConfigError, EngineError, InputMissing, NotFinite, UsageError
from engine.evaluation.events import (
    EvaluationFinished,
    EvaluationPlan,
    EvaluationSkipped,
    Event,
    ImageEncoded,
    ModelFigures,
    ModelStarted,
    TablesWritten,
)
from engine.evaluation.output import CALIBRATION, clear_evaluation, publish_evaluation, publish_evaluation_record
from engine.evaluation.published import missing_row, published_rows
from engine.evaluation.studies import (
    ScoredStudies,
    age_bands,
    calibrated,
    fit_calibration_maps,
    nonfinite_counts,
    paired_comparisons,
    validation_thresholds,
)
from engine.evaluation.tables import EvaluationTables, comparison_rows, phrase_row
from engine.metrics.calibration import sigmoid
from engine.model.bundle_folder import local_folder
from engine.model.linear_probe import raw_pixels, separate_logits
from engine.recipe.evaluation import EvaluationRecipe, Parts, PublishedFigures
from engine.recipe.evaluations import Row, rows_of
from engine.recipe.loader import find_recipe, load_recipe, recipe_name
from engine.recipe.prompts import PromptRecipe
from engine.scoring.feature_cache import FeatureCache
from engine.scoring.image_features import file_features
from engine.scoring.scorers import RANDOM, WordScorer, encode, joint_hash, prob_mean, scorer_of, spoken, weight_soup
from engine.tables.atomic import locked, make_folder
from engine.tables.calibrations import write_calibration
from engine.tables.columns import check_findings, file_hash
from engine.tables.identity import Names, site_key
from engine.tables.run_log import versions
from engine.tables.shards import ShardFolder

if TYPE_CHECKING:
    from engine.model.bundle import Bundle

Device = Literal["auto", "cpu", "cuda"]
Vector = NDArray[np.float32]
PUBLISHED = "eval/published"
BASELINE = "raw pixels, supervised"
BASELINE_SIDE = 32
BASELINE_STRENGTH = 0.001
"""C of its logistic regression (scikit-learn's), chosen once for 32 x 32 standardised pixels, and no recipe's to tune."""
_READ_SIZE = 256
"""Shorter side, in pixels, at which pictures are read for the baseline, before they are squashed to 32 x 32."""


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
    """Measure what a recipe says, or every row of a set of recipes, and write the tables to `out`.

    Args:
        recipe: an evaluation recipe or a set of them: a path, else a shipped name.
        settings: `key=value`, as `--set`.
        model: takes the place of `models` in every row that has one model.
        against: a second model on the same studies, with a paired test of the difference.
        calibrate: fit calibration maps on the validation part and judge the rest with them, too; one recipe with one model.
        out: the output folder; features are kept there, so that a second run costs no pixel work.
        dry_run: say what would be measured and what is missing; write nothing.

    A set's rows that lack data or a model are told as `EvaluationSkipped`; of a single recipe they are errors.

    Raises:
        InputMissing, RecipeError, ConfigError, ModelError, LabelsError: see the message; leakage is a LabelsError.
        NotFinite: a model gives NaN. UsageError: options that do not fit the recipe. OutputError, LockHeld: `out`.
    """
    begun = time.monotonic()
    rows, of_a_set = rows_of(recipe, settings, model)
    if calibrate and (of_a_set or rows[0].recipe.classifiers):
        raise UsageError("--calibrate fits the maps of one model", hint="one evaluation recipe without `classifiers`")
    lacking = [_lacks(row) for row in rows]
    if not of_a_set and lacking[0]:
        raise ConfigError("the evaluation's data or models are not there", why=lacking[0], hint="--set KEY=VALUE for each of these")
    yield EvaluationPlan(tuple((row.recipe.title, lack) for row, lack in zip(rows, lacking, strict=True)))
    if dry_run:
        return
    with locked(out):
        make_folder(out / "private", mode=0o700)
        bench = _Bench(out, device, workers or len(os.sched_getaffinity(0)), batch_size)
        published = load_recipe(PUBLISHED, PublishedFigures).tables
        for number, (row, lack) in enumerate(zip(rows, lacking, strict=True), 1):
            needs = lack
            if not needs:
                try:
                    yield from bench.measure(row, against, calibrate)
                except (ConfigError, InputMissing) as error:
                    if not of_a_set:
                        raise
                    needs = f"needs {error}"
            if needs:
                yield EvaluationSkipped(row.recipe.title, needs)
                called = [label or (names[0] if len(names) == 1 else row.recipe.joint_name) for label, names in row.recipe.contenders]
                bench.verdicts.add("table", [missing_row(row.recipe.title, name, needs).as_row() for name in called])
            if row.recipe.published in published and row.recipe.published not in {each.recipe.published for each in rows[number:]}:
                first = next(each.recipe.title for each in rows if each.recipe.published == row.recipe.published)
                theirs = published_rows(first, published[row.recipe.published])
                bench.verdicts.add("table", [each.as_row() for each in theirs])
        clear_evaluation(out)
        account: dict[str, Any] = {
            "versions": versions(),
            "device": bench.device,
            "recipe": {"name": recipe_name(find_recipe(recipe)), "settings": list(settings), "against": against},
            "evaluations": bench.accounts,
        }
        tables = bench.verdicts
        publish_evaluation(out, tables.rows, tables.predictions(), {"evaluations": bench.accounts})
        if bench.calibration is not None:
            write_calibration(out / CALIBRATION, bench.calibration)
        account["seconds"] = round(time.monotonic() - begun, 3)
        yield TablesWritten(out, account, tables.rows, tables.curves)
        yield EvaluationFinished(publish_evaluation_record(out, account), tables.rows)


def _lacks(row: Row) -> str:
    """What a row's sources and models lack, in words with keys; "" where nothing is."""
    needs = []
    for source, key in zip(row.recipe.sources, row.keys, strict=True):
        # A piece is `key: what to set it to`
        pieces = list(dict.fromkeys(piece.partition(":")[0] for piece in missing_pieces(source)))
        if pieces:
            needs.append(f"data set {source.kind} at {' and '.join(key(piece) for piece in pieces)}")
    models = row.recipe.classifiers or {str(number): name for number, name in enumerate(row.recipe.models)}
    for label, name in models.items():
        try:
            local_folder(name.removeprefix(RANDOM))
        except EngineError:
            needs.append(f"model {name} at {'classifiers' if row.recipe.classifiers else 'models'}.{label}")
    return f"needs {'; '.join(needs)}" if needs else ""


@dataclass(frozen=True)
class _Subject:
    """What one row is about: its images with parts, its findings, their words."""

    row: Row
    frame: pl.DataFrame
    columns: dict[str, str]
    words: PromptRecipe
    account: dict[str, Any]

    @property
    def recipe(self) -> EvaluationRecipe:
        return self.row.recipe

    def part(self, name: str) -> pl.DataFrame:
        """The images of a part, in the order of the table."""
        return self.frame.filter(pl.col("part") == name)

    def studies(self, name: str, scores: NDArray[np.float64]) -> tuple[ScoredStudies, StudyTable]:
        """A part's studies from the scores of its images."""
        table = studies(self.part(name), scores, self.columns, self.recipe)
        groups: dict[str, NDArray[np.str_]] = {}
        for column in self.recipe.subgroups:
            values = table.frame[column]
            groups[column] = age_bands(values.to_list(), self.recipe.ages) if column == "age" else np.array(values.to_list(), dtype=str)
        patients = np.array(table.frame["patient"].to_list(), dtype=str)
        return ScoredStudies(tuple(self.columns), table.scores, table.labels, patients, groups), table


class _Bench:
    """Where rows are measured, and what was found."""

    def __init__(self, out: Path, device: Device, workers: int, batch_size: int | None) -> None:
        from engine.training.distributed import resolved_device

        self.device = resolved_device(device).type
        self.out, self.workers = out, workers
        self.batch_size = batch_size or (64 if self.device == "cuda" else 8)
        self.names = Names(site_key())
        self.verdicts = EvaluationTables()
        self.accounts: list[dict[str, Any]] = []
        self.calibration: dict[str, Any] | None = None

    def measure(self, row: Row, against: str | None, calibrate: bool) -> Iterator[Event]:
        """Everything of one row."""
        recipe = row.recipe
        prompts_file = find_recipe(recipe.prompts)
        prompts = load_recipe(prompts_file, PromptRecipe)
        table = read_sources(recipe.sources)
        parts = recipe.parts
        if calibrate and parts.validation is None and not parts.validation_share:
            parts = Parts(test=parts.test, validation_share=recipe.calibration.share, seed=parts.seed)
        frame = with_parts(table.frame, parts)
        known = list(prompts.findings) if recipe.template is None else [*prompts.findings, *table.findings]
        columns = finding_columns(frame, table.findings, recipe.findings, [] if recipe.classifiers else known)
        check_findings(list(columns))
        words = prompts if recipe.classifiers else spoken(prompts, list(columns), recipe.template)
        account: dict[str, Any] = {
            "evaluation": recipe.title,
            "recipe": {"name": row.name, "sha256": row.sha256, "source": recipe.source},
            "prompts": None if recipe.classifiers else {"name": recipe_name(prompts_file), "sha256": file_hash(prompts_file)},
            "sources": table.facts,
            "dropped": dict(table.dropped["reason"].value_counts().sort("reason").iter_rows()),
            "parts": {name: part_account(frame, name) for name in (TEST, VALIDATION, TRAIN)},
            "models": [],
        }
        subject = _Subject(row, frame, columns, words, account)
        first: tuple[str, ScoredStudies] | None = None
        for label, names in recipe.contenders:
            judged_by = yield from self._model(subject, label, names, calibrate)
            first = first or judged_by
        if against is not None and first is not None:
            name, second = yield from self._model(subject, "", (against,), calibrate=False)
            tests = paired_comparisons(first[1], second)
            self.verdicts.add("comparisons", comparison_rows(recipe.title, first[0], name, tests))
        if recipe.baseline == "raw_pixels":
            yield from self._baseline(subject)
        self.accounts.append(account)

    def _model(
        self, subject: _Subject, label: str, names: Sequence[str], calibrate: bool
    ) -> Generator[Event, None, tuple[str, ScoredStudies]]:
        """Figures, groups, phrases and calibration of one model or ensemble; its name and the study_figures studies."""
        recipe, title = subject.recipe, subject.recipe.title
        bundles = [self._bundle(name) for name in names]
        bundles = [weight_soup(bundles)] if recipe.ensemble == "weight_soup" else bundles
        name = label or (bundles[0].name if len(bundles) == 1 else recipe.joint_name)
        used = [TEST] if recipe.threshold.source == "fixed" and not calibrate else [TEST, VALIDATION]
        images = pl.concat([subject.part(part) for part in used])
        yield ModelStarted(title, name, images.height * len(bundles))
        scores, phrases, unread = [], [], Counter[str]()
        for bundle in bundles:
            features, reasons = yield from self._features(images, bundle)
            unread.update(reasons)
            scorer = scorer_of(bundle, subject.words, list(subject.columns))
            scores.append(scorer.scores(features))
            if recipe.phrasings and isinstance(scorer, WordScorer):
                phrases.append(list(scorer.phrases(features[: subject.part(TEST).height])))
        joint, size = prob_mean(scores), subject.part(TEST).height
        test, table = subject.studies(TEST, joint[:size])
        if table.frame.is_empty():
            why = ", ".join(f"{count} {reason}" for reason, count in sorted(unread.items()))
            raise ConfigError(f"none of the {size} images of the test part of {title} can be read", why=why, hint="mmclip score says more")
        valid = subject.studies(VALIDATION, joint[size:])[0] if VALIDATION in used else None
        if broken := nonfinite_counts(test):
            raise NotFinite(f"scores that are not finite: {', '.join(f'{count} of {each}' for each, count in broken.items())}")
        for versions_of_one in zip(*phrases, strict=True):
            one = versions_of_one[0]
            mean = prob_mean([each.scores[:, None] for each in versions_of_one])
            column = subject.columns[one.finding]
            alone = studies(subject.part(TEST), mean, {one.finding: column}, recipe).scores[:, 0]
            self.verdicts.add("prompt_sensitivity", [phrase_row(title, name, test, one.finding, one.side, one.text, alone)])
        content = joint_hash([bundle.content_hash for bundle in bundles], recipe.ensemble)
        subject.account["models"].append({"name": name, "sha256": content, "unread": dict(unread), "disagreeing_labels": table.disagreeing})
        yield self._judge(subject, name, test, valid, table)
        if calibrate and valid is not None:
            yield self._calibrate(subject, name, content, test, valid, table)
        return name, test

    def _judge(self, subject: _Subject, name: str, test: ScoredStudies, valid: ScoredStudies | None, table: StudyTable) -> ModelFigures:
        recipe = subject.recipe
        cuts = validation_thresholds(valid, test.findings, recipe.threshold.source, recipe.threshold.value)
        note = f"{table.frame.height} {'studies' if recipe.level == 'study' else 'images'} of {table.frame['patient'].n_unique()} patients"
        if gone := subject.account["dropped"].get("file_missing"):
            note += f"; {gone} images of the tables are not here"
        own = [self.names.of(study) for study in table.frame["study"]]
        return self.verdicts.add_model(
            recipe.title, name, test, cuts, names=own, note=note, fewest=recipe.fewest, resamples=recipe.resamples, seed=recipe.seed
        )

    def _calibrate(
        self, subject: _Subject, name: str, content: str, test: ScoredStudies, valid: ScoredStudies, table: StudyTable
    ) -> ModelFigures:
        recipe, title = subject.recipe, subject.recipe.title
        fitted = fit_calibration_maps(valid, recipe.calibration.method)
        maps = {finding: each.map for finding, each in fitted.items()}
        after = calibrated(test, maps)
        self.verdicts.add_reliability(title, name, test, after, resamples=recipe.resamples, seed=recipe.seed)
        self.calibration = {
            "method": recipe.calibration.method,
            "aggregate": recipe.aggregate,
            "model": {"name": name, "sha256": content},
            "prompts": subject.account["prompts"],
            "fitted_on": {"evaluation": title, **subject.account["parts"][VALIDATION]},
            "findings": {finding: each.as_section() for finding, each in fitted.items()},
        }
        return self._judge(subject, f"{name}, calibrated", after, calibrated(valid, maps), table)

    def _baseline(self, subject: _Subject) -> Iterator[Event]:
        """Logistic regression on raw pixels, fitted to the training patients' labels, study_figures on the same studies."""
        test_images, train_images = subject.part(TEST), subject.part(TRAIN)
        if train_images.is_empty():
            return
        images = pl.concat([test_images, train_images])
        yield ModelStarted(subject.recipe.title, BASELINE, images.height)
        pixels, _ = yield from self._features(images, None)
        size = test_images.height
        labels = train_images.select(
            pl.col(column).cast(pl.Float32).fill_null(float("nan")) for column in subject.columns.values()
        ).to_numpy()
        test, table = subject.studies(TEST, sigmoid(separate_logits(pixels[size:], labels, pixels[:size], BASELINE_STRENGTH)))
        yield self._judge(subject, BASELINE, test, None, table)

    def _bundle(self, name: str) -> Bundle:
        from engine.model.bundle import load_bundle
        from engine.model.classifier import randomised

        bundle = load_bundle(name.removeprefix(RANDOM), self.device)
        return randomised(bundle, 0) if name.startswith(RANDOM) else bundle

    def _features(self, images: pl.DataFrame, bundle: Bundle | None) -> Generator[Event, None, tuple[Vector, Counter[str]]]:
        """(N, D) features of images by a model, or (N, 1024) grey values in [0, 1]; rows of NaN, and reasons, where there are none."""
        if bundle is not None:
            model, width, size = bundle.content_hash, int(bundle.clip.config.projection_dim), bundle.preprocessing.size
        else:
            model, width, size = f"raw-pixels-{BASELINE_SIDE}", BASELINE_SIDE**2, _READ_SIZE

        def vectors(pictures: Sequence[NDArray[np.uint8]]) -> Vector:
            if bundle is not None:
                return encode(bundle, pictures, self.batch_size)
            return raw_pixels(pictures, BASELINE_SIDE).astype(np.float32)

        cache = FeatureCache(ShardFolder(self.out, model, reader_version(), width, same_readers()))
        found = np.full((images.height, width), np.nan, dtype=np.float32)
        reasons = Counter[str]()
        files = [Path(file) for file in images["file"]]
        with closing(file_features(files, cache, vectors, size=size, batch_size=self.batch_size, workers=self.workers)) as all_files:
            for each in all_files:
                if each.features is not None:
                    found[each.number] = each.features
                elif each.reason:
                    reasons[each.reason] += 1
                yield ImageEncoded(each.known)
        return found, reasons
