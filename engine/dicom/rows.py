"""A reading as rows of tables: of the image table and back, and of a run's results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.dicom.inputs import Item
from engine.dicom.reading import COARSE, Reading, coarse_picture
from engine.tables.columns import joined_flags, plain_code, split_flags
from engine.tables.identity import Names
from engine.tables.parts import text_of_path
from engine.tables.results import ResultRow

_AS_THEY_ARE = (
    "outcome", "reason", "content_hash", "pixel_hash", "modality", "view", "transfer_syntax", "sop_class", "rows", "columns",
    "sop_instance_uid", "series_instance_uid", "study_instance_uid", "patient",
)  # fmt: skip


def table_row(reading: Reading) -> dict[str, Any]:
    """The reading as a row of the image table: outcome and flags by the file alone, before other files of the run are looked at."""
    cells: dict[str, Any] = {name: getattr(reading, name) for name in _AS_THEY_ARE}
    cells["flags"] = joined_flags(reading.flags)
    cells["coarse"] = None if reading.picture is None else coarse_picture(reading.picture)
    return cells


def remembered_reading(path: Path, cells: Mapping[str, Any]) -> Reading:
    """The reading that a row of the image table holds; its picture is the coarse one, which is all that settling duplicates looks at."""
    coarse = cells["coarse"]
    picture = None if coarse is None else np.frombuffer(coarse, np.uint8).reshape(COARSE)
    return Reading(path, flags=split_flags(cells["flags"]), picture=picture, **{name: cells[name] for name in _AS_THEY_ARE})


def result_row(item: Item, reading: Reading, scores: NDArray[np.float32] | None, names: Names) -> ResultRow:
    """The settled reading as a row of the results.

    An image is named by its SOP instance UID, else by its content, else (a file that could not be read) by its path. A study is what the
    image table says, else what the file says; a picture that belongs to none is a study by itself.
    """
    path = text_of_path(item.path)
    uid = reading.sop_instance_uid
    image = names.of(uid) if uid else names.hashed(reading.content_hash or path)
    study = item.study or reading.study_instance_uid
    public = {
        "image": image,
        "study": names.of(study) if study else image if scores is not None else None,
        "content_hash": reading.content_hash or None,
        "outcome": reading.outcome,
        "reason": reading.reason,
        "flags": joined_flags(reading.flags),
        "modality": plain_code(reading.modality),
        "view": plain_code(reading.view) or plain_code(item.view),
        "rows": reading.rows,
        "columns": reading.columns,
        "transfer_syntax": plain_code(reading.transfer_syntax),
    }
    private = {
        "path": item.given or path,
        "file": path,
        "sop_instance_uid": uid,
        "study_instance_uid": reading.study_instance_uid,
        "series_instance_uid": reading.series_instance_uid,
        "patient": item.patient or reading.patient,
    }
    return ResultRow(public, private, scores)
