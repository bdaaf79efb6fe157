"""Score: a folder of DICOM or an image table, a model and prompts, or a classifier -> one row per study, one per file, and metrics where
there are labels.

    input files -> known by content? -> read in workers -> resolve duplicates -> image features -> feature cache
                -> features x prompts, or the classifier's head -> image rows -> study rows -> (heatmaps) -> tables, figures, run.json

One bad file never changes another file's row and never stops the run: it is a row with its reason. engine/tables lists the output files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.data.label_cells import DEFAULT_POLICY, LabelPolicy
from engine.data.labels import JoinedLabels, Labels, has_labels, join, labels_in, read_labels, studies_of
from engine.dicom.reader_version import reader_version, same_readers, why_outdated
from engine.dicom.reasons import NOT_IN_MEAN, Outcome
from engine.errors import InputMissing, LabelsError, NotFinite, TooManyFailures, UsageError
from engine.intake.files import InputFile, check_inputs, input_files
from engine.intake.limits import LIMITS, Limits, as_settings
from engine.metrics.calibration import CalibrationMap
from engine.metrics.findings import FindingFigures, figures
from engine.model.bundle_folder import card_summary
from engine.model.population import Population
from engine.scoring.feature_cache import FeatureCache, cached_contents
from engine.scoring.heatmap_sheets import HeatmapSheet, SheetFolder, SheetRequest, heatmap_sheets
from engine.scoring.heatmaps import Margins
from engine.scoring.image_features import Encode, FileResult, count_files, file_results, with_features
from engine.scoring.kept_files import earlier_files, gone_studies
from engine.scoring.output import OUTPUTS, add_metrics, add_tables, changed_outputs, clear_previous, contents_hash
from engine.scoring.run_state import SEVERAL, ScoringRun, Vector
from engine.scoring.scorers import encode
from engine.scoring.targets import ScoringTargets, scoring_targets
from engine.tables.atomic import atomic_group, locked, make_folder
from engine.tables.batches import Batches
from engine.tables.calibrations import Calibration, read_calibration
from engine.tables.columns import NOTICE, check_findings, file_hash, read_later
from engine.tables.identity import Names, site_key
from engine.tables.image_table import UserImageTable, is_image_table
from engine.tables.results import Results
from engine.tables.run_log import Clock, Notice, publish_run, utc_time, versions
from engine.tables.shards import ShardFolder, text_of_path
from engine.tables.studies import Aggregate
from engine.tables.study_names import StudyNames, key_form

if TYPE_CHECKING:
    from engine.model.bundle import Bundle

__all__ = ["Event", "FileDone", "HeatmapSheet", "ScoresPublished", "ScoringFinished", "ScoringPlan", "ScoringStarted", "score"]

Device = Literal["auto", "cpu", "cuda"]

ROUNDING = 1e-5
"""Scores that differ by no more are equal: so much depends on the size of the batch and the place of the image in it."""


@dataclass(frozen=True)
class ScoringStarted:
    """Everything is checked and loaded. `known`: contents in the feature cache for this model."""

    findings: tuple[str, ...]
    model: str
    device: str
    known: int


@dataclass(frozen=True)
class FileDone:
    """One input file has its row. `reused`: it was known by its content and cost no reading."""

    image: str
    outcome: Outcome
    reason: str | None
    reused: bool


@dataclass(frozen=True)
class ScoringPlan:
    """The end of a dry run: files in all, of them those already known, and those left out unopened, by reason."""

    files: int
    known: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class ScoresPublished:
    """The tables are in `out`, which is still locked, so that a report can be written there. `run` will become run.json.

    `studies` and `images` read scores.parquet and images.parquet as they are asked: a run may have more rows than memory holds.
    """

    out: Path
    run: dict[str, Any]
    studies: pl.LazyFrame
    images: pl.LazyFrame
    figures: list[FindingFigures]
    labelled: pl.DataFrame
    """Studies with labels: `study`, and a label 1, 0 or null per finding."""
    sheets: dict[str, Path] = field(default_factory=dict)
    """Image -> its sheet of heatmaps, where they were asked for."""


@dataclass(frozen=True)
class ScoringFinished:
    """The run is complete: `run` is what run.json holds."""

    run: dict[str, Any]


Event = ScoringStarted | Notice | FileDone | HeatmapSheet | ScoringPlan | ScoresPublished | ScoringFinished


def score(
    inputs: Sequence[Path],
    *,
    prompts: str | Path | None = None,
    model: str | Path = "tiny",
    labels: Path | None = None,
    label_policy: LabelPolicy = DEFAULT_POLICY,
    label_column: str | None = None,
    out: Path = Path("mmclip-out"),
    device: Device = "auto",
    aggregate: Aggregate = "mean",
    calibration: Path | None = None,
    retain_uids: bool = False,
    min_age: float = 0.0,
    min_files: int = 0,
    max_failures: int | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    limits: Limits = LIMITS,
    heatmaps: bool = False,
    force_heatmaps: bool = False,
    follow_links: bool = False,
    keep: bool = False,
    dry_run: bool = False,
) -> Iterator[Event]:
    """Score every chest radiograph of the inputs and write the tables to `out`.

    Args:
        inputs: folders, DICOM files, or image tables (.csv, .tsv, .parquet with a column `file`).
        prompts: a prompt recipe: a path, else a shipped name. Omit for a classifier bundle, which scores the findings of its head.
        model: a shipped name, a bundle folder or a Hugging Face id.
        labels: a table of labels; without it, finding columns of an image table serve.
        label_policy: how uncertain cells (-1) and soft labels are read.
        label_column: a column of the labels that lists findings.
        out: the output folder; one run at a time.
        device: auto takes a GPU where there is one.
        aggregate: a study's score is the mean or the maximum over its images.
        calibration: calibration.json of `mmclip evaluate`, fitted for this model, these prompts and this aggregate: applied to studies.
        retain_uids: name studies and images by their UIDs, not by hashes of them.
        min_age: skip files that were modified in the last so many seconds; the next run picks them up.
        min_files: fewer files are an error, as a folder that is not mounted looks empty; the last results stay as they are.
        max_failures: more failed files end the run; the feature cache keeps what was done, and the last results stay as they are.
        workers: processes that read files; None: as many as this process has cores.
        batch_size: images per forward pass; None: 8 on a CPU, 64 on a GPU. Scores agree to 1e-5 between batch sizes.
        limits: for one file. Files that were rejected for a limit are not cached, so a higher limit reads them again.
        heatmaps: also draw which patches of each scored image speak for a finding (engine/model/heatmaps.py), into private/heatmaps.
            Features are not enough for that: images without a sheet of this model and these prompts are read once more, known ones too.
        force_heatmaps: draw them even with a model whose bundle says that they do not point at findings.
        follow_links: follow symbolic links into the trees of the inputs.
        keep: also report the scored files of earlier runs that are not among the inputs any more, from the feature cache.
        dry_run: check everything, count the files, write nothing.

    Closing the generator early keeps what was done: the next run with the same `out` continues from there.

    Raises:
        InputMissing: an input, the recipe or the model is not there, or fewer than `min_files` files are.
        RecipeError, ModelError, LabelsError, ConfigError: one of them cannot be used.
        TooManyFailures: more than `max_failures` files are damaged or out of reach.
        OutputError, LockHeld: `out` cannot be written, or another run is at it.
        NotFinite: the model gives NaN, or the same scores to every image.
    """
    clock = Clock()
    check_inputs(inputs)
    asked = scoring_targets(prompts, model)
    findings = asked.findings
    check_findings(findings)
    tables = {path: UserImageTable(path) for path in inputs if is_image_table(path)}
    truth = _labels(labels, findings, tables, label_policy, label_column)
    names = Names(site_key(), retain_uids)
    cores = workers or len(os.sched_getaffinity(0))
    walk = partial(input_files, inputs, tables, out=out, leave_out=[labels] if labels else [], follow_links=follow_links)
    items = walk(min_age=min_age)
    _check_keys(truth, walk())
    if dry_run:
        bundle = _load(model, device)
        yield from map(Notice, asked.notices(bundle))
        files = count_files(items, cached_contents(_shards(bundle, out)), workers=cores)
        yield ScoringPlan(files.files, files.known, files.left_out)
        return
    with locked(out), closing(Results(findings, out / "private", keep=keep)) as results:
        make_folder(out / "private", mode=0o700)
        bundle = _load(model, device)
        if heatmaps and not force_heatmaps:
            _refuse_heatmaps(bundle)
        maps = _maps(calibration, bundle, asked, aggregate)
        notices = asked.notices(bundle)
        scorer = asked.scorer(bundle)

        def scores_of(features: Vector) -> Vector:
            return scorer.scores(features).astype(np.float32)

        cache = FeatureCache(_shards(bundle, out), scores_of)
        yield ScoringStarted(findings, bundle.name, str(bundle.device), len(cache))
        yield from map(Notice, notices)
        if cache.shards.unreadable:
            yield Notice(f"{len(cache.shards.unreadable)} damaged shards of the feature cache were left out; their files are read again")
        clock.lap("load")
        run = ScoringRun(
            results,
            names,
            cache,
            scored=[] if heatmaps else None,
            population=Population.read(bundle.provenance),
            today=utc_time()[:10] if keep else None,
        )
        size = batch_size or (64 if bundle.device.type == "cuda" else 8)
        found = file_results(items, cache, size=bundle.preprocessing.read_size, workers=cores, limits=limits)
        yield from _take_files(run, found, scores_of, lambda images: encode(bundle, images, size), size, max_failures)
        clock.lap("images")
        _refuse_few(len(results), min_files)
        if keep:
            yield from map(Notice, _keep(run, out))
        run.reflag()
        _refuse_equal_scores(run)
        joined = join(truth, run.study_names()) if truth else None
        yield from map(Notice, joined.notices() if joined else ())
        drawn: Counter[str] = Counter()
        sheets: dict[str, Path] = {}
        if heatmaps:
            for event in _draw(run, bundle, asked, asked.margins(bundle, scorer), SheetFolder(out), cores, limits):
                if isinstance(event, HeatmapSheet):
                    drawn["reused" if event.reused else "drawn"] += 1
                    sheets[event.image] = SheetFolder(out).path(event.image)
                yield event
            clock.lap("heatmaps")
        grouped, study_count = results.studies(aggregate, NOT_IN_MEAN)
        studies = grouped.changed(lambda frame: _calibrated(frame, maps))
        labelled = (joined or JoinedLabels({}, {})).frame(findings)
        rows = _figures(studies, labelled, run, findings) if joined else []
        yield from map(Notice, _differences(out, studies, keep=keep))
        with atomic_group() as outputs:
            add_tables(outputs, out, studies, results.images(), results.private())
            if joined:
                add_metrics(outputs, out, [row.as_row() for row in rows], joined.account)
            clear_previous(out)  # now that nothing is left to write that may not fit
            outputs.publish()
        clock.lap("tables")
        account = {
            "notice": NOTICE,
            "time": utc_time(),
            "versions": versions(),
            "device": str(bundle.device),
            "model": {"name": bundle.name, "sha256": bundle.content_hash, "summary": card_summary(bundle.card)},
            "recipe": asked.account(bundle),
            "inputs": {"files": len(results), "sha256": contents_hash(results.contents())},
            "labels": dict(joined.account) | ({"sha256": file_hash(labels)} if labels else {}) if joined else None,
            "calibration": {"sha256": maps.sha256, **maps.about} if maps else None,
            "options": {"aggregate": aggregate, "retain_uids": retain_uids, "min_age": min_age, "workers": cores, "batch_size": size},
            "limits": as_settings(limits),
            "heatmaps": {"drawn": drawn["drawn"], "reused": drawn["reused"]} if heatmaps else None,
            "counts": run.counts(study_count),
        }
        written = (read_later(out / "scores.parquet"), read_later(out / "images.parquet"))
        yield ScoresPublished(out, account | {"seconds": clock.laps()}, *written, rows, labelled, sheets)
        clock.lap("report")
        yield ScoringFinished(publish_run(out, account | {"seconds": clock.laps()}, OUTPUTS))


def _take_files(
    run: ScoringRun,
    found: Generator[FileResult, None, None],
    scores_of: Callable[[Vector], Vector],
    encoded: Encode,
    size: int,
    max_failures: int | None,
) -> Iterator[FileDone | Notice]:
    """A row for every file, in order; `size`: images of a forward pass. The cache is published at the end, and where the run breaks off.

    Raises:
        TooManyFailures: more than `max_failures` files failed.
    """
    said = False
    with closing(found), closing(run.cache):
        for each, features in with_features(found, encoded, size):
            image, settled = run.take(each, features, each.scores if features is None else scores_of(features[None])[0])
            yield FileDone(image, settled.outcome, settled.reason, each.known)
            if run.outdated and not said:
                said = True
                yield from map(Notice, _outdated(run.cache))
            _refuse_failures(run.failed, max_failures)


def _differences(out: Path, studies: Batches, *, keep: bool) -> Iterator[str]:
    """What the tables of the last run in `out` have and these will not: studies, and edits."""
    if not keep and (gone := gone_studies(out, (frame["study"] for frame in studies.frames()))):
        yield f"{gone} studies of the last run are not in these inputs and leave scores.csv; --keep would keep them"
    for name in changed_outputs(out):
        yield f"{name} was changed after the last run had written it; it is replaced"


def _refuse_equal_scores(run: ScoringRun) -> None:
    if len(run.images) >= SEVERAL and run.results.spread() <= ROUNDING:
        scored = run.results.counts()["score"]
        raise NotFinite(f"the model gives the same scores to all of {scored} images, different as they are", hint="another model")


def _load(model: str | Path, device: Device) -> Bundle:
    from engine.model.bundle import load_bundle
    from engine.training.distributed import resolved_device

    return load_bundle(model, resolved_device(device).type)


def _labels(
    path: Path | None, findings: Sequence[str], tables: Mapping[Path, UserImageTable], policy: LabelPolicy, column: str | None
) -> list[Labels]:
    """The labels of the table that the user names, else those in the image tables themselves."""
    if path is not None:
        return [read_labels(path, findings, policy, column)]
    return [
        labels_in(each.frame, findings, folder=each.folder, policy=policy, column=column, by_file=True)
        for each in tables.values()
        if column or has_labels(each.frame, findings)
    ]


def _check_keys(truth: Sequence[Labels], items: Iterable[InputFile]) -> None:
    """Refuse, before anything is read, labels by file of which no row names a file of the inputs."""
    if not truth or not all(labels.by_file for labels in truth):
        return
    paths = (text for item in items for text in (item.given, text_of_path(item.path)) if text)
    names = StudyNames({"any": ""}, lambda key: (), ((path, "any") for path in paths))
    if any(study is not None for labels in truth for study in studies_of(labels, names)):
        return
    raise LabelsError(
        "no row of the labels names a file of the inputs",
        why=f"a key of the labels has the form {key_form(truth[0].keys[0])}" if truth[0].keys else "the labels have no rows",
        hint="paths that start from the table's folder, or file names that are unique among the inputs",
    )


def _keep(run: ScoringRun, out: Path) -> Iterator[str]:
    """Add the files of earlier runs that are not among the inputs; what cannot be kept, as a sentence."""
    seen = run.results.frame("path", "content_hash")
    earlier = earlier_files(out, run.cache, set(seen["path"].drop_nulls()), set(seen["content_hash"].drop_nulls()))
    for file in earlier.files:
        run.keep(file)
    if earlier.lost:
        yield (
            f"{earlier.lost} files of earlier runs cannot be kept: another model or version of the reader has read them, and they are not "
            "among the inputs"
        )


def _shards(bundle: Bundle, out: Path) -> ShardFolder:
    return ShardFolder(out, bundle.content_hash, reader_version(), int(bundle.clip.config.projection_dim), same_readers())


def _outdated(cache: FeatureCache) -> Iterator[str]:
    """Why files of the feature cache are read again, one sentence for each reason: another version of the reader has read them."""
    reasons = Counter[str]()
    for reader, rows in cache.outdated.items():
        reasons[why_outdated(reader)] += rows
    for reason, rows in sorted(reasons.items()):
        yield f"{rows} files of the feature cache were {reason}; those that are still there are read again"


def _maps(path: Path | None, bundle: Bundle, asked: ScoringTargets, aggregate: Aggregate) -> Calibration | None:
    scored_by = asked.account(bundle)["sha256"]
    return read_calibration(path, model=bundle.content_hash, prompts=scored_by, aggregate=aggregate) if path else None


def _calibrated(studies: pl.DataFrame, maps: Calibration | None) -> pl.DataFrame:
    """The studies with calibrated scores where there is a map; scores of images stay as the model gave them."""
    fitted = {name: CalibrationMap(*each) for name, each in (maps.slopes if maps else {}).items() if name in studies.columns}
    return studies.with_columns(pl.Series(name, each(studies[name].to_numpy()), dtype=pl.Float32) for name, each in fitted.items())


def _draw(
    run: ScoringRun, bundle: Bundle, asked: ScoringTargets, margins_of: Margins, sheets: SheetFolder, workers: int, limits: Limits
) -> Iterator[HeatmapSheet | Notice]:
    """A sheet for every scored image. Features are not enough for that: where it is missing, its file is read once more."""
    rows = run.results.frame("image", "content_hash", *run.results.findings, where=pl.col("outcome") == "score").iter_rows()
    wanted = (
        SheetRequest(image, item, content_hash, dict(zip(run.results.findings, scores, strict=True)))
        for item, (image, content_hash, *scores) in zip(run.scored or (), rows, strict=True)
    )

    def images(items: Iterator[InputFile]) -> Iterator[tuple[str, NDArray[np.uint8] | None]]:
        with closing(file_results(items, None, size=bundle.preprocessing.read_size, workers=workers, limits=limits)) as found:
            yield from ((each.reading.content_hash, each.reading.image) for each in found)

    recipe = asked.account(bundle)
    made_with = (bundle.content_hash, recipe["sha256"], f"made by {bundle.name} with {recipe['name']}")
    missing = yield from heatmap_sheets(wanted, images, sheets, bundle, margins_of, made_with)
    if missing:
        yield Notice(f"{missing} scored images have no heatmap: their files were changed or removed during the run")


def _refuse_heatmaps(bundle: Bundle) -> None:
    measured = bundle.provenance.get("heatmaps", {})
    if isinstance(measured, Mapping) and measured.get("point") is False:
        raise UsageError(
            f"heatmaps of {bundle.name} do not point at findings",
            why=str(measured.get("measured", "its card says so")),
            hint="another model, or --force-heatmaps",
        )


def _refuse_few(files: int, least: int) -> None:
    if files < least:
        raise InputMissing(
            f"{files} files were found, at least {least} are expected",
            why="an input folder is not mounted, or not filled yet",
            hint="check the inputs, or a lower --min-files; the results of the last run stay as they are",
        )


def _refuse_failures(failed: int, most: int | None) -> None:
    if most is not None and failed > most:
        raise TooManyFailures(
            f"{failed} files failed, at most {most} may",
            why="a disk, a mount or an export is likely at fault",
            hint="mmclip score --dry-run, a few of the files by themselves, or a higher --max-failures; the results of the last run stay",
        )


def _figures(studies: Batches, labelled: pl.DataFrame, run: ScoringRun, findings: Sequence[str]) -> list[FindingFigures]:
    """The rows of metrics.csv. A study without a known patient counts as a patient by itself."""
    scored = run.results.frame("study", "patient", where=pl.col("outcome") == "score")
    patients = scored.group_by("study").agg(pl.col("patient").drop_nulls().first())
    known = labelled["study"].to_list()
    table = pl.concat(frame.filter(pl.col("study").is_in(known)) for frame in studies.frames())
    table = labelled.select("study").join(table, on="study", how="left", maintain_order="left")
    table = table.join(patients, on="study", how="left", maintain_order="left")
    truth = labelled.select(findings).cast(pl.Float64).fill_null(float("nan")).to_numpy()
    # prefixed, as a patient may be called like another's study
    owners = [f"patient {patient}" if patient else f"study {study}" for study, patient in table.select("study", "patient").iter_rows()]
    return figures(findings, table.select(findings).cast(pl.Float64).to_numpy(), truth, np.array(owners, dtype=object).astype(str))
