"""The fine-tuning recipe: an image tower and labels -> a classifier."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from engine.recipe.pretraining import Augmentation, Optimizer
from engine.recipe.section import Positive, Recipe, Section, repeated_names
from engine.recipe.sources import Source

OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]


class HeadSection(Section):
    """Initialisation of the head."""

    init: Literal["probe", "zeros", "text"] = "probe"
    """probe: a linear probe on the same images, so that fine-tuning starts with a fitted head (Kumar et al., arXiv 2202.10054).
    zeros: every probability is 0.5. text: the zero-shot classifier of `prompts`; step 0 then scores as `mmclip score` does."""
    prompts: str = "chest14"
    """The prompt recipe of `init: text`, and of the zero-shot baseline (the 0 % point of the learning curve)."""


class ValidationSection(Section):
    """The validation split: patients used for early stopping and for choosing the regularisation, not for training or testing."""

    share: OpenShare = 0.15
    """Share of the patients that a source does not hold out. Ignored for a source whose split column names validation patients."""
    seed: int = 0
    """Seed of this draw, separate from the run's `seed`, so that runs with several seeds share validation patients."""
    scaled: bool = False
    """Also reduce these patients to the run's fraction. Off, as in published figures: a 1 % run uses all validation labels."""


class FinetuneOptimizer(Optimizer):
    """AdamW with a cosine schedule, usual for fine-tuning ViTs."""

    name: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(5e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.05, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    lr_warmup: Annotated[int, Field(ge=0)] = 20
    clip_norm: float | None = Field(1.0, gt=0)
    layer_decay: float = Field(0.75, gt=0, le=1)
    """Ratio of the learning rates of consecutive layers; the head has the full rate, the patch embedding the lowest."""


class LinearSection(Section):
    """The linear probe and the raw-pixel baseline: logistic regression to its optimum, one penalty for all findings."""

    strengths: tuple[Annotated[float, Field(gt=0)], ...] = Field((1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0), min_length=1)
    """Candidates for C, the inverse of the L2 penalty (as in scikit-learn); chosen by macro AUROC on the validation split."""


class BaselineSection(Section):
    """The raw-pixel baseline: logistic regression on small grey images, trained on the same images as the model."""

    side: Positive = 32
    """Side of its square input images in pixels."""


class FinetuneCheckpointSection(Section):
    """How many checkpoints to keep; one is written at every validation."""

    keep: Annotated[int, Field(ge=1)] = 2


class FinetuneRecipe(Recipe):
    """One fine-tuning run."""

    sources: tuple[Source, ...] = Field(min_length=1)
    """What a source holds out (its `split`) is the test split: used for neither training nor model selection."""
    model: str = "tiny"
    """A shipped model, a bundle folder or a Hugging Face id."""
    init: Literal["weights", "random"] = "weights"
    """random: the same image tower with random weights, a control for the effect of pretraining."""
    findings: tuple[str, ...] = ()
    """The findings to learn; empty: all labelled findings."""
    mode: Literal["full", "linear"] = "full"
    """full: train the image tower and the head. linear: the head only, on features that are computed once."""
    head: HeadSection = HeadSection()
    pos_weight: Literal["balanced", "none"] = "balanced"
    """balanced: images with and without a finding have equal total weight; 0.5 then means even odds at a prevalence of 1/2."""
    validation: ValidationSection = ValidationSection()
    epochs: Positive = 10
    least_steps: Positive = 150
    """Minimum number of steps, for small fractions."""
    looks: Positive = 10
    """Number of validations, evenly spaced over the run, after one before the first step."""
    patience: Annotated[int, Field(ge=1)] = 4
    """Stop after this many validations without a better macro AUROC. The best weights are kept."""
    batch: Positive = 32
    optimizer: FinetuneOptimizer = FinetuneOptimizer()
    augmentation: Augmentation = Augmentation()
    linear: LinearSection = LinearSection()
    baseline: BaselineSection = BaselineSection()
    checkpoint: FinetuneCheckpointSection = FinetuneCheckpointSection()
    store_size: Positive | None = None
    """Side in pixels of the stored images that augmentations start from; None: the model's input size, enough without cropping.
    Validation and test images are always prepared as in `mmclip score`."""
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = 0
    """Seed of the fraction of patients, new weights, image order and augmentation."""

    @field_validator("findings")
    @classmethod
    def _each_once(cls, findings: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := repeated_names(findings):
            raise ValueError("; ".join(f"{name} is the same name as {earlier}" for name, earlier in repeated))
        return findings
