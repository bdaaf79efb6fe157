"""The published data sets with labels: what fine-tuning learns from and evaluation is judged by, one class each, with its switches.

What lies where in each published layout is told by the readers in engine/data/sources. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.recipe.section import Section, Share

# Findings by the names that prompts, tables and published labels share.

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
"""The 14 of CheXpert (arXiv 1901.07031), in the order of its training table."""

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
"""The 14 of ChestX-ray14 (arXiv 1705.02315); its "Effusion" and "Pleural_Thickening" are spelled as prompts spell them."""

NIH_SPELLED = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening", "Infiltrate": "Infiltration"}
"""Findings that NIH's tables spell otherwise than prompts do; "Infiltrate" stands in the table of boxes only."""

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
"""The eight findings of PadChest that the pretraining reports speak of too (MMCLIP, Table I)."""


Part = Literal["train", "valid", "test", "all"]
Lists = dict[Literal["train", "valid", "test"], str]
PadchestProjection = Literal["PA", "L", "AP", "AP_horizontal", "COSTAL", "EXCLUDE", "UNK"]


class Published(Section):
    """What every published data set with labels is told."""

    name: str | None = None
    """What the source is called in tables and counts; None: its kind."""
    root: str
    """The data set's folder. Its tables must be there; rows whose picture is not are counted and left out."""
    rename: dict[str, str | None] = {}
    """Finding as this source yields it -> finding as prompts spell it; None drops it."""
    overlap: Literal["refuse", "leave_out"] = "refuse"
    """Patients whose images fall into several parts: refuse to read, or leave their images out of training and validation."""


class Split(Section):
    """Images that are set apart for choosing (thresholds, the best step), drawn by patient out of the training images."""

    valid_share: Share = 0.1
    """Share of the training patients whose images become part `valid`, by a hash of patient and seed. 0: no such part."""
    seed: int = 0


class Uncertain(Section):
    """What CheXpert's -1 (uncertain) means for each finding; findings that neither names stay unknown."""

    ones: tuple[str, ...] = ("Atelectasis", "Edema", "Pleural Effusion")
    """Findings whose -1 counts as present."""
    zeros: tuple[str, ...] = ("Cardiomegaly", "Consolidation")
    """Findings whose -1 counts as absent."""

    @model_validator(mode="after")
    def _each_finding_once(self) -> Uncertain:
        if strange := sorted({*self.ones, *self.zeros} - {*CHEXPERT_FINDINGS}):
            raise ValueError(f"{', '.join(strange)}: not among the 14 findings of CheXpert: {', '.join(CHEXPERT_FINDINGS)}")
        if both := sorted({*self.ones} & {*self.zeros}):
            raise ValueError(f"{', '.join(both)}: -1 cannot be both present and absent")
        return self


class ChexpertSource(Published):
    """CheXpert, as published: `CheXpert-v1.0[-small]/` with train.csv, valid.csv and, for the test, groundtruth.csv."""

    kind: Literal["chexpert"]
    part: Part = "test"
    """The published parts: 223,414 training images, 234 for validation, 500 test studies. all: those whose table is there."""
    uncertain: Uncertain = Uncertain()
    """What -1 means, finding by finding; training labels only."""
    blank: Literal["unknown", "absent"] = "unknown"
    """A blank cell of the training table: unknown (it was not mentioned), save where "No Finding" decides; or absent, as peers read it."""
    frontal_only: bool = True
    """Leave lateral views out."""
    first_view: bool = False
    """Keep only the first frontal view of a study: one image a study, as CheXzero scored the test set."""


class Nih14Source(Published):
    """NIH ChestX-ray14, as published: `Data_Entry_2017[_v2020].csv`, test_list.txt, train_val_list.txt, `images*/images/*.png`."""

    kind: Literal["nih14"]
    labels: Literal["nih", "google2019"] = "nih"
    """nih: labels read out of reports by a program, 14 findings. google2019: four findings agreed on by radiologists, for 4,376 images;
    its own two parts, valid (2,414) and test (1,962)."""
    split: Literal["official", "70_10_20"] = "official"
    """official: test_list.txt (25,596 images) is the test, train_val_list.txt the rest. 70_10_20: drawn by a hash of patient and seed."""
    part: Part = "test"
    lists: Lists = {}
    """Files that name the images of a part, one a line or in a column of a CSV: instead of the published lists."""
    drawn: Split = Split()
    """official: validation images out of train_val_list.txt. 70_10_20: the seed."""


class RsnaSource(Published):
    """RSNA Pneumonia Detection, as published: `stage_2_train_labels.csv` and `stage_2_train_images/*.dcm`; a subset of NIH."""

    kind: Literal["rsna"]
    split: Literal["medklip", "70_15_15"]
    """Two splits are in use and give other figures. medklip: the 5,337 images (1,218 positive) of MedKLIP's test.csv, which `lists.test`
    must name. 70_15_15: the files of `lists`, or drawn by a hash of patient and seed."""
    part: Part = "test"
    lists: Lists = {}
    """Files that name the images of a part, one a line or in a column of a CSV."""
    drawn: Split = Split()
    """medklip: validation images out of those that the list does not name. 70_15_15: the seed."""
    nih_mapping: str | None = None
    """pneumonia-challenge-dataset-mappings_2018.json: which NIH image each one is, so that images of one NIH patient stay together.
    None: the data set's own patientId, which stands for one image."""
    headers: bool = False
    """Read sex, age and view from the headers of the DICOM files of the part, which the tables do not give."""


class CovidxSource(Published):
    """COVIDx, as published: `train_COVIDx8B.txt`, `test_COVIDx8B.txt` and the folders `train/` and `test/`."""

    kind: Literal["covidx"]
    release: Literal["6", "8B", "9B"] = "8B"
    """Which pair of lists."""
    part: Part = "test"
    drawn: Split = Split()
    """Validation images out of the training list."""


class PadchestEvaluationSource(Published):
    """PadChest's 39,053 physician-labelled images as a test: the label table and the folders or zips of ImageDir."""

    kind: Literal["padchest_evaluation"]
    findings: Literal["seen_8", "unseen_10", "unseen_20", "unseen_173"] = "seen_8"
    """seen_8: findings that pretraining reports speak of too. unseen_173: all others; unseen_10, unseen_20: the most frequent."""
    projections: Annotated[tuple[PadchestProjection, ...], Field(min_length=1)] = (
        "PA",
        "L",
        "AP",
        "AP_horizontal",
        "COSTAL",
        "EXCLUDE",
        "UNK",
    )
    """Projections that are read; the published figures are those of all."""


Labelled = ChexpertSource | Nih14Source | RsnaSource | CovidxSource | PadchestEvaluationSource
