"""The evaluation recipes: which studies judge which model by which figures, several of them as one table, and the published figures.

Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from engine.recipe.prompts import Phrases
from engine.recipe.section import Positive, Recipe, Section, Share
from engine.recipe.sources import Source

Subgroup = Literal["sex", "age", "view", "source"]


class Parts(Section):
    """Which images of the sources are judged by, which are chosen on, and which the baseline may learn from. No patient is in two parts."""

    test: str = "held_out"
    """held_out: images that their source holds out (a published test list, or the table's own split). all: every image.
    Another word: images whose source calls their split so."""
    validation: str | None = None
    """Images whose source calls their split so: thresholds and calibration are chosen on them. None: see `validation_share`."""
    validation_share: Share = 0.0
    """Share of the test patients who are set aside for choosing, by a hash of patient and seed, and are then not judged by."""
    seed: int = 0


class ThresholdSection(Section):
    """Where a study begins to be called positive. The paper's test_max_f1 always stands beside it under its own name."""

    source: Literal["fixed", "val_mcc", "val_youden", "val_f1"] = "fixed"
    """val_*: the best MCC, Youden index or F1 on the validation part; where a finding has no two classes there, `value`."""
    value: Share = 0.5


class CalibrationSection(Section):
    """How `--calibrate` fits its maps, on the validation part alone."""

    method: Literal["platt", "temperature"] = "platt"
    """platt: slope and shift. temperature: slope only, which leaves 0.5 where it is."""
    share: Share = 0.5
    """Where the recipe has no validation part: the share of the test patients that is set aside for it."""


class EvaluationRecipe(Recipe):
    """One row of an evaluation: studies, findings, a model, figures."""

    title: str
    """How the row is called in tables."""
    sources: tuple[Source, ...] = Field(min_length=1)
    parts: Parts = Parts()
    findings: tuple[str, ...] = ()
    """The findings that are judged, and averaged in the macro row; none: all that both the sources and the words know."""
    prompts: str = "chest14"
    """The prompt recipe: what the words say. Findings are matched by name, never by position."""
    template: Phrases | None = None
    """Words of findings that the prompt recipe lacks, with {finding} for their name."""
    models: tuple[str, ...] = Field(("tiny",), min_length=1)
    """Shipped models, bundle folders or Hugging Face ids; several are an ensemble. `random:NAME` is NAME with weights drawn at random."""
    ensemble: Literal["prob_mean", "weight_soup"] = "prob_mean"
    """prob_mean: the mean of the models' scores. weight_soup: one model with the mean of their weights (same architecture)."""
    classifiers: dict[str, str] = {}
    """Label (for instance "1 %") -> a fine-tuned classifier. Each is a row of its own, and `models` and words are not used."""
    level: Literal["study", "image"] = "study"
    aggregate: Literal["mean", "max"] = "mean"
    """A study's score over its images."""
    threshold: ThresholdSection = ThresholdSection()
    calibration: CalibrationSection = CalibrationSection()
    baseline: Literal["none", "raw_pixels"] = "none"
    """raw_pixels: a logistic regression on 32 x 32 grey pixels, fitted to the labels of the sources' training patients, as a row beside."""
    subgroups: tuple[Subgroup, ...] = ("sex", "age", "view", "source")
    """Columns whose groups have figures of their own, where the sources know them."""
    ages: tuple[Annotated[float, Field(gt=0)], ...] = (18, 40, 60, 80)
    """Years at which age bands begin."""
    fewest: Annotated[int, Field(ge=1)] = 5
    """A group with fewer positives or negatives than this has no figures, and says why."""
    phrasings: bool = True
    """Also judge every phrase by itself: how far figures hang on the choice of words."""
    resamples: Positive = 1000
    seed: int = 0
    published: str | None = None
    """The table of eval/published.yaml that stands beside this row."""

    @property
    def joint_name(self) -> str:
        """What several models are called together."""
        return f"{self.ensemble} of {len(self.models)} models"

    @property
    def contenders(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Whose figures are measured: each classifier by itself, under its label; else the models together, under a name of their own."""
        return tuple((label, (name,)) for label, name in self.classifiers.items()) or (("", self.models),)

    @field_validator("template")
    @classmethod
    def _names_the_finding(cls, template: Phrases | None) -> Phrases | None:
        for phrase in (*template.positive, *template.negative) if template else ():
            if phrase.count("{finding}") != 1:
                raise ValueError(f"{phrase!r} must hold {{finding}} once")
        return template

    @model_validator(mode="after")
    def _choices_need_studies(self) -> EvaluationRecipe:
        if self.threshold.source != "fixed" and self.parts.validation is None and not self.parts.validation_share:
            raise ValueError(f"{self.threshold.source} needs a validation part: set parts.validation or parts.validation_share")
        if list(self.ages) != sorted(set(self.ages)):
            raise ValueError("ages rise from one band to the next")
        return self


class EvaluationSet(Recipe):
    """Several evaluations as one table."""

    title: str
    rows: tuple[str, ...] = Field(min_length=1)
    """Evaluation recipes, by path or shipped name, in the table's order."""
    roots: dict[Literal["mimic_cxr", "padchest", "chexpert", "nih14", "rsna", "covidx", "padchest_evaluation"], str] = {}
    """Kind of source -> its folder, for all rows at once: takes the place of their `root`."""
    lists: dict[Literal["rsna"], str] = {}
    """Kind of source -> the file that names its test images (`lists.test`)."""


class PublishedRow(Section):
    """What someone published for one model, in percent; None: not published."""

    model: str
    row: str = ""
    """Which row of ours it stands beside, where an evaluation has several ("1 %"); "": all."""
    auc: Annotated[float, Field(gt=0, le=100)] | None = None
    f1: Annotated[float, Field(gt=0, le=100)] | None = None
    accuracy: Annotated[float, Field(gt=0, le=100)] | None = None
    source: str = ""
    """Where it is published, if elsewhere than the table."""


class PublishedTable(Section):
    """Published figures of one set of studies."""

    title: str
    source: str
    figures: tuple[PublishedRow, ...] = Field(min_length=1)


class PublishedFigures(Recipe):
    """Everything that was published and is worth standing beside, each with its source."""

    tables: dict[str, PublishedTable] = Field(min_length=1)
