"""Judge: scores that are there and a table of labels -> figures with intervals, thresholds and calibration. No pixels, no model.

    scores, by study -> labels joined by name -> parts by patient -> figures, groups, calibration

Scores are what `mmclip score` wrote, or any table with a column `study` and one per finding. What is written is in
engine/tables/evaluation.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.data.label_cells import DEFAULT_POLICY, LabelPolicy
from engine.data.labels import FACTS, Labels, join, read_labels, studies_of
from engine.data.splits import TEST, TRAIN, VALIDATION, drawn, refuse_leakage, split_use
from engine.errors import ConfigError, InputMissing, LabelsError, NotFinite, ReadError, UsageError
from engine.evaluation.events import EvaluationFinished, EvaluationNotice, EvaluationPlan, Event, RowPlan, TablesWritten
from engine.evaluation.output import CALIBRATION, clear_evaluation, publish_evaluation, publish_evaluation_record
from engine.evaluation.studies import ScoredStudies, age_bands, calibrated, fit_calibration_maps, nonfinite_counts, validation_thresholds
from engine.evaluation.tables import EvaluationTables
from engine.metrics.thresholds import ThresholdSource
from engine.tables.atomic import locked
from engine.tables.calibrations import write_calibration
from engine.tables.columns import LAST_SEEN, NOTICE, file_hash
from engine.tables.identity import Names, site_key
from engine.tables.run_log import utc_time, versions
from engine.tables.study_names import StudyNames, key_form
from engine.tables.text_tables import read_text_table

_NO_FINDINGS = frozenset({LAST_SEEN, "study", "n_images", "flags", "patient", "file", "StudyInstanceUID", NOTICE})
_AGES = (18.0, 40.0, 60.0, 80.0)
_FEWEST = 5
_SHARE = 0.5
"""Of the patients, where the labels have no split: set aside to fit calibration on."""


@dataclass(frozen=True)
class _Scored:
    """Scores by study, and what a scoring run says of itself (empty for other tables)."""

    frame: pl.DataFrame
    findings: tuple[str, ...]
    run: Mapping[str, Any]
    patients: Mapping[str, str]
    files: Sequence[tuple[str, str]]
    study_of_uid: Mapping[str, str]

    def names(self) -> StudyNames:
        """The scored studies by the names that labels may give them.

        The UIDs of a folder of scores are in its private part, so that it does not matter under which site key it was made; for a table
        of scores alone the key of this site is tried.
        """
        names = Names(site_key())

        def by_uid(key: str) -> Iterator[str]:
            if (study := self.study_of_uid.get(key)) is not None:
                yield study
            yield names.of(key)

        return StudyNames(dict.fromkeys(self.frame["study"], ""), by_uid, self.files)


def judge(
    scores: Path,
    labels: Path,
    *,
    label_policy: LabelPolicy = DEFAULT_POLICY,
    label_column: str | None = None,
    calibrate: bool = False,
    out: Path = Path("mmclip-eval"),
    dry_run: bool = False,
    resamples: int = 1000,
) -> Iterator[Event]:
    """Judge scores by labels and write the tables to `out`.

    Args:
        scores: the output folder of `mmclip score`, or a table with `study`, `patient` if known, and one column per finding.
        labels: a table of labels (`engine.data.labels`), with optional columns patient, sex, age, view, source, split. Studies whose split
            is validation choose thresholds (best MCC) and calibration; those called train are left out; all others judge.
        label_policy: how uncertain cells (-1) and soft labels are read.
        label_column: a column of the labels that lists findings.
        calibrate: fit maps; without a split on half of the patients, drawn by a hash of the patient.
        resamples: of the bootstrap over patients.

    Raises:
        InputMissing, ReadError: a file. ConfigError: scores that are no table. NotFinite: scores that are NaN for a labelled study.
        LabelsError: labels that cannot be joined, or a split with a patient in two parts (leakage).
        UsageError: `calibrate` without the run.json of `mmclip score`. OutputError, LockHeld: `out`.
    """
    begun = time.monotonic()
    scored = _read_scores(scores)
    if calibrate and not scored.run:
        raise UsageError("--calibrate needs to know model and prompts", hint="--scores FOLDER, the output of mmclip score")
    truth = read_labels(labels, scored.findings, label_policy, label_column)
    names = scored.names()
    studies = studies_of(truth, names)
    joined = join([truth], names)
    findings = tuple(name for name in scored.findings if name in truth.values)
    title = f"{labels.stem} on {scores.name}"
    frame = scored.frame.join(joined.frame(findings).rename({name: f"label {name}" for name in findings}), on="study", how="inner")
    if frame.is_empty():
        raise LabelsError(
            "no row of the labels matches a scored study",
            why=f"a key of the labels has the form {key_form(truth.keys[0])}" if truth.keys else "the labels have no rows",
            hint="StudyInstanceUID, `study` as in scores.csv, or `file`, a path as the scored input had it",
        )
    frame = _with_facts(frame, truth, studies, scored.patients)
    frame = _with_parts(frame, calibrate)
    refuse_leakage(frame["patient"], frame["part"])
    test, valid = (_part(frame, name, findings) for name in (TEST, VALIDATION))
    if not test.scores.size:
        raise LabelsError("no labelled study is left to judge by", hint="a split column with test")
    if broken := nonfinite_counts(test) | nonfinite_counts(valid):
        raise NotFinite(
            f"predictions that are NaN or infinite: {', '.join(f'{count} of {name}' for name, count in broken.items())}", hint="score again"
        )
    yield EvaluationPlan((RowPlan(title),))
    if dry_run:
        return
    yield from (EvaluationNotice(each) for each in joined.notices())
    with locked(out):
        tables = EvaluationTables()
        model = scored.run.get("model", {"name": scores.stem, "sha256": file_hash(scores) if scores.is_file() else None})
        note = f"{len(test.patients)} studies of {np.unique(test.patients).size} patients"
        contenders = [(str(model["name"]), test, valid)]
        account: dict[str, Any] = {
            "time": utc_time(),
            "versions": versions(),
            "scores": {"model": model, "recipe": scored.run.get("recipe"), "studies": scored.frame.height},
            "labels": dict(joined.account) | {"sha256": file_hash(labels)},
            "parts": {name: _account(frame, name) for name in (TEST, VALIDATION)},
        }
        calibration = None
        if calibrate:
            fitted = fit_calibration_maps(valid, "platt")
            maps = {name: each.map for name, each in fitted.items()}
            contenders.append((f"{model['name']}, calibrated", calibrated(test, maps), calibrated(valid, maps)))
            calibration = {
                "method": "platt",
                "aggregate": scored.run["options"]["aggregate"],
                "model": model,
                "prompts": {name: scored.run["recipe"][name] for name in ("name", "sha256")},
                "fitted_on": {"evaluation": title, **account["parts"][VALIDATION]},
                "findings": {name: each.as_section() for name, each in fitted.items()},
            }
            tables.add_reliability(title, str(model["name"]), test, contenders[1][1], resamples=resamples, seed=0)
        own = frame.filter(pl.col("part") == TEST)["study"].to_list()
        for name, judged_by, chosen_on in contenders:
            source: ThresholdSource = "val_mcc" if chosen_on.scores.size and not calibrate else "fixed"
            cuts = validation_thresholds(chosen_on, findings, source, 0.5)
            yield tables.add_model(title, name, judged_by, cuts, names=own, note=note, fewest=_FEWEST, resamples=resamples, seed=0)
        clear_evaluation(out)
        publish_evaluation(out, tables.rows, tables.predictions(), account)
        if calibration is not None:
            write_calibration(out / CALIBRATION, calibration)
        account["seconds"] = round(time.monotonic() - begun, 3)
        yield TablesWritten(out, account, tables.rows, tables.curves)
        yield EvaluationFinished(publish_evaluation_record(out, account), tables.rows)


def _read_scores(path: Path) -> _Scored:
    if path.is_dir():
        return _read_run(path)
    if not path.exists():
        raise InputMissing("there are no scores at --scores", hint="the --out of a finished mmclip score, or a table")
    frame = read_text_table(path, ConfigError, what="table of scores")
    if "study" not in frame.columns:
        raise ConfigError("the scores name no studies", why="no column `study`", hint="the output folder of mmclip score")
    if frame["study"].null_count() or frame["study"].n_unique() < frame.height:
        raise ConfigError("a study has several rows of scores, or a row no study", hint="one row per study")
    findings = tuple(name for name in frame.columns if name not in _NO_FINDINGS)
    numbers = frame.with_columns(pl.col(name).cast(pl.Float64, strict=False) for name in findings)
    strange = [name for name in findings if (numbers[name].is_null() & frame[name].is_not_null()).any()]
    if strange:
        raise ConfigError(f"columns of the scores that are no numbers: {len(strange)} of {len(findings)}", hint="scores in [0, 1]")
    patients = dict(frame.select("study", "patient").drop_nulls().iter_rows()) if "patient" in frame.columns else {}
    return _checked(_Scored(numbers.select("study", *findings), findings, {}, patients, (), {}))


def _read_run(folder: Path) -> _Scored:
    try:
        run = json.loads((folder / "run.json").read_text("utf-8"))
        frame = pl.read_parquet(folder / "scores.parquet")
        private = pl.read_parquet(folder / "private" / "files.parquet")
        images = pl.read_parquet(folder / "images.parquet")
    except FileNotFoundError as error:
        raise InputMissing(
            f"the folder of scores has no {Path(str(error.filename)).name}", hint="the --out of a finished mmclip score"
        ) from None
    except PermissionError:
        raise ReadError("the folder of scores cannot be read", why="it has private parts", hint="the user who ran mmclip score") from None
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise ConfigError("the folder of scores cannot be read", why=type(error).__name__, hint="run mmclip score again") from None
    findings = tuple(name for name in frame.columns if name not in _NO_FINDINGS)
    key = (
        "file" if "file" in images.columns and "file" in private.columns else "image"
    )  # folders of builds before 2026-12-02 have no `file`
    files = private.join(images.select(key, "study").unique(key), on=key, how="inner").drop_nulls("study")
    patients = dict(files.drop_nulls("patient").select("study", "patient").unique("study", keep="first").iter_rows())
    paths = list(files.select("path", "study").iter_rows())
    study_of_uid = dict(files.drop_nulls("study_instance_uid").select("study_instance_uid", "study").iter_rows())
    return _checked(_Scored(frame.select("study", *findings), findings, run, patients, paths, study_of_uid))


def _checked(scored: _Scored) -> _Scored:
    if not scored.findings:
        raise ConfigError("the scores have no column of a finding", hint="one column per finding, scores in [0, 1]")
    bounds = [(scored.frame[name].min(), scored.frame[name].max()) for name in scored.findings]
    outside = [1 for low, high in bounds if isinstance(low, float) and isinstance(high, float) and (low < 0 or high > 1)]
    if outside:
        raise ConfigError(f"scores of {len(outside)} findings are not in [0, 1]", hint="probabilities, or a sigmoid of the logits")
    return scored


def _with_facts(frame: pl.DataFrame, truth: Labels, studies: Sequence[str | None], patients: Mapping[str, str]) -> pl.DataFrame:
    """The studies with patient, sex, age, view, source and split: of the first row of the labels that names them, "" = unknown."""
    cells = {name: pl.Series(truth.facts.get(name, [None] * len(truth.keys)), dtype=pl.String) for name in FACTS}
    said = pl.DataFrame({"study": pl.Series(studies, dtype=pl.String), **cells}).drop_nulls("study").unique("study", keep="first")
    frame = frame.join(said, on="study", how="left", maintain_order="left")
    own = pl.Series([patients.get(study) for study in frame["study"]], dtype=pl.String)
    # A study whose patient is not known counts as a patient by itself
    patient = pl.coalesce(pl.col("patient"), own, pl.concat_str(pl.lit("study "), "study"))
    return frame.with_columns(patient=patient, **{name: pl.col(name).fill_null("") for name in FACTS if name != "patient"})


def _with_parts(frame: pl.DataFrame, calibrate: bool) -> pl.DataFrame:
    """The studies with a column `part`: test, validation, or "" for those that were trained on."""
    uses = {name: split_use(name) for name in frame["split"].unique()}
    parts = [{VALIDATION: VALIDATION, TRAIN: ""}.get(uses[name] or TEST, TEST) for name in frame["split"]]
    frame = frame.with_columns(part=pl.Series(parts, dtype=pl.String))
    if calibrate and not (frame["part"] == VALIDATION).any():
        aside = pl.Series([drawn(patient, _SHARE, 0) for patient in frame["patient"]], dtype=pl.Boolean)
        frame = frame.with_columns(part=pl.when(aside & (pl.col("part") == TEST)).then(pl.lit(VALIDATION)).otherwise(pl.col("part")))
    return frame


def _part(frame: pl.DataFrame, name: str, findings: Sequence[str]) -> ScoredStudies:
    part = frame.filter(pl.col("part") == name)
    columns = {column: part[column].to_numpy().astype(str) for column in ("sex", "view", "source")}
    ages = part["age"].cast(pl.Float64, strict=False).to_list()
    return ScoredStudies(
        tuple(findings),
        part.select(findings).cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        part.select(f"label {each}" for each in findings).cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        _texts(part["patient"]),
        {"sex": columns["sex"], "age": age_bands(ages, _AGES), "view": columns["view"], "source": columns["source"]},
    )


def _texts(column: pl.Series) -> NDArray[np.str_]:
    return np.array(column.to_list(), dtype=str)


def _account(frame: pl.DataFrame, name: str) -> dict[str, Any]:
    part = frame.filter(pl.col("part") == name)
    return {"splits": sorted(set(part["split"])), "studies": part.height, "patients": part["patient"].n_unique()}
