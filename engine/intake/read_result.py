"""The result of reading one file: outcome, reason, flags, codes, identifiers and, where it is scored, the grey image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.dicom.reasons import Outcome

KNOWN = "known"
"""Stands as the reason of a file that was not read beyond its hash; no reason of reasons.REASONS, and never written down."""


@dataclass(frozen=True, eq=False)
class ReadResult:
    """One file: its outcome, why, and, where it is scored, its picture.

    outcome 'score' has a picture and no reason; every other outcome has a reason (reasons.REASONS) and no picture. content_hash is the
    SHA-256 of the bytes that were read, '' where none were. pixel_hash is the same for the same stored values in every lossless encoding,
    None where they were not decoded whole. detail: a keyword of reasons.DETAILS, the attribute that was missing or wrong, '' where none is
    named. picture: uint8 (H, W), bone bright, shorter side as asked. modality, view, sop_class and transfer_syntax are codes of the
    standard, or OTHER. Identifiers (the instance, series and study UIDs, patient) and path are for private tables only.
    """

    path: Path
    outcome: Outcome
    reason: str | None = None
    flags: tuple[str, ...] = ()
    content_hash: str = ""
    pixel_hash: str | None = None
    modality: str | None = None
    view: str | None = None
    transfer_syntax: str | None = None
    sop_class: str | None = None
    rows: int | None = None
    columns: int | None = None
    sop_instance_uid: str | None = None
    series_instance_uid: str | None = None
    study_instance_uid: str | None = None
    patient: str | None = None
    detail: str = ""
    image: NDArray[np.uint8] | None = None

    def without_image(self, outcome: Outcome, reason: str) -> ReadResult:
        """The same file with another outcome, its picture dropped."""
        return replace(self, outcome=outcome, reason=reason, image=None)


COARSE = (16, 16)
"""Rows and columns of a coarse picture, by which copies of one radiograph are known."""


def coarse_image(picture: NDArray[np.uint8]) -> bytes:
    """Means of a picture (H, W) over COARSE cells, row by row: what `settle` compares, and the same again when taken of itself."""
    if picture.shape == COARSE:
        return picture.tobytes()
    rows, columns = (np.linspace(0, side, cells + 1).astype(int)[:-1] for side, cells in zip(picture.shape, COARSE, strict=True))
    sums = np.add.reduceat(np.add.reduceat(picture.astype(np.float32), rows, 0), columns, 1)
    counts = np.outer(np.diff([*rows, picture.shape[0]]), np.diff([*columns, picture.shape[1]]))
    return np.rint(sums / counts).astype(np.uint8).tobytes()
