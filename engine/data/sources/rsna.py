"""RSNA Pneumonia Detection Challenge (2018) as published -> the image table.

Shih et al., "Augmenting the NIH Chest Radiograph Dataset with Expert Annotations of Possible Pneumonia" (Radiology: AI 2019).

    stage_2_train_labels.csv            patientId, x, y, width, height, Target: a row per box, one without a box where Target is 0
    stage_2_detailed_class_info.csv     patientId, class: Normal | Lung Opacity | No Lung Opacity / Not Normal (read where it is there)
    stage_2_train_images/<patientId>.dcm

30,227 rows become 26,684 images, 6,012 with Target 1. What the set calls a patient is one image: all of them come from ChestX-ray14, where
many share a patient. Two things follow. A model that has seen ChestX-ray14 has seen these images; and a split by patientId may put a
person on both sides. With the organisers' mapping file (`nih_mapping`) images go by NIH's patient, and a split that parts them is refused.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from engine.data.sources.image_table import FINDING_TYPE, ImageTable
from engine.data.sources.label_files import label_text, read_label_file
from engine.data.sources.label_tables import LabelRows, binary, listed, table_of, unknown_labels
from engine.data.sources.published import RSNA_CLASSES, RSNA_PICTURES, RSNA_TABLES, find_label_file
from engine.data.sources.published_splits import drawn_parts, parts_by_lists, read_list, stem_of, without_valid
from engine.data.sources.table_rows import age_of, sex_of
from engine.errors import ConfigError, InputMissing, ReadError
from engine.recipe.labelled_sources import RsnaSource

# Sex, age and view as a DICOM file gives them: three attributes of its header, for subgroups of a data set that has them nowhere else.

KEYWORDS = ("PatientSex", "PatientAge", "ViewPosition")
CODE = re.compile(r"[A-Z0-9_]{1,16}")
"""One word of a code string (PS3.5 6.2, CS and AS); anything else is free text, and not passed on."""


class Described(NamedTuple):
    """PatientSex, PatientAge ("063Y"; some data sets write 63) and ViewPosition as they are written; "" where absent."""

    sex: str = ""
    age: str = ""
    view: str = ""


def described(path: Path) -> Described:
    """What the header says; nothing ("") of a file that cannot be read as DICOM. No pixel is read."""
    import pydicom

    import engine.dicom.header  # noqa: F401  # silences pydicom, whose messages quote values

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(KEYWORDS))
            texts = [str(dataset.get(keyword) or "").strip() for keyword in KEYWORDS]
    except MemoryError:
        raise
    except Exception:  # pydicom raises almost anything on hostile bytes
        return Described()
    return Described(*(text if CODE.fullmatch(text) else "" for text in texts))


SHARES = (("train", 0.7), ("valid", 0.15), ("test", 0.15))
"""Of the split 70_15_15."""
MEDKLIP_TEST = 5_337
"""Images of MedKLIP's test.csv; 1,218 of them are positive."""
CLASSES = ("Normal", "Lung Opacity", "No Lung Opacity / Not Normal")


def read_rsna(source: RsnaSource) -> ImageTable:
    """The images of one part: Pneumonia (Target), and No Finding where the detailed classes are there.

    Raises:
        InputMissing, ReadError, ConfigError: a table or list is not there, cannot be read, or is another one; a split that leaks.
        LabelsError: a cell is no label.
    """
    root = Path(source.root).absolute()
    labels = rsna_rows(root, source)
    pictures = {stem_of(name): path for name, path in listed([root / RSNA_PICTURES]).items()}
    files = {image: pictures[image] for image in labels.frame["image"].to_list() if image in pictures}
    if source.headers:
        labels = replace(labels, frame=_with_headers(labels.frame, files, source.part))
    return table_of(source, labels, source.part, files)


def rsna_rows(root: Path, source: RsnaSource) -> LabelRows:
    """One row per image, in parts."""
    path = find_label_file(root, RSNA_TABLES) or root / RSNA_TABLES[0]
    boxes = binary(read_label_file(path, ["patientId", "Target"]), ["Target"], path.name)
    frame = boxes.group_by("patientId", maintain_order=True).agg(Pneumonia=pl.col("Target").first(), targets=pl.col("Target").n_unique())
    unusable = (
        pl.when(pl.col("patientId").is_null())
        .then(pl.lit("file_blank"))
        .when(pl.col("targets") > 1)
        .then(pl.lit("labels_disagree"))
        .when(pl.col("Pneumonia").is_null())
        .then(pl.lit("no_label"))
    )
    image = pl.col("patientId").fill_null("")
    empty = pl.lit("")
    frame = frame.select(
        image=image,
        unit=image,
        study=image,
        patient=image,
        view=empty,
        sex=empty,
        age=pl.lit(None, pl.Float64),
        origin=empty,
        reason=unusable,
        aside=pl.lit(None, pl.String),
        Pneumonia=pl.when(pl.col("Pneumonia") != -1).then("Pneumonia").cast(FINDING_TYPE),
    )
    frame, findings = _with_classes(frame, root)
    if source.nih_mapping is not None:
        frame = _with_nih_patients(frame, Path(source.nih_mapping))
    frame, split = _in_parts(frame, source)
    published = {"test": MEDKLIP_TEST} if source.split == "medklip" else {}
    leak = "a subset of ChestX-ray14: a model that was trained on it has seen these images"
    return LabelRows(frame, findings, split, published=published, facts={"boxes": int((boxes["Target"] == 1).sum()), "leakage": leak})


def nih_images(path: Path) -> dict[str, str]:
    """patientId -> the image of ChestX-ray14 that it is (`00000001_000.png`), from pneumonia-challenge-dataset-mappings_2018.json.

    Raises:
        InputMissing, ReadError: it is not there, or no list of objects with subset_img_id and img_id.
    """
    try:
        pairs = {entry["subset_img_id"]: entry["img_id"] for entry in json.loads(label_text(path)) if entry.get("subset_img_id")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReadError(
            f"{path.name} is no mapping of RSNA images to NIH images",
            why=type(error).__name__,
            hint="a list of objects with subset_img_id and img_id",
        ) from None
    if not all(isinstance(name, str) for pair in pairs.items() for name in pair):
        raise ReadError(f"{path.name} is no mapping of RSNA images to NIH images", hint="a list of objects with subset_img_id and img_id")
    return pairs


def _with_headers(frame: pl.DataFrame, files: Mapping[str, str], part: str) -> pl.DataFrame:
    """The rows with sex, age and view as the headers of the part's files give them."""

    asked = frame.filter((pl.col("split") == part) | (part == "all"))["image"].to_list()
    said = {image: described(Path(files[image])) for image in asked if image in files}
    rows = [(image, sex_of(each.sex), age_of(each.age), each.view) for image, each in said.items()]
    found = pl.DataFrame(rows, schema={"image": pl.String, "sex": pl.String, "age": pl.Float64, "view": pl.String}, orient="row")
    frame = frame.drop("sex", "age", "view").join(found, on="image", how="left", maintain_order="left")
    return frame.with_columns(pl.col("sex", "view").fill_null(""))


def _with_classes(frame: pl.DataFrame, root: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows with No Finding, from the detailed classes, where their table is there: 1 for Normal, 0 for the other two."""
    path = find_label_file(root, RSNA_CLASSES)
    if path is None:
        return frame, ("Pneumonia",)
    classes = read_label_file(path, ["patientId", "class"]).drop_nulls().unique(maintain_order=True)
    unknown_labels(classes["class"], CLASSES, path.name)
    normal = (pl.col("class") == "Normal").cast(FINDING_TYPE)
    of_image = classes.group_by("patientId").agg(normal.first().alias("No Finding"), pl.col("class").n_unique().alias("classes"))
    frame = frame.join(of_image, left_on="image", right_on="patientId", how="left", maintain_order="left")
    contradicts = (pl.col("classes") > 1) | ((pl.col("No Finding") == 1) & (pl.col("Pneumonia") == 1))
    reason = pl.coalesce("reason", pl.when(contradicts).then(pl.lit("labels_contradict")))
    return frame.with_columns(reason=reason).drop("classes"), ("Pneumonia", "No Finding")


def _with_nih_patients(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The rows with NIH's patient; an image that the mapping does not name counts as itself."""
    patients = {image: stem_of(nih).partition("_")[0] for image, nih in nih_images(path).items()}
    if not set(patients) & set(frame["image"]):
        raise ConfigError(f"{path.name} maps none of these images", hint="leave `nih_mapping` out, or set it to the challenge's own file")
    return frame.with_columns(patient=pl.col("image").replace(patients))


def _in_parts(frame: pl.DataFrame, source: RsnaSource) -> tuple[pl.DataFrame, str]:
    """The rows with their part, and the name of the split."""
    seed = source.drawn.seed
    lists: dict[str, frozenset[str]] = {part: read_list(Path(file), frame["image"]) for part, file in source.lists.items()}
    if source.split == "medklip" and "test" not in lists:
        raise InputMissing("MedKLIP's list of test images is not named", hint="set lists.test to its test.csv, or split: 70_15_15")
    if not lists:
        parts = drawn_parts(frame["patient"], SHARES, seed)
        split = pl.col("patient").replace_strict(parts, return_dtype=pl.String)
        whose = "NIH patient" if source.nih_mapping else "image"
        return frame.with_columns(split=split), f"rsna 70/15/15 by a hash of the {whose}, seed {seed}"
    name = "rsna, MedKLIP's test" if source.split == "medklip" else "rsna 70/15/15, lists of the recipe"
    frame = parts_by_lists(frame, lists, rest="unlisted" if "train" in lists else "train")
    if "valid" in lists:
        return frame, name
    share = source.drawn.valid_share
    return without_valid(frame, share, seed), f"{name}, {share:g} of the training images for validation, seed {seed}"
