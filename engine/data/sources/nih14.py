"""NIH ChestX-ray14 as published -> the image table.

Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database" (CVPR 2017, arXiv 1705.02315); adjudicated labels: Majkowska et al.,
"Chest Radiograph Interpretation with Deep Learning Models" (Radiology 2020).

    Data_Entry_2017.csv, Data_Entry_2017_v2020.csv    112,120 rows; Finding Labels joined by "|"
    train_val_list.txt, test_list.txt                 86,524 and 25,596 images, no patient in both
    images_001/images/ to images_012/images/, or images/
    google2019_nih-chest-xray-labels.csv              4,376 images, four findings, YES or NO, column Set Id

The header names the size as "OriginalImage[Width,Height]", so that it has a comma more than columns; the first edition writes ages as 060Y
in part of the rows, has ages up to 414, and ends rows with a comma. An image is found by its name without the suffix: copies of the
set are often JPEG. All 14 findings were looked for in every report, so that one that is not named is absent.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import NamedTuple

import polars as pl

from engine.data.sources.image_table import FINDING_TYPE, ImageTable
from engine.data.sources.label_files import label_text, read_label_file
from engine.data.sources.label_tables import LabelRows, age_column, binary, listed, sex_column, table_of, unknown_labels
from engine.data.sources.published import GOOGLE_TABLES, NIH_LISTS, NIH_TABLES, find_label_file
from engine.data.sources.published_splits import drawn_parts, parts_by_lists, read_list, stem_of, without_valid
from engine.errors import InputMissing, ReadError
from engine.recipe.labelled_sources import NIH_FINDINGS, NIH_SPELLED, Nih14Source

GOOGLE_FINDINGS = {
    "Fracture": "Fracture",
    "Pneumothorax": "Pneumothorax",
    "Airspace opacity": "Lung Opacity",
    "Nodule or mass": "Lung Lesion",
}
"""Columns of the adjudicated labels -> findings as prompts spell them."""
PUBLISHED = {"train": 86_524, "test": 25_596}
SHARES = (("train", 0.7), ("valid", 0.1), ("test", 0.2))
"""Of the split 70_10_20."""
COLUMNS = ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position"]


def read_nih14(source: Nih14Source) -> ImageTable:
    """The images of one part, with what NIH's or Google's labels say.

    Raises:
        InputMissing, ReadError, ConfigError: a table or list is not there, cannot be read, or is another one; a split that leaks.
        LabelsError: the table has labels that ChestX-ray14 does not.
    """
    root = Path(source.root).absolute()
    labels = google_rows(root, source) if source.labels == "google2019" else nih14_rows(root, source)
    pictures = {stem_of(name): path for name, path in listed(_picture_folders(root)).items()}
    return table_of(source, labels, source.part, {image: pictures.get(stem_of(image), "") for image in labels.frame["image"].to_list()})


def nih14_rows(root: Path, source: Nih14Source) -> LabelRows:
    """All 112,120 rows of the label table, in parts."""
    path = find_label_file(root, NIH_TABLES) or root / NIH_TABLES[0]
    frame = _described(read_label_file(path, COLUMNS))
    items = frame["Finding Labels"].fill_null("").str.split("|")
    spelled = {**{name: name for name in NIH_FINDINGS}, **NIH_SPELLED}
    named = items.explode().str.strip_chars().drop_nulls()
    unknown_labels(set(named) - {""}, [*(name for name in spelled), "No Finding"], path.name)
    canonical = items.list.eval(pl.element().str.strip_chars().replace(spelled))
    findings = ("No Finding", *NIH_FINDINGS)
    unlabelled = frame["Finding Labels"].is_null()
    columns = [pl.when(~unlabelled).then(canonical.list.contains(finding)).cast(FINDING_TYPE).alias(finding) for finding in findings]
    both = canonical.list.contains("No Finding") & (canonical.list.len() > 1)
    reason = pl.when(unlabelled).then(pl.lit("no_label")).when(both).then(pl.lit("labels_contradict"))
    frame, split = _in_parts(frame.with_columns(*columns, reason=reason), root, source)
    published = {}
    if source.split == "official" and not source.lists:
        # what is set apart for validation is no longer in the list of train_val
        published = {part: count for part, count in PUBLISHED.items() if part == "test" or source.drawn.valid_share == 0}
    return LabelRows(frame, findings, split, published=published)


def google_rows(root: Path, source: Nih14Source) -> LabelRows:
    """The 4,376 images that radiologists agreed on; their own parts, whatever `split` says."""
    path = find_label_file(root, GOOGLE_TABLES) or root / GOOGLE_TABLES[0]
    frame = _described(read_label_file(path, [*COLUMNS, *GOOGLE_FINDINGS, "Set Id"]))
    answers = frame.with_columns(pl.col(list(GOOGLE_FINDINGS)).str.to_uppercase().replace({"YES": "1", "NO": "0"}))
    frame = binary(answers, list(GOOGLE_FINDINGS), path.name).rename(GOOGLE_FINDINGS)
    parts = {"test": "test", "val": "valid", "validation": "valid"}
    frame = frame.with_columns(split=pl.col("Set Id").replace_strict(parts, default="", return_dtype=pl.String))
    return LabelRows(
        frame, tuple(GOOGLE_FINDINGS.values()), "nih14, parts of Google's adjudicated labels", published={"valid": 2_414, "test": 1_962}
    )


def _described(frame: pl.DataFrame) -> pl.DataFrame:
    """What both tables say of an image; each is a follow-up, hence a study, of its own."""
    blank = pl.when(pl.col("Image Index").is_null() | pl.col("Patient ID").is_null()).then(pl.lit("file_blank"))
    return frame.with_columns(
        image=pl.col("Image Index").fill_null(""),
        unit=pl.col("Image Index").fill_null(""),
        study=pl.Series([stem_of(image or "") for image in frame["Image Index"].to_list()], dtype=pl.String),
        patient=pl.col("Patient ID").fill_null(""),
        view=pl.col("View Position").fill_null(""),
        sex=sex_column("Patient Gender"),
        age=age_column("Patient Age"),
        origin=pl.lit(""),
        reason=blank,
        aside=pl.lit(None, pl.String),
    )


def _in_parts(frame: pl.DataFrame, root: Path, source: Nih14Source) -> tuple[pl.DataFrame, str]:
    """The rows with their part, and the name of the split."""
    drawn = f"{source.drawn.valid_share:g} of the training patients for validation, seed {source.drawn.seed}"
    if source.split == "70_10_20":
        parts = drawn_parts(frame["patient"], SHARES, source.drawn.seed)
        split = pl.col("patient").replace_strict(parts, return_dtype=pl.String)
        return frame.with_columns(split=split), f"nih14 70/10/20 by a hash of the patient, seed {source.drawn.seed}"
    paths: dict[str, Path] = {part: Path(file) for part, file in source.lists.items()}
    if not paths:
        found = {part: find_label_file(root, names) for part, names in NIH_LISTS.items()}
        if found["test"] is None:
            raise InputMissing("test_list.txt is not there", hint="it comes with the data set; or set lists.test, or split: 70_10_20")
        paths = {part: path for part, path in found.items() if path is not None}
    lists = {part: read_list(path, frame["image"]) for part, path in paths.items()}
    frame = parts_by_lists(frame, lists, rest="unlisted" if "train" in lists else "train")
    name = "nih14 official lists" if not source.lists else "nih14, lists of the recipe"
    return (frame, name) if "valid" in lists else (without_valid(frame, source.drawn.valid_share, source.drawn.seed), f"{name}, {drawn}")


def _picture_folders(root: Path) -> list[Path]:
    """images/ and images_001/ to images_012/, and the folder images/ within each."""
    outer = sorted(path for path in root.glob("images*") if path.is_dir())
    return [folder for each in outer for folder in (each, each / "images")]


# The boxes that a radiologist drew for ChestX-ray14 (BBox_List_2017.csv): where in an image a finding was seen.

PICTURE_SIZE = 1024
"""Width and height, in pixels, of the images that the boxes were drawn on."""


class Box(NamedTuple):
    """Where a finding was seen, in pixels of the 1024 x 1024 image: left upper corner, width, height."""

    finding: str
    x: float
    y: float
    width: float
    height: float


def read_boxes(path: Path | str) -> dict[str, list[Box]]:
    """Image (`00013118_008.png`) -> its boxes, in the table's order; a finding may have several.

    Args:
        path: BBox_List_2017.csv as published, also gzipped or zipped.

    Raises:
        InputMissing: there is no such file.
        ReadError: it is no such table: a row of another length, an unknown finding, or a box that is not inside the image. A box
            may end one pixel beyond the border, as rounding leaves it.
    """
    path = Path(path)
    boxes: dict[str, list[Box]] = {}
    for number, row in enumerate(csv.reader(io.StringIO(label_text(path), newline=""))):
        cells = [cell.strip() for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if not cells or number == 0:
            continue
        box = _box(cells)
        if box is None:
            raise ReadError(
                f"line {number + 1} of {path.name} is no box",
                why="a box is an image, a finding, and x, y, width and height inside 1024 x 1024 pixels",
                hint="fetch the published BBox_List_2017.csv again",
            )
        boxes.setdefault(cells[0], []).append(box)
    if not boxes:
        raise ReadError(f"{path.name} holds no box", hint="fetch the published BBox_List_2017.csv again")
    return boxes


def _box(cells: list[str]) -> Box | None:
    """The box of a row's six cells; None where they are none."""
    if len(cells) != 6:
        return None
    finding = NIH_SPELLED.get(cells[1], cells[1])
    try:
        x, y, width, height = map(float, cells[2:])
    except ValueError:
        return None
    edges = (x, y, width, height, x + width, y + height)
    inside = all(math.isfinite(edge) for edge in edges) and min(x, y) >= 0 and min(width, height) > 0 and max(edges) <= PICTURE_SIZE + 1
    return Box(finding, x, y, width, height) if inside and finding in NIH_FINDINGS else None
