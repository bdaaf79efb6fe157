"""The record of a run: `run.json` says what was run on what with which versions, `log.jsonl` holds one event a line.

Every verb writes `run.json` through this module. A scoring run or an evaluation writes it last, with a hash of every output file
(`publish_run`); a training run keeps it up to date from its start (`RunLog`). Neither file holds a path, host name or user name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import platform
import re
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

from engine.tables.atomic import AtomicGroup, publish

RUN, LOG = "run.json", "log.jsonl"
PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "polars", "pillow", "pydicom", "imagecodecs", "SimpleITK",
    "scikit-learn", "spacy", "scispacy",
)  # fmt: skip
"""Packages whose versions can change a result."""


def code_version() -> str:
    """The version of mmclip; "source" where it runs from a checkout without being installed."""
    try:
        return version("mmclip")
    except PackageNotFoundError:
        return "source"


def utc_time() -> str:
    """The date and time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python, mmclip and the installed ones of `PACKAGES`, and the platform; no package is imported for it."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform} {platform.machine()}", "mmclip": code_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@dataclass
class Clock:
    """Seconds since the start and of each lap, by the monotonic clock."""

    start: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    def lap(self, name: str) -> None:
        """End a lap and name it."""
        self.seconds[name] = self.total() - sum(self.seconds.values())

    def total(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def laps(self) -> dict[str, float]:
        """Seconds of each lap, and `total` since the start, time outside the laps included."""
        return {name: round(value, 3) for name, value in (*self.seconds.items(), ("total", self.total()))}


class RunLog:
    """`run.json` and `log.jsonl` of a run that may be killed: the summary is written at the start and at every `update`.

    A log that cannot be written (a full disk) does not end the run; the lines that were lost are counted in `run.json`.

    Attributes:
        facts: what `run.json` says.
        waits: True holds the summary back, so that the one of an earlier run stays until this run is accepted.
        is_kept: False writes nothing: every process but the first.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], *, waits: bool = False, is_kept: bool = True) -> None:
        self.folder, self.waits, self.is_kept = folder, waits, is_kept
        self.facts: dict[str, Any] = {"status": "running", "seconds": 0.0, **facts}
        self.log_lines_lost = 0
        self._clock = Clock()
        self.update()

    def update(self, **facts: Any) -> None:
        """Add facts to the summary and write it whole, unless it waits."""
        self.facts |= facts | {"seconds": round(self._clock.total(), 3)}
        if self.waits or not self.is_kept:
            return
        if self.log_lines_lost:
            self.facts["log_lines_lost"] = self.log_lines_lost
        publish_json(self.folder / RUN, as_json(self.facts))

    def append(self, event: object) -> None:
        """Append one event (a dataclass) to the log, with its kind and the seconds since the run began."""
        if not self.is_kept:
            return
        line = {"event": event_name(event), "at": round(self._clock.total(), 3), **as_json(event)}
        try:
            append_line(self.folder / LOG, json.dumps(line, ensure_ascii=False))
        except OSError:
            self.log_lines_lost += 1


@dataclass(frozen=True)
class Notice:
    """A sentence for the user of any verb; it holds no identifier."""

    message: str


_EVENT_NAME = re.compile(r"(Scoring|Finetune|Pretrain|Ingest)(Started|Finished)")
_EVENT_NAMES = {
    "PretrainDataSummary": "prepared", "FinetuneDataSummary": "prepared", "StoreProgress": "filled", "FractionSplit": "drawn",
    "FinetunePlan": "plan",
}  # fmt: skip


def event_name(event: object) -> str:
    """The kind of an event as log.jsonl and --json name it: `started`, `prepared`, `step`."""
    name = type(event).__name__
    if found := _EVENT_NAME.fullmatch(name):
        return found[2].lower()
    return _EVENT_NAMES.get(name, name.lower())


def publish_run(folder: Path, facts: Mapping[str, Any], outputs: Iterable[str]) -> dict[str, Any]:
    """`run.json` of a run that has ended: its facts and the SHA-256 of those output files that exist; returned as written.

    Raises:
        OutputError: it cannot be written.
    """
    hashes = {}
    for name in outputs:
        with suppress(FileNotFoundError), (folder / name).open("rb") as stream:
            hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    whole = {**facts, "outputs": hashes}
    publish_json(folder / RUN, whole)
    return whole


def publish_json(path: Path, value: Mapping[str, Any], *, to: AtomicGroup | None = None) -> None:
    """One JSON object, indented, UTF-8. `to`: the group of files that it is published with.

    Raises:
        ValueError: it holds NaN or infinity, which JSON lacks.
        OutputError: it cannot be written.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(stream: BinaryIO) -> None:
        stream.write(text.encode())

    (to.add if to else publish)(path, write)


def append_line(path: Path, line: str) -> None:
    """Append one line; an unfinished last line (the process was killed) is ended first."""
    with path.open("a+b") as file:
        if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
            file.write(b"\n")
        file.write(line.encode() + b"\n")


def as_json(value: Any) -> Any:
    """The value in JSON's own types: dataclasses as objects, NaN and infinity as null, everything else as its string."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: as_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
