"""Published data sets with labels, for fine-tuning and evaluation: one class each; and the names of their findings.

The readers in engine/data/sources document each published layout.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.recipe.section import Section, Share

CHEXPERT_FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The 14 findings of CheXpert (arXiv 1901.07031), in the order of its training table."""

NIH_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Pleural Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The 14 findings of ChestX-ray14 (arXiv 1705.02315), with "Effusion" and "Pleural_Thickening" spelled as in prompts."""

NIH_SPELLED = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening", "Infiltrate": "Infiltration"}
"""NIH's spelling -> the spelling of prompts; "Infiltrate" is used in the table of boxes only."""

PADCHEST_SEEN = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Fracture",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
)
"""The eight findings of PadChest that occur in the pretraining reports (MMCLIP, Table I)."""


SplitName = Literal["train", "valid", "test", "all"]
Lists = dict[Literal["train", "valid", "test"], str]
PadchestProjection = Literal["PA", "L", "AP", "AP_horizontal", "COSTAL", "EXCLUDE", "UNK"]


class PublishedSource(Section):
    """Keys of every published data set with labels."""

    name: str | None = None
    """Name of the source in tables and counts; None: its kind."""
    root: str
    """The data set's folder. Its tables must exist; rows with a missing image are counted and left out."""
    rename: dict[str, str | None] = {}
    """Finding as the source spells it -> finding as prompts spell it; None drops it."""
    overlap: Literal["refuse", "leave_out"] = "refuse"
    """Patients with images in several splits: raise an error, or leave their images out of training and validation."""


class ValidationDraw(Section):
    """Validation images (for thresholds, the best step), drawn by patient from the training images."""

    valid_share: Share = 0.1
    """Share of the training patients that become the split `valid`, by a hash of patient and seed. 0: no such split."""
    seed: int = 0


class Uncertain(Section):
    """How CheXpert's -1 (uncertain) is read for each finding; for findings in neither list it is unknown."""

    ones: tuple[str, ...] = ("Atelectasis", "Edema", "Pleural Effusion")
    """Findings whose -1 means present."""
    zeros: tuple[str, ...] = ("Cardiomegaly", "Consolidation")
    """Findings whose -1 means absent."""

    @model_validator(mode="after")
    def _each_finding_once(self) -> Uncertain:
        if strange := sorted({*self.ones, *self.zeros} - {*CHEXPERT_FINDINGS}):
            raise ValueError(f"{', '.join(strange)}: not among the 14 findings of CheXpert: {', '.join(CHEXPERT_FINDINGS)}")
        if both := sorted({*self.ones} & {*self.zeros}):
            raise ValueError(f"{', '.join(both)}: -1 cannot be both present and absent")
        return self


class ChexpertSource(PublishedSource):
    """CheXpert, as published: `CheXpert-v1.0[-small]/` with train.csv, valid.csv and, for the test, groundtruth.csv."""

    kind: Literal["chexpert"]
    part: SplitName = "test"
    """The published splits: 223,414 training images, 234 validation images, 500 test studies. all: every split whose table exists."""
    uncertain: Uncertain = Uncertain()
    """How -1 is read, per finding; training labels only."""
    blank: Literal["unknown", "absent"] = "unknown"
    """A blank cell of the training table: unknown (not mentioned) unless "No Finding" decides; or absent, as in other publications."""
    frontal_only: bool = True
    """Leave lateral views out."""
    first_view: bool = False
    """Keep only the first frontal view of a study, as CheXzero scored the test set."""


class Nih14Source(PublishedSource):
    """NIH ChestX-ray14, as published: `Data_Entry_2017[_v2020].csv`, test_list.txt, train_val_list.txt, `images*/images/*.png`."""

    kind: Literal["nih14"]
    labels: Literal["nih", "google2019"] = "nih"
    """nih: labels extracted from reports, 14 findings. google2019: four findings adjudicated by radiologists, for 4,376 images, with the
    splits valid (2,414) and test (1,962)."""
    split: Literal["official", "70_10_20"] = "official"
    """official: test_list.txt (25,596 images) and train_val_list.txt. 70_10_20: drawn by a hash of patient and seed."""
    part: SplitName = "test"
    lists: Lists = {}
    """Files that list the images of a split, one per line or in a column of a CSV, instead of the published lists."""
    drawn: ValidationDraw = ValidationDraw()
    """official: validation images from train_val_list.txt. 70_10_20: the seed."""


class RsnaSource(PublishedSource):
    """RSNA Pneumonia Detection, as published: `stage_2_train_labels.csv` and `stage_2_train_images/*.dcm`; a subset of NIH."""

    kind: Literal["rsna"]
    split: Literal["medklip", "70_15_15"]
    """Two splits are in use, with different results. medklip: the 5,337 images (1,218 positive) of MedKLIP's test.csv, which `lists.test`
    must name. 70_15_15: the files of `lists`, else drawn by a hash of patient and seed."""
    part: SplitName = "test"
    lists: Lists = {}
    """Files that list the images of a split, one per line or in a column of a CSV."""
    drawn: ValidationDraw = ValidationDraw()
    """medklip: validation images from those that are not in the list. 70_15_15: the seed."""
    nih_mapping: str | None = None
    """pneumonia-challenge-dataset-mappings_2018.json, which gives the NIH image of each image, so that images of an NIH patient stay in one
    split. None: the data set's patientId, which is unique per image."""
    headers: bool = False
    """Read sex, age and view from the DICOM headers of the split; the tables do not have them."""


class CovidxSource(PublishedSource):
    """COVIDx, as published: `train_COVIDx8B.txt`, `test_COVIDx8B.txt` and the folders `train/` and `test/`."""

    kind: Literal["covidx"]
    release: Literal["6", "8B", "9B"] = "8B"
    """Release of the two lists."""
    part: SplitName = "test"
    drawn: ValidationDraw = ValidationDraw()
    """Validation images from the training list."""


class PadchestEvaluationSource(PublishedSource):
    """PadChest's 39,053 physician-labelled images as a test set: the label table and the folders or zips of ImageDir."""

    kind: Literal["padchest_evaluation"]
    findings: Literal["seen_8", "unseen_10", "unseen_20", "unseen_173"] = "seen_8"
    """seen_8: findings that occur in pretraining reports. unseen_173: all others; unseen_10, unseen_20: the most frequent of them."""
    projections: Annotated[tuple[PadchestProjection, ...], Field(min_length=1)] = (
        "PA",
        "L",
        "AP",
        "AP_horizontal",
        "COSTAL",
        "EXCLUDE",
        "UNK",
    )
    """Projections to read; the published figures are for all."""


LabelledSource = ChexpertSource | Nih14Source | RsnaSource | CovidxSource | PadchestEvaluationSource
