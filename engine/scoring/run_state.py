"""What grows while the files of a run go by: their rows, duplicates and conflicts, and the part of the image table being filled."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.dicom.reasons import FAILURES
from engine.intake.duplicates import Registry
from engine.intake.files import Item
from engine.intake.read_result import Reading, coarse_picture
from engine.scoring.feature_cache import NOT_KEPT, PART_ROWS, Found, result_row, table_row
from engine.tables.columns import FLAG_SEPARATOR, joined_flags, split_flags
from engine.tables.identity import Names
from engine.tables.labels import Joined, Labels, join
from engine.tables.results import Results
from engine.tables.shards import ImageTable, text_of_path

Vector = NDArray[np.float32]

PART_SECONDS = 30.0
"""A part of the image table is published after so many files or seconds, whichever comes first: the most that a kill can cost."""
SEVERAL = 10
"""From so many different pictures on, equal scores for all of them mean a broken model."""


@dataclass
class Gathered:
    """What grows while files go by: rows of the results, duplicates and conflicts, and the part of the image table being filled."""

    results: Results
    names: Names
    table: ImageTable
    registry: Registry = field(default_factory=Registry)
    reused: int = 0
    failed: int = 0
    """Files that are damaged or out of reach (reasons.FAILURES)."""
    scored: list[Item] | None = None
    """The files of the rows of outcome `score`, in their order, where a list is given: heatmaps are drawn of them."""
    pictures: set[bytes] = field(default_factory=set)
    """Coarse pictures, up to SEVERAL different ones."""
    _part: list[tuple[dict[str, Any], Vector | None]] = field(default_factory=list)
    _part_since: float = field(default_factory=time.monotonic)

    def take(self, found: Found, features: Vector | None, scores: Vector | None) -> tuple[str, Reading]:
        """A row of the results and, where it is new, of the image table: the image's name, and its reading as it was settled."""
        item, reading = found.item, found.reading
        content = bytes.fromhex(reading.content_hash)[:16]
        if not found.known and content and reading.reason not in NOT_KEPT and self.registry.scratch.first("stored", content) is None:
            self._part.append((table_row(reading), features))
            if len(self._part) >= PART_ROWS or time.monotonic() - self._part_since > PART_SECONDS:
                self.close()
        if reading.picture is not None and len(self.pictures) < SEVERAL:
            self.pictures.add(coarse_picture(reading.picture))
        settled = self.registry.settle(reading)
        if settled.outcome not in ("score", "duplicate"):
            scores = None
        if settled.outcome == "score" and self.scored is not None:
            self.scored.append(item)
        row = result_row(item, settled, scores, self.names)
        self.results.add(row)
        self.reused += found.known
        self.failed += settled.reason in FAILURES
        return row.public["image"], settled

    def close(self) -> None:
        """Publish the part being filled."""
        self.table.add([row for row, _ in self._part], [features for _, features in self._part])
        self._part.clear()
        self._part_since = time.monotonic()

    def reflag(self) -> None:
        """Conflicts of identity are only all known now: they flag earlier files too."""
        if self.registry.conflicting:
            self.results.reflag(self._final_flags)

    def _final_flags(self, row: dict[str, Any]) -> str:
        uids = {name: row[name] for name in ("series_instance_uid", "study_instance_uid")}
        return joined_flags(self.registry.final_flags(Reading(Path(), "score", flags=split_flags(row["flags"]), **uids)))

    def counts(self, studies: int) -> dict[str, Any]:
        """Files by outcome and reason, those that failed among them, studies."""
        return {**self.results.counts(), "failed": self.failed, "reused": self.reused, "studies": studies}

    def joined(self, truth: Sequence[Labels]) -> Joined | None:
        """Labels of scored studies: by UID, by the name of the study in the tables, or by file."""
        if not truth:
            return None
        frame = self.results.frame("study", "outcome", "flags", "file", where=pl.col("outcome").is_in(["score", "duplicate"]))
        scored = dict.fromkeys(frame.filter(pl.col("outcome") == "score")["study"], "")
        conflicts = frame.filter(pl.col("flags").str.split(FLAG_SEPARATOR).list.contains("uid_conflict"))["study"]
        scored |= {study: "uid_conflict" for study in conflicts if study in scored}
        by_name = {self.names.hashed(study): study for study in scored} if self.names.retain_uids else {}
        by_file: dict[str, str] = {}
        if any(labels.key == "file" for labels in truth):
            by_file = {_absolute(path): study for path, study in frame.select("file", "study").iter_rows()}

        def study_of(labels: Labels, key: str) -> str | None:
            if labels.key == "file":
                return by_file.get(_absolute(text_of_path(labels.folder / key)))
            return next((name for name in (key, self.names.of(key), by_name.get(key)) if name in scored), None)

        return join(truth, [study_of(labels, key) for labels in truth for key in labels.keys], scored)


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - links stay as they were named
