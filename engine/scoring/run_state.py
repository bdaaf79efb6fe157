"""State of a scoring run: result rows, duplicates, UID conflicts, and what is new for the feature cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.dicom.reasons import FAILURES, NOT_IN_MEAN
from engine.intake.duplicates import DuplicateIndex
from engine.intake.files import InputFile
from engine.intake.read_result import ReadResult, coarse_image
from engine.model.population import FLAG as OUTSIDE
from engine.model.population import Population, age_in_years
from engine.scoring.feature_cache import FeatureCache
from engine.scoring.image_features import FileResult
from engine.scoring.kept_files import KeptFile
from engine.tables.columns import FLAG_SEPARATOR, LAST_SEEN, has_flag, joined_flags, plain_code, split_flags
from engine.tables.identity import Names
from engine.tables.results import ResultRow, Results
from engine.tables.shards import text_of_path
from engine.tables.study_names import StudyNames

Vector = NDArray[np.float32]

SEVERAL = 10
"""From so many different images on, equal scores for all of them mean a broken model."""


def result_row(
    item: InputFile, reading: ReadResult, scores: NDArray[np.float32] | None, names: Names, last_seen: str | None = None
) -> ResultRow:
    """A read result, duplicates resolved, as a row of the results.

    An image is named by its SOP instance UID, else by its content, else (a file that could not be read) by its path. Its study is the one
    in the image table, else the one in the file; an image without a study is a study by itself.
    """
    path = text_of_path(item.path)
    uid = reading.sop_instance_uid
    image = names.of(uid) if uid else names.hashed(reading.content_hash or path)
    file = names.hashed(f"file {path}")
    study = item.study or reading.study_instance_uid
    public = {
        "image": image,
        "study": names.of(study) if study else image if scores is not None else None,
        "content_hash": reading.content_hash or None,
        "outcome": reading.outcome,
        "reason": reading.reason,
        "detail": reading.detail or None,
        "flags": joined_flags(reading.flags),
        "modality": plain_code(reading.modality),
        "view": plain_code(reading.view) or plain_code(item.view),
        "rows": reading.rows,
        "columns": reading.columns,
        "transfer_syntax": plain_code(reading.transfer_syntax),
        "file": file,
    }
    private = {
        "path": item.given or path,
        "file": file,
        "location": path,
        "sop_instance_uid": uid,
        "study_instance_uid": reading.study_instance_uid,
        "series_instance_uid": reading.series_instance_uid,
        "patient": item.patient or reading.patient,
        LAST_SEEN: last_seen,
    }
    return ResultRow(public, private, scores)


@dataclass
class ScoringRun:
    """What grows while files are read: result rows, duplicates and UID conflicts."""

    results: Results
    names: Names
    cache: FeatureCache
    duplicates: DuplicateIndex = field(default_factory=DuplicateIndex)
    reused: int = 0
    failed: int = 0
    """Files that are damaged or out of reach (reasons.FAILURES)."""
    outdated: int = 0
    """Files that were read again, as another version of the reader had read them."""
    scored: list[InputFile] | None = None
    """The files of the rows of outcome `score`, in their order, where a list is given: heatmaps are made of them."""
    population: Population | None = None
    """The images that the model was trained on, where its bundle says so."""
    outside: int = 0
    """Scored images of patients outside of it."""
    today: str | None = None
    """UTC date for the column `last_seen`; None where the tables have none."""
    kept: int = 0
    """Files of earlier runs that are not among the inputs, and whose rows were kept."""
    images: set[bytes] = field(default_factory=set)
    """Coarse images, up to SEVERAL different ones."""

    def take(self, result: FileResult, features: Vector | None, scores: Vector | None) -> tuple[str, ReadResult]:
        """Add a row to the results and, where the file is new, to the cache; the image's name, and its read result after duplicates."""
        item, reading = result.item, result.reading
        if not result.known:
            self.cache.add(reading, features)
            self.outdated += self.cache.is_outdated(reading.content_hash)
        if reading.image is not None and len(self.images) < SEVERAL:
            self.images.add(coarse_image(reading.image))
        settled = self.duplicates.resolve(reading)
        if settled.outcome not in ("score", "duplicate"):
            scores = None
        if settled.outcome == "score" and self.scored is not None:
            self.scored.append(item)
        settled = self._judged(settled)
        row = result_row(item, settled, scores, self.names, self.today)
        if self.duplicates.scratch.first("file", row.public["file"].encode()) is not None:  # an input was named twice
            again = {"file": self.names.hashed(f"{row.public['file']} {len(self.results)}")}
            row = ResultRow(row.public | again, row.private | again, row.scores)
        self.results.add(row)
        self.reused += result.known
        self.failed += settled.reason in FAILURES
        return row.public["image"], settled

    def _judged(self, reading: ReadResult) -> ReadResult:
        """The read result, flagged where its patient is outside of the model's training population."""
        if self.population is None or reading.outcome != "score":
            return reading
        if not self.population.is_outside(age_in_years(reading.age or ""), reading.view):
            return reading
        self.outside += 1
        return replace(reading, flags=tuple(sorted({*reading.flags, OUTSIDE})))

    def keep(self, file: KeptFile) -> None:
        """Add the row of a file that an earlier run had, under its names of then, duplicates resolved again."""
        settled = self._judged(self.duplicates.resolve(file.known.reading(file.item.path)))
        scores = file.known.scores if settled.outcome in ("score", "duplicate") else None
        if settled.outcome == "score" and self.scored is not None:
            self.scored.append(file.item)
        row = result_row(file.item, settled, scores, self.names, file.last_seen)
        names = {"image": file.image, "study": file.study}
        key = {"file": file.file or row.public["file"]}
        self.results.add(ResultRow(row.public | names | key, row.private | key, scores))
        self.kept += 1

    def reflag(self) -> None:
        """Conflicts of identity are only all known now: they flag earlier files too."""
        if self.duplicates.conflicting:
            self.results.reflag(self._final_flags)

    def _final_flags(self, row: dict[str, Any]) -> str:
        uids = {name: row[name] for name in ("series_instance_uid", "study_instance_uid")}
        return joined_flags(self.duplicates.final_flags(ReadResult(Path(), "score", flags=split_flags(row["flags"]), **uids)))

    def counts(self, studies: int) -> dict[str, Any]:
        """Files by outcome and reason, those that failed among them, studies."""
        return {
            **self.results.counts(),
            "failed": self.failed,
            "reused": self.reused,
            "kept": self.kept,
            "outside": self.outside,
            "studies": studies,
        }

    def study_names(self) -> StudyNames:
        """The scored studies by the names that labels may give them: UID, name in the tables, or file."""
        frame = self.results.frame("study", "outcome", "flags", "location", "path", where=pl.col("outcome").is_in(["score", "duplicate"]))
        scored = dict.fromkeys(frame.filter((pl.col("outcome") == "score") & ~has_flag(NOT_IN_MEAN))["study"], "")
        conflicts = frame.filter(pl.col("flags").str.split(FLAG_SEPARATOR).list.contains("uid_conflict"))["study"]
        scored |= {study: "uid_conflict" for study in conflicts if study in scored}
        by_name = {self.names.hashed(study): study for study in scored} if self.names.retain_uids else {}

        def by_uid(key: str) -> Iterator[str]:
            yield self.names.of(key)
            if key in by_name:
                yield by_name[key]

        files = (
            pair for file, path, study in frame.select("location", "path", "study").iter_rows() for pair in ((file, study), (path, study))
        )
        return StudyNames(scored, by_uid, files)
