"""Image sources in recipes: one class per kind of data set, shared by pretraining, fine-tuning and evaluation.

Published data sets with labels are in labelled_sources.py. The readers in engine/data/sources document each published layout.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engine.recipe.labelled_sources import CHEXPERT_FINDINGS, LabelledSource
from engine.recipe.section import Positive, Recipe, Section, Share

__all__ = [
    "CHEXPERT_FINDINGS", "LabelledSource", "MimicSource", "OpeniSource", "PadchestSource", "PatientSplit", "Source", "SourcesRecipe",
    "StoreRecipe", "TableSource",
]  # fmt: skip


class PatientSplit(Section):
    """Split by patient: the share of patients to train on, drawn by a hash of patient and seed; the others are held out."""

    train: Share = 1.0
    seed: int = 0
    stratified: bool = False
    """Draw among the labelled patients only, each group of patients with equal labels by itself, so that rare findings are on both sides.
    The draw then depends on the labels of the table."""


class TableSource(Section):
    """A CSV or Parquet table of images (see engine/data/sources/table.py)."""

    kind: Literal["table"] = "table"
    name: str | None = None
    """Name of this source in tables and counts; None: the table's file name."""
    file: str
    """The table, with a column `file` and optional study, patient, view, report, split and finding columns, in any usual spelling."""
    root: str | None = None
    """Folder that relative file names start from; None: the table's folder."""
    columns: dict[Literal["file", "study", "patient", "view", "report", "split", "sex", "age"], str] = {}
    """mmclip's column name -> the table's, where it is none of the usual ones (for instance `patient: case_number`)."""
    labels: str | None = None
    """A column that lists findings or names a class. None: one column per finding, named as one of the 14 findings, in `findings` or in
    `rename`, with 1 = present, 0 = absent, blank = unknown; where there is none, a column called `Finding Labels`, `label` or the like."""
    unlisted: Literal["unknown", "absent"] = "unknown"
    """Findings that `labels` does not list for an image, but for other images of the table: unknown, or absent."""
    findings: tuple[str, ...] = ()
    """Findings of the table besides the 14: names of columns, or names in `labels`."""
    uncertain: Literal["unknown", "present", "absent"] = "unknown"
    """How -1 and u (uncertain) are read."""
    label_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Soft labels (between 0 and 1) from this value on are present. None: a soft label is an error."""
    rename: dict[str, str | None] = {}
    """Finding as the table spells it -> finding as prompts spell it; None drops it."""
    implies: dict[str, dict[str, Literal[0, 1]]] = {}
    """Finding (as prompts spell it) that is present -> findings that are then present (1) or absent (0)."""
    exhaustive: tuple[str, ...] = ()
    """Findings that were assessed in every labelled image: absent where neither listed nor implied. Other findings are unknown."""
    where: dict[str, tuple[str, ...]] = {}
    """Column -> values to keep; other rows are counted as left out."""
    split: PatientSplit = PatientSplit()
    reports: Literal["column", "weak", "none"] = "column"
    """column: the table's report column; weak: sentences made from labels (weak pairs); none: images only."""
    passage: Annotated[int, Field(ge=40)] | None = None
    """Reports longer than this many characters are split into passages of at most that length, each starting at a sentence; a step draws
    one. None: a report is read from its beginning and truncated to the text tower's length, as in the paper."""
    sentences: str = "weak_sentences.yaml"
    """The recipe of sentences for weak pairs."""
    variants: Positive = 64
    """Weak pairs: number of texts for each distinct set of findings; each step draws one of them."""
    context: tuple[str, ...] = ()
    """Weak pairs: sentences that are true of every image of this source; one of them opens a third of the texts."""
    unpaired_share: Share = 0.0
    """Share of patients whose reports are ignored, so that their images train unpaired."""
    repeat: Positive = 1
    """Passes over this source per epoch."""


class MimicSource(Section):
    """MIMIC-CXR 2.0.0 and MIMIC-CXR-JPG 2.0.0, as published: images with reports, frontal views."""

    kind: Literal["mimic_cxr"]
    name: str = "mimic_cxr"
    """Name of this source in tables and counts."""
    root: str
    """The folder of MIMIC-CXR: its reports, and its DICOM images where `jpg_root` is not set."""
    jpg_root: str | None = None
    """The folder of MIMIC-CXR-JPG: JPEG images and the tables. None: DICOM images, and the tables, in `root`."""
    labels: Literal["chexpert", "negbio", "none"] = "chexpert"
    """The labeller whose findings become columns, if its table exists; -1 (uncertain) and blank are unknown."""
    repeat: Positive = 1
    """Passes over this source per epoch."""


class PadchestSource(Section):
    """PadChest, as published: frontal images without reports, which are Spanish and stemmed."""

    kind: Literal["padchest"]
    name: str = "padchest"
    """Name of this source in tables and counts."""
    root: str
    """The folder with the label table, and the folders 0 to 54 or 0.zip to 54.zip."""
    exclude_eval_patients: bool = True
    """Leave out all images of patients with an image labelled by a physician; those images are PadChest's evaluation set."""
    pediatric: bool = True
    """Keep images that the table marks as pediatric."""
    repeat: Positive = 1
    """Passes over this source per epoch."""


class OpeniSource(Section):
    """Indiana University's radiographs (Open-i), as published: images with reports."""

    kind: Literal["openi"]
    name: str = "openi"
    """Name of this source in tables and counts."""
    root: str
    """The folder with ecgen-radiology/ (the reports) and, in any subfolder, the images as PNG or DICOM."""
    views: Literal["first", "all"] = "first"
    """first: the first image that a report lists, the frontal one of a pair; all: every image that it lists."""
    repeat: Positive = 1
    """Passes over this source per epoch."""


Source = Annotated[TableSource | MimicSource | PadchestSource | OpeniSource | LabelledSource, Field(discriminator="kind")]


class StoreRecipe(Recipe):
    """How images are stored: size and resizing."""

    store_size: Positive = 256
    """Side of the square images in pixels."""
    resize: Literal["squash", "pad", "crop"] = "squash"


class SourcesRecipe(StoreRecipe):
    """The keys of a recipe that preparing images needs: sources, and how images are stored."""

    sources: tuple[Source, ...] = Field(min_length=1)
