"""The pretraining recipe: all hyperparameters and switches of a pretraining run.

Defaults are those of MMCLIP (arXiv 2407.19546) where it gives them; the first value of each `Literal` is the default.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from pydantic import Field, model_validator

from engine.recipe.section import Positive, Recipe, Section, Share
from engine.recipe.sources import CHEXPERT_FINDINGS, Source

Objective = Literal["align", "mim", "mlm"]
MaskStrategy = Literal["attmim", "none", "random", "report", "prompt", "self"]


class TowerSection(Section):
    """The size of one transformer tower."""

    width: Positive
    layers: Positive
    heads: Positive

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TowerSection:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class ImageTowerSection(TowerSection):
    """CLIP's ViT (eq 1): ViT-B/16 at 224 pixels by default."""

    width: Positive = 768
    layers: Positive = 12
    heads: Positive = 12
    size: Positive = 224
    patch: Positive = 16

    @model_validator(mode="after")
    def _patches_fill_image(self) -> ImageTowerSection:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not a multiple of patch {self.patch}")
        return self


class TextTowerSection(TowerSection):
    """CLIP's causal text transformer (eqs 2, 3)."""

    width: Positive = 512
    layers: Positive = 12
    heads: Positive = 8
    context: Positive = 77


class ImageDecoderSection(TowerSection):
    """The decoder that predicts hidden patches (eq 12)."""

    width: Positive = 512
    layers: Positive = 8
    heads: Positive = 16
    norm_pix: bool = True
    """Predict patches normalised by their own mean and deviation (MAE's norm_pix_loss)."""
    input: Literal["pre_proj", "proj"] = "pre_proj"
    """Encoder outputs before or after CLIP's visual projection."""


class TextDecoderSection(Section):
    """The decoder that predicts the next token from text and image (eq 13): self-attention, cross-attention, MLP (CoCa)."""

    layers: Positive = 3
    heads: Positive = 8


class ModelSection(Section):
    """The network. `init` names CLIP weights: a bundle, a Hugging Face id, or a source of `mmclip models import`. They keep their tower
    sizes, with position embeddings interpolated to `image.size` and `text.context`. None: random towers of these sizes."""

    init: str | None = None
    image: ImageTowerSection = ImageTowerSection()
    text: TextTowerSection = TextTowerSection()
    projection: Positive = 512
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    image_decoder: ImageDecoderSection = ImageDecoderSection()
    text_decoder: TextDecoderSection = TextDecoderSection()


class AttMIM(Section):
    """Attention-guided masked image modelling (eqs 4-9, 12)."""

    strategy: MaskStrategy = "attmim"
    top: Share = 0.7
    """Share of patches that each attention map proposes: M(A, 0.7)."""
    ratio: Share = 0.75
    """Share of patches hidden (eq 8)."""
    ratio_of: Literal["image", "union"] = "image"
    score: Literal["l2", "mean", "cos_img", "logsumexp", "column"] = "l2"
    """How the N x C map A is reduced to one number per patch; eqs 4-6 leave it open."""
    normalize: bool = False
    """L2-normalise before the attention softmax. Off by default: with it the attention is nearly uniform."""
    mask_level: Literal["feature", "input"] = "feature"
    """Hide encoder outputs (eq 9, literal) or encode the visible patches alone in a second pass."""

    @model_validator(mode="after")
    def _visible_patches_form_a_rectangle(self) -> AttMIM:
        if self.mask_level == "input" and self.ratio_of == "union":
            raise ValueError("mask_level: input needs ratio_of: image, since all images must have the same number of visible patches")
        return self


class EntMLM(Section):
    """Entity-driven masked language modelling (eqs 10, 11, 13)."""

    strategy: Literal["entity", "none", "full", "random"] = "entity"
    """entity: hide whole entities; random: hide that share of tokens; full: hide nothing (plain causal); none: no text decoder loss."""
    ratio: Share = 0.2
    unit: Literal["entity", "token"] = "entity"
    mode: Literal["decoder_attention", "input"] = "decoder_attention"
    """Hidden positions are removed from the keys of the decoder's self-attention, or their input embeddings become a mask token."""
    targets: Literal["all", "entities"] = "all"


class Prompt(Section):
    """Disease prompts for unpaired images (A_p, eq 5)."""

    findings: tuple[str, ...] = CHEXPERT_FINDINGS
    mode: Literal["joined", "separate"] = "joined"


class Weights(Section):
    """Weights of the losses (eq 16): all 1 in the paper."""

    align: float = Field(1.0, ge=0)
    mim: float = Field(1.0, ge=0)
    mlm: float = Field(1.0, ge=0)


class ObjectiveSection(Section):
    """The sum of losses (eqs 14-16)."""

    weights: Weights = Weights()
    half: bool = False
    """Halve the symmetric InfoNCE, as CLIP does; the paper prints no factor 1/2."""
    max_logit_scale: float = Field(100.0, gt=0)
    positives: Literal["pair", "group"] = "pair"
    """pair: only an image's own report is a positive (eqs 14, 15); group: so is every report of the batch with the same findings. Weak
    pairs repeat sentences, and a repeated sentence is no negative."""


class Warmup(Section):
    """The first iterations, with masked objectives only."""

    iterations: Annotated[int, Field(ge=0)] = 15_000
    objectives: tuple[Objective, ...] = ("mim", "mlm")
    mask: Literal["attmim", "random"] = "attmim"


class BatchSection(Section):
    """Images per step, with and without a report."""

    paired: Annotated[int, Field(ge=0)] = 64
    unpaired: Annotated[int, Field(ge=0)] = 64
    one_source: bool = False
    """Take the pairs of a step from one source, so that InfoNCE cannot separate them by the appearance of a source's images."""

    @model_validator(mode="after")
    def _not_empty(self) -> BatchSection:
        if self.paired + self.unpaired == 0:
            raise ValueError("paired and unpaired are both 0: nothing to train on")
        return self


class Optimizer(Section):
    """SGD as in the paper, or AdamW with a cosine schedule."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(5e-5, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    lr_warmup: Annotated[int, Field(ge=0)] = 0
    """Steps of linear learning-rate warm-up."""
    clip_norm: float | None = Field(None, gt=0)


class Augmentation(Section):
    """Random augmentation, on the device. Flipping is off: reports mention left and right."""

    scale: tuple[float, float] = (1.0, 1.0)
    """Minimum and maximum side of the crop, relative to the image's side."""
    aspect: float = Field(1.0, ge=1)
    """Maximum aspect ratio of the crop; its inverse is the minimum."""
    rotate: float = Field(0.0, ge=0, le=45)
    """Maximum rotation in degrees, in both directions."""
    contrast: float = Field(0.0, ge=0, lt=1)
    """Maximum relative change of contrast, brightness and gamma."""
    flip: bool = False


class TokenizerSection(Section):
    """`vocab`: train a byte-level BPE of this size on the training reports; None: use the tokenizer of `model.init`."""

    vocab: Annotated[int, Field(ge=300)] | None = None


class CheckpointSection(Section):
    """When to save, and how many to keep."""

    every: Positive = 1000
    keep: Annotated[int, Field(ge=1)] = 2


class Compute(Section):
    """How a step is computed: memory and speed, on one device or several. Results are the same except for rounding, so a run can be
    resumed with other values in this section."""

    micro_batch: Positive | None = None
    """Images per forward and backward pass of a process; None: all of its images. Smaller micro-batches save memory; with `align` they cost
    one more forward pass, since the features of the whole batch are computed first so that all pairs enter the loss."""
    checkpoint_activations: bool = False
    """Activation checkpointing: store only the input of each transformer block and recompute the rest in the backward pass."""
    compile: Literal["auto", "always", "never"] = "auto"
    """torch.compile the transformer blocks and the masks. auto: on a GPU only; on a CPU compiling takes longer than it saves."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: ddp replicates the model in every process, fsdp shards weights, gradients and optimizer state."""
    matmul: Literal["high", "highest"] = "high"
    """float32 matrix products on a GPU: high uses TF32, highest full float32."""
    ahead: Annotated[int, Field(ge=0)] = 2
    """Batches to prefetch in a separate thread."""
    timeout: Positive = 10
    """Minutes that a process waits in a step for the others before it stops."""


class Logging(Section):
    """Diagnostics of a run. They do not change what is learned, so a run can be resumed with other values in this section."""

    vitals_every: Positive = 50
    """Steps between records of throughput, utilisation, memory and mask statistics (on 32 paired and 32 unpaired images)."""
    pictures_every: Annotated[int, Field(ge=0)] = 1000
    """Steps between figures of image, attention maps, mask and reconstruction, as the paper's Figure 3; 0: none. They show patients' images
    and are written to out/images (mode 0700)."""
    pictures: Positive = 4
    """Images with a report, and as many without, in each figure; a fixed sample."""
    tensorboard: bool = False
    """Write curves to out/tensorboard; needs the extra `mmclip[tensorboard]`."""
    peak_tflops: float | None = Field(None, gt=0)
    """Peak TFLOP/s of one device, for utilisation (MFU). None: on a GPU from its data sheet, or measured if it is unknown; on a CPU
    utilisation is not reported."""


class StepPlan(TypedDict):
    """Arguments of `MMCLIP.losses` for a step: its objectives, and the mask strategy that overrides `attmim.strategy`."""

    objectives: tuple[Objective, ...]
    mask: MaskStrategy | None


class PretrainRecipe(Recipe):
    """One pretraining run."""

    sources: tuple[Source, ...] = Field(min_length=1)
    model: ModelSection = ModelSection()
    attmim: AttMIM = AttMIM()
    entmlm: EntMLM = EntMLM()
    prompt: Prompt = Prompt()
    objective: ObjectiveSection = ObjectiveSection()
    warmup: Warmup = Warmup()
    batch: BatchSection = BatchSection()
    optimizer: Optimizer = Optimizer()
    augmentation: Augmentation = Augmentation()
    tokenizer: TokenizerSection = TokenizerSection()
    checkpoint: CheckpointSection = CheckpointSection()
    compute: Compute = Compute()
    logging: Logging = Logging()
    entities: str = "chest_ner"
    """Entity recogniser: the shipped pipeline `chest_ner`, or an installed spaCy model by name or path."""
    steps: Positive
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    store_size: Positive = 256
    """Side in pixels of the square images in the pixel store."""
    resize: Literal["squash", "pad", "crop"] = "squash"

    def doing(self, step: int) -> StepPlan:
        """Objectives and masks of a step (0-based). In warm-up, masks are random if `warmup.mask` is, else those of `attmim.strategy`."""
        if step >= self.warmup.iterations:
            return {"objectives": ("align", "mim", "mlm"), "mask": None}
        at_random = self.warmup.mask == "random" and self.attmim.strategy != "none"
        return {"objectives": self.warmup.objectives, "mask": "random" if at_random else None}

    @model_validator(mode="after")
    def _words_for_the_text_tower(self) -> PretrainRecipe:
        if self.model.init is None and self.tokenizer.vocab is None:
            raise ValueError("set tokenizer.vocab to train a tokenizer, or model.init to take the tokenizer of existing weights")
        return self
