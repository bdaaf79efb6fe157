"""Signs that a split leaks although its patient column says otherwise: file names that tell of shared patients, and near copies of images.

Names follow the layouts of the public data sets; near copies (re-encoded, resized, brightened) are found by a difference hash of 256 bits.
Both are reported before training and never change a split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

LAYOUTS: dict[str, re.Pattern[str]] = {
    "MIMIC-CXR": re.compile(r"(?:^|/)p1\d/(p1\d{7})/s\d{8}/"),
    "CheXpert": re.compile(r"(?:^|/)(patient\d{5,6})/study\d+/"),
    "ChestX-ray14": re.compile(r"(?:^|/)(\d{8})_\d{3}\.\w+$"),
    "Kermany": re.compile(r"(?:^|/)(person\d+)_(?:bacteria|virus)_\d+\.\w+$"),
    "Kermany, normal": re.compile(r"(?:^|/)((?:NORMAL2-)?IM-\d{4})-\d{4}(?:-\d{4})?\.\w+$"),
    "COVIDx, RICORD": re.compile(r"(?:^|/)(MIDRC-RICORD-1C-[\w.]+?-\d+)-\d+"),
    "patient in the name": re.compile(r"(?:^|/)((?:patient|subject|subj|pat|pid)[-_ ]?\d+)(?=[-_ ./])", re.IGNORECASE),
}
"""Layout -> what names the patient in a path. PadChest's names hold no patient, nor do RSNA's and SIIM's, which are UIDs."""
CELLS = 16
"""Rows of cells of a difference hash; there are as many columns, and one more."""
NEAR = 16
"""Bits in which the hashes of near copies may differ, of 256; measured by tests/benchmarks/leak_check.py."""
_BITS = np.array([bin(value).count("1") for value in range(256)], np.uint8)


def patient_in_name(path: str) -> tuple[str, str] | None:
    """(layout, patient) where a path is named as in a public data set; None for other paths."""
    path = path.replace("\\", "/")
    return next(((layout, found[1]) for layout, form in LAYOUTS.items() if (found := form.search(path))), None)


@dataclass(frozen=True)
class NameLeak:
    """Patients whose images, by their names, are in several splits: `images` of `of` images of the later split have one in another."""

    layout: str
    patients: int
    images: int
    of: int

    def __str__(self) -> str:
        """The finding as a sentence for the user."""
        return (
            f"leakage by file names: named as in {self.layout}, {self.patients} patients have images in several splits "
            f"({self.images} of the {self.of} test images are of patients trained on); name the patient column, or split by patient"
        )


def leaks_by_name(frame: pl.DataFrame) -> list[NameLeak]:
    """Patients that names put into several splits.

    Args:
        frame: columns file (or image) and part: train, validation, test; other values are left out.
    """
    column = "file" if "file" in frame.columns else "image"
    rows = frame.filter(pl.col("part").is_in(["train", "validation", "test"])).select(column, "part")
    named = [(*found, part) for path, part in rows.iter_rows() if (found := patient_in_name(path)) is not None]
    table = pl.DataFrame(named, schema={"layout": pl.String, "patient": pl.String, "part": pl.String}, orient="row")
    leaks = []
    for (layout,), images in table.group_by("layout", maintain_order=True):
        parts = images.group_by("patient").agg(pl.col("part").unique())
        shared = parts.filter(pl.col("part").list.len() > 1)
        if shared.is_empty():
            continue
        trained = images.filter(pl.col("part") != "test")["patient"].unique()
        tested = images.filter(pl.col("part") == "test")
        leaks.append(NameLeak(str(layout), shared.height, int(tested["patient"].is_in(trained.implode()).sum()), tested.height))
    return leaks


def difference_hash(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(32,) uint8: whether the mean of each of 16 x 16 cells of an image (H, W) is below that of its right neighbour."""
    from PIL import Image

    means = np.asarray(Image.fromarray(image.astype(np.float32)).resize((CELLS + 1, CELLS), Image.Resampling.BOX))
    return np.packbits(means[:, 1:] > means[:, :-1])


def near_copies(hashes: NDArray[np.uint8], others: NDArray[np.uint8], near: int = NEAR) -> NDArray[np.bool_]:
    """(N,): whether each hash (N, 32) differs from one of the others (M, 32) in at most `near` bits."""
    found = np.zeros(len(hashes), bool)
    for start in range(0, len(hashes), 64):
        block = hashes[start : start + 64]
        distance = np.zeros((len(block), len(others)), np.uint16)
        for byte in range(hashes.shape[1] if len(hashes) else 0):
            distance += _BITS[block[:, byte, None] ^ others[None, :, byte]]
        found[start : start + 64] = (distance <= near).any(1) if len(others) else False
    return found


def leak_by_copies(tested: Sequence[NDArray[np.uint8]], trained: Sequence[NDArray[np.uint8]]) -> str | None:
    """A sentence about test images (uint8 (H, W)) that are near copies of training images; None where there are none."""
    if not tested or not trained:
        return None
    hashes, others = (np.stack([difference_hash(image) for image in images]) for images in (tested, trained))
    count = int(near_copies(hashes, others).sum())
    if not count:
        return None
    return f"leakage by copies: {count} of the {len(tested)} test images are near copies (re-encoded, resized) of images trained on"
