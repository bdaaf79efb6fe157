"""The result of reading one file: outcome, reason, flags, codes, identifiers and, where it is scored, the grey image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.dicom.reasons import Outcome

KNOWN = "known"
"""Reason of a file that was only hashed, as its content is in the cache; not in reasons.REASONS, and never written to a table."""


@dataclass(frozen=True, eq=False)
class ReadResult:
    """The result of reading one file.

    outcome 'score' has an image and no reason; every other outcome has a reason (reasons.REASONS) and no image. content_hash is the
    SHA-256 of the bytes that were read, '' where none were. pixel_hash is the same for the same stored values in every lossless encoding,
    None where they were not decoded whole. detail: a keyword of reasons.DETAILS, the attribute that was missing or wrong, '' where none is
    named. image: uint8 (H, W), bone bright, shorter side as asked. modality, view, sop_class and transfer_syntax are codes of the
    standard, or OTHER. age is PatientAge as DICOM writes it (045Y). Identifiers (the
    instance, series and study UIDs, patient), age and path are for private tables only.
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
    age: str | None = None
    detail: str = ""
    image: NDArray[np.uint8] | None = None

    def without_image(self, outcome: Outcome, reason: str) -> ReadResult:
        """The same file with another outcome, without its image."""
        return replace(self, outcome=outcome, reason=reason, image=None)


COARSE = (16, 16)
"""Rows and columns of a coarse image, by which copies of one radiograph are recognised."""


def coarse_image(image: NDArray[np.uint8]) -> bytes:
    """Means of an image (H, W) over COARSE cells, row by row; a coarse image gives itself."""
    if image.shape == COARSE:
        return image.tobytes()
    rows, columns = (np.linspace(0, side, cells + 1).astype(int)[:-1] for side, cells in zip(image.shape, COARSE, strict=True))
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float32), rows, 0), columns, 1)
    counts = np.outer(np.diff([*rows, image.shape[0]]), np.diff([*columns, image.shape[1]]))
    return np.rint(sums / counts).astype(np.uint8).tobytes()
