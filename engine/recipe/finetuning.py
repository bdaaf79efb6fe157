"""The fine-tuning recipe: every number of one run that makes a classifier of an image tower and labels. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from engine.recipe.pretraining import Augmentation, Optimizer
from engine.recipe.section import Positive, Recipe, Section
from engine.recipe.sources import Source

OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]


class HeadSection(Section):
    """Where the head starts from."""

    init: Literal["probe", "zeros", "text"] = "probe"
    """probe: the linear probe on the same images, so that the tower starts from a head that fits it (Kumar et al., arXiv 2202.10054).
    zeros: every probability is 0.5. text: the zero-shot classifier of `prompts`, so that step 0 scores as `mmclip score` does."""
    prompts: str = "chest14"
    """The prompt recipe of `init: text`, and of the zero-shot figures that stand beside the fine-tuned ones (the 0 % point)."""


class ValidationSection(Section):
    """The part that decides when to stop and how strongly to regularise: patients who are neither trained on nor tested on."""

    share: OpenShare = 0.15
    """Share of the patients that a source does not hold out. A source whose own split names validation patients keeps those instead."""
    seed: int = 0
    """Decides which patients, apart from the run's `seed`: runs of several seeds then choose on the same patients."""
    scaled: bool = False
    """Take the run's fraction of these patients too. Off, as in published figures: a 1 % run then chooses on all validation labels."""


class FinetuneOptimizer(Optimizer):
    """AdamW with a cosine, as the field fine-tunes ViTs."""

    name: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(5e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.05, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    lr_warmup: Annotated[int, Field(ge=0)] = 20
    clip_norm: float | None = Field(1.0, gt=0)
    layer_decay: float = Field(0.75, gt=0, le=1)
    """Learning rate of a layer as a share of that of the layer above it; the head has the full rate, the patch embedding the lowest."""


class LinearSection(Section):
    """The linear probe and the raw-pixel baseline: logistic regression to its optimum, one strength for all findings."""

    strengths: tuple[Annotated[float, Field(gt=0)], ...] = Field((1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0), min_length=1)
    """Candidates for C, the inverse of the L2 penalty (as in scikit-learn); the best macro AUROC on the validation part wins."""


class BaselineSection(Section):
    """The plainest competitor: logistic regression on small grey pictures, trained on the same images as the model."""

    side: Positive = 32
    """Pixels of the side of the square pictures that it sees."""


class FinetuneCheckpoints(Section):
    """How many checkpoints to keep; one is written at every look at the validation part."""

    keep: Annotated[int, Field(ge=1)] = 2


class FinetuneRecipe(Recipe):
    """One fine-tuning run: an image tower, labelled images, a head."""

    sources: tuple[Source, ...] = Field(min_length=1)
    """What a source holds out (its `split`) is the test part: never trained on, never chosen by."""
    model: str = "tiny"
    """A shipped model, a bundle folder or a Hugging Face id."""
    init: Literal["weights", "random"] = "weights"
    """random: the same image tower with random weights, for a control of what pretraining is worth."""
    findings: tuple[str, ...] = ()
    """The findings to learn; none: all that the sources label."""
    mode: Literal["full", "linear"] = "full"
    """full: the image tower learns too. linear: the head alone, on features that are computed once and kept."""
    head: HeadSection = HeadSection()
    pos_weight: Literal["balanced", "none"] = "balanced"
    """balanced: images with and without a finding weigh the same in total; a score of 0.5 then stands for even odds at even prevalence."""
    validation: ValidationSection = ValidationSection()
    epochs: Positive = 10
    least_steps: Positive = 150
    """Steps of a run whose epochs are few and short, as those of small fractions are."""
    looks: Positive = 10
    """How often the validation part is looked at, evenly over the run, after a first look before any step."""
    patience: Annotated[int, Field(ge=1)] = 4
    """Stop after so many looks without a better macro AUROC. The best look's weights are what is kept."""
    batch: Positive = 32
    optimizer: FinetuneOptimizer = FinetuneOptimizer()
    augmentation: Augmentation = Augmentation()
    linear: LinearSection = LinearSection()
    baseline: BaselineSection = BaselineSection()
    checkpoint: FinetuneCheckpoints = FinetuneCheckpoints()
    store_size: Positive | None = None
    """Side in pixels of the stored pictures that random views are drawn from; None: the model's own, enough where nothing is cropped.
    Validation and test pictures are always as `mmclip score` sees them."""
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = 0
    """Of the fraction of patients, the new weights, the order of images and their views."""

    @field_validator("findings")
    @classmethod
    def _each_once(cls, findings: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(findings)) < len(findings):
            raise ValueError("a finding is named twice")
        return findings
