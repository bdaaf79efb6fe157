"""Evaluation recipes (studies, model, metrics), sets of them as one table, and published figures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from engine.recipe.prompts import Phrases
from engine.recipe.section import Positive, Recipe, Section, Share
from engine.recipe.sources import Source

Subgroup = Literal["sex", "age", "view", "source"]


class SplitSection(Section):
    """Which images are for testing, for choosing thresholds, and for training the baseline. No patient is in two splits."""

    test: str = "held_out"
    """held_out: images that their source holds out (a published test list, or the table's split column). all: every image.
    Another word: images with this split name in their source."""
    validation: str | None = None
    """Split name of the validation images, on which thresholds and calibration are chosen. None: see `validation_share`."""
    validation_share: Share = 0.0
    """Share of the test patients used for validation instead, by a hash of patient and seed."""
    seed: int = 0


class ThresholdSection(Section):
    """How the decision threshold is chosen. The paper's test_max_f1 is always reported as well, under its own name."""

    source: Literal["fixed", "val_mcc", "val_youden", "val_f1"] = "fixed"
    """val_*: the best MCC, Youden index or F1 on the validation split; `value` if a finding has one class only there."""
    value: Share = 0.5


class CalibrationSection(Section):
    """How `--calibrate` fits calibration maps, on the validation split only."""

    method: Literal["platt", "temperature"] = "platt"
    """platt: slope and intercept. temperature: slope only, which maps 0.5 to 0.5."""
    share: Share = 0.5
    """If the recipe has no validation split: the share of the test patients used for it."""


class EvaluationRecipe(Recipe):
    """One row of an evaluation: studies, findings, a model, metrics."""

    title: str
    """Name of the row in tables."""
    sources: tuple[Source, ...] = Field(min_length=1)
    parts: SplitSection = SplitSection()
    findings: tuple[str, ...] = ()
    """The findings to evaluate and to average in the macro row; empty: all that both the sources and the prompts have."""
    prompts: str = "chest14"
    """The prompt recipe. Findings are matched by name, never by position."""
    template: Phrases | None = None
    """Phrases for findings that the prompt recipe lacks, with {finding} for their name."""
    models: tuple[str, ...] = Field(("tiny",), min_length=1)
    """Shipped models, bundle folders or Hugging Face ids; several are an ensemble. `random:NAME` is NAME with random weights."""
    ensemble: Literal["prob_mean", "weight_soup"] = "prob_mean"
    """prob_mean: the mean of the models' scores. weight_soup: one model with the mean of their weights (same architecture)."""
    classifiers: dict[str, str] = {}
    """Label (for instance "1 %") -> a fine-tuned classifier. Each is a separate row; `models` and `prompts` are not used."""
    level: Literal["study", "image"] = "study"
    aggregate: Literal["mean", "max"] = "mean"
    """How the scores of a study's images are combined."""
    threshold: ThresholdSection = ThresholdSection()
    calibration: CalibrationSection = CalibrationSection()
    baseline: Literal["none", "raw_pixels"] = "none"
    """raw_pixels: add a row for logistic regression on 32 x 32 grey pixels, fitted to the labels of the sources' training patients."""
    subgroups: tuple[Subgroup, ...] = ("sex", "age", "view", "source")
    """Columns for subgroup metrics, where the sources have them."""
    ages: tuple[Annotated[float, Field(gt=0)], ...] = (18, 40, 60, 80)
    """Lower limits of the age bands in years."""
    fewest: Annotated[int, Field(ge=1)] = 5
    """A subgroup with fewer positives or negatives gets no metrics, and the reason."""
    phrasings: bool = True
    """Also evaluate every phrase separately, for the sensitivity to the choice of words."""
    resamples: Positive = 1000
    seed: int = 0
    published: str | None = None
    """The table of eval/published.yaml to compare this row with."""

    @property
    def joint_name(self) -> str:
        """Name of the ensemble."""
        return f"{self.ensemble} of {len(self.models)} models"

    @property
    def contenders(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(label, models) of each contender: every classifier separately, else the models as an ensemble with an empty label."""
        return tuple((label, (name,)) for label, name in self.classifiers.items()) or (("", self.models),)

    @field_validator("template")
    @classmethod
    def _names_the_finding(cls, template: Phrases | None) -> Phrases | None:
        for phrase in (*template.positive, *template.negative) if template else ():
            if phrase.count("{finding}") != 1:
                raise ValueError(f"{phrase!r} must contain {{finding}} once")
        return template

    @model_validator(mode="after")
    def _choices_need_studies(self) -> EvaluationRecipe:
        if self.threshold.source != "fixed" and self.parts.validation is None and not self.parts.validation_share:
            raise ValueError(f"{self.threshold.source} needs a validation split: set parts.validation or parts.validation_share")
        if list(self.ages) != sorted(set(self.ages)):
            raise ValueError("ages must increase")
        return self


class EvaluationSet(Recipe):
    """Several evaluations as one table."""

    title: str
    rows: tuple[str, ...] = Field(min_length=1)
    """Evaluation recipes, by path or shipped name, in the table's order."""
    roots: dict[Literal["mimic_cxr", "padchest", "chexpert", "nih14", "rsna", "covidx", "padchest_evaluation"], str] = {}
    """Kind of source -> its folder, for all rows; replaces their `root`."""
    lists: dict[Literal["rsna"], str] = {}
    """Kind of source -> the file that lists its test images (`lists.test`)."""


class PublishedRow(Section):
    """Published metrics of one model, in percent; None: not published."""

    model: str
    row: str = ""
    """Row to compare it with, if an evaluation has several ("1 %"); "": all."""
    auc: Annotated[float, Field(gt=0, le=100)] | None = None
    f1: Annotated[float, Field(gt=0, le=100)] | None = None
    accuracy: Annotated[float, Field(gt=0, le=100)] | None = None
    source: str = ""
    """Where it is published, if not with the table."""


class PublishedTable(Section):
    """Published figures of one set of studies."""

    title: str
    source: str
    figures: tuple[PublishedRow, ...] = Field(min_length=1)


class PublishedFigures(Recipe):
    """Published figures for comparison, each with its source."""

    tables: dict[str, PublishedTable] = Field(min_length=1)
