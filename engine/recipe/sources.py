"""The sources of images that recipes name: one class for each kind of data set, with its switches.

Pretraining, fine-tuning and evaluation share them; those with published labels stand in labelled.py. What lies where in each
published layout is told by the readers in engine/data/sources.
Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engine.recipe.labelled_sources import CHEXPERT_FINDINGS, Labelled
from engine.recipe.section import Positive, Recipe, Section, Share

__all__ = [
    "CHEXPERT_FINDINGS", "Labelled", "MimicSource", "OpeniSource", "PadchestSource", "PatientSplit", "Source", "Sources", "Squares",
    "TableSource",
]  # fmt: skip


class PatientSplit(Section):
    """Split by patient: the share of patients trained on, drawn by a hash of the patient and the seed; the rest is held out."""

    train: Share = 1.0
    seed: int = 0


class TableSource(Section):
    """A CSV or Parquet table of images (see engine/data/sources/table.py)."""

    kind: Literal["table"] = "table"
    name: str | None = None
    """What this source is called in tables and counts; None: the table's file name."""
    file: str
    """The table: a column `file`, and optional study, patient, view, report, split and finding columns."""
    root: str | None = None
    """Folder that relative file names start from; None: the table's own folder."""
    columns: dict[Literal["file", "study", "patient", "view", "report", "split", "sex", "age"], str] = {}
    """Our name -> the table's name, where they differ (for instance `patient: patient_id`)."""
    labels: str | None = None
    """A column that lists findings joined by "|". None: one column per finding, named as one of the 14 findings or in `rename`,
    with 1 = present, 0 = absent; blank and -1 (uncertain) are unknown."""
    rename: dict[str, str | None] = {}
    """Finding as the table spells it -> finding as prompts spell it; None drops it."""
    implies: dict[str, dict[str, Literal[0, 1]]] = {}
    """Finding (as prompts spell it) that is present -> findings that are then present (1) or absent (0)."""
    exhaustive: tuple[str, ...] = ()
    """Findings that were looked for in every image with a label: absent where neither named nor implied. Others stay unknown."""
    where: dict[str, tuple[str, ...]] = {}
    """Column -> values kept; other rows are counted as left out."""
    split: PatientSplit = PatientSplit()
    reports: Literal["column", "weak", "none"] = "column"
    """column: the table's report column; weak: sentences made from labels (weak pairs); none: images only."""
    passage: Annotated[int, Field(ge=40)] | None = None
    """Reports longer than this many characters are read in passages of at most that length, each from the beginning of a sentence;
    a step draws one. None: a report is read from its beginning, and what the text tower has no place for is lost, as in the paper."""
    sentences: str = "weak_sentences.yaml"
    """The recipe of sentences for weak pairs."""
    variants: Positive = 64
    """Weak pairs: how many wordings are made for each distinct set of findings; each step draws one of them."""
    context: tuple[str, ...] = ()
    """Weak pairs: sentences that are true of every image of this source; one of them opens a third of the wordings."""
    unpaired_share: Share = 0.0
    """Share of patients whose reports are set aside, so that their images train unpaired, on purpose."""
    repeat: Positive = 1
    """How many times an epoch passes over this source."""


class MimicSource(Section):
    """MIMIC-CXR 2.0.0 and MIMIC-CXR-JPG 2.0.0, as published: images with reports, frontal views."""

    kind: Literal["mimic_cxr"]
    name: str = "mimic_cxr"
    """What this source is called in tables and counts."""
    root: str
    """The folder of MIMIC-CXR: its reports, and its DICOM images where `jpg_root` is not set."""
    jpg_root: str | None = None
    """The folder of MIMIC-CXR-JPG: JPEG images and the tables. None: DICOM images, and the tables, in `root`."""
    labels: Literal["chexpert", "negbio", "none"] = "chexpert"
    """The labeller whose findings become columns, where its table is there; -1 (uncertain) and blank are unknown."""
    repeat: Positive = 1
    """How many times an epoch passes over this source."""


class PadchestSource(Section):
    """PadChest, as published: frontal images without reports, which are Spanish and stemmed."""

    kind: Literal["padchest"]
    name: str = "padchest"
    """What this source is called in tables and counts."""
    root: str
    """The folder with the label table, and the folders 0 to 54 or 0.zip to 54.zip."""
    exclude_eval_patients: bool = True
    """Leave out every image of a patient who has one labelled by a physician: on those images PadChest is evaluated."""
    pediatric: bool = True
    """Keep the images that the table marks as a child's."""
    repeat: Positive = 1
    """How many times an epoch passes over this source."""


class OpeniSource(Section):
    """Indiana University's radiographs (Open-i), as published: images with reports."""

    kind: Literal["openi"]
    name: str = "openi"
    """What this source is called in tables and counts."""
    root: str
    """The folder with ecgen-radiology/ (the reports) and, in any folder below it, the pictures as PNG or DICOM."""
    views: Literal["first", "all"] = "first"
    """first: of each report the picture it names first, which is the frontal one of a pair; all: every picture it names."""
    repeat: Positive = 1
    """How many times an epoch passes over this source."""


Source = Annotated[TableSource | MimicSource | PadchestSource | OpeniSource | Labelled, Field(discriminator="kind")]


class Squares(Recipe):
    """Which squares pictures become in the pixel store."""

    store_size: Positive = 256
    """Side in pixels."""
    resize: Literal["squash", "pad", "crop"] = "squash"


class Sources(Squares):
    """What preparing images needs of a recipe: where they are, and which squares they become."""

    sources: tuple[Source, ...] = Field(min_length=1)
