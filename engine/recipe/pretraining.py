"""The pretraining recipe: every number and every switch of one pretraining run, typed, with the paper's values as defaults.

Defaults follow MMCLIP (arXiv 2407.19546) where it speaks; the first value of each `Literal` is the default reading.
Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from pydantic import Field, model_validator

from engine.recipe.section import Positive, Recipe, Section, Share
from engine.recipe.sources import CHEXPERT_FINDINGS, Source

Objective = Literal["align", "mim", "mlm"]
MaskStrategy = Literal["attmim", "none", "random", "report", "prompt", "self"]


class Tower(Section):
    """The size of one transformer tower."""

    width: Positive
    layers: Positive
    heads: Positive

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Tower:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self


class ImageTower(Tower):
    """CLIP's ViT (eq 1): ViT-B/16 at 224 pixels unless the recipe says otherwise."""

    width: Positive = 768
    layers: Positive = 12
    heads: Positive = 12
    size: Positive = 224
    patch: Positive = 16

    @model_validator(mode="after")
    def _patches_fill_image(self) -> ImageTower:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is no multiple of patch {self.patch}")
        return self


class TextTower(Tower):
    """CLIP's causal text transformer (eqs 2, 3)."""

    width: Positive = 512
    layers: Positive = 12
    heads: Positive = 8
    context: Positive = 77


class ImageDecoder(Tower):
    """The decoder that predicts hidden patches (eq 12)."""

    width: Positive = 512
    layers: Positive = 8
    heads: Positive = 16
    norm_pix: bool = True
    """Predict patches normalised by their own mean and deviation (MAE's norm_pix_loss)."""
    input: Literal["pre_proj", "proj"] = "pre_proj"
    """Encoder outputs before or after CLIP's visual projection."""


class TextDecoder(Section):
    """The decoder that predicts the next token from text and image (eq 13): self-attention, cross-attention, MLP (CoCa)."""

    layers: Positive = 3
    heads: Positive = 8


class ModelSection(Section):
    """The network. `init` names CLIP weights: a bundle, a Hugging Face id, or a file or folder that `mmclip models import` takes. They keep
    their own towers, with positions fitted to `image.size` and `text.context`. None draws towers of these sizes at random."""

    init: str | None = None
    image: ImageTower = ImageTower()
    text: TextTower = TextTower()
    projection: Positive = 512
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    image_decoder: ImageDecoder = ImageDecoder()
    text_decoder: TextDecoder = TextDecoder()


class AttMIM(Section):
    """Attention-guided masked image modelling (eqs 4-9, 12)."""

    strategy: MaskStrategy = "attmim"
    top: Share = 0.7
    """Share of patches each attention map proposes: M(A, 0.7)."""
    ratio: Share = 0.75
    """Share of patches hidden (eq 8)."""
    ratio_of: Literal["image", "union"] = "image"
    score: Literal["l2", "mean", "cos_img", "logsumexp", "column"] = "l2"
    """One number per patch from the N x C map A; eqs 4-6 leave it open."""
    normalize: bool = False
    """L2-normalise before the attention softmax. Off: with it the logits are nearly uniform."""
    mask_level: Literal["feature", "input"] = "feature"
    """Hide encoder outputs (eq 9, literal) or encode the visible patches alone in a second pass."""

    @model_validator(mode="after")
    def _visible_patches_form_a_rectangle(self) -> AttMIM:
        if self.mask_level == "input" and self.ratio_of == "union":
            raise ValueError("mask_level: input needs ratio_of: image, since every image must leave equally many patches visible")
        return self


class EntMLM(Section):
    """Entity-driven masked language modelling (eqs 10, 11, 13)."""

    strategy: Literal["entity", "none", "full", "random"] = "entity"
    """entity: hide whole entities; random: hide that share of tokens; full: hide no key (plain causal); none: no text decoder loss."""
    ratio: Share = 0.2
    unit: Literal["entity", "token"] = "entity"
    mode: Literal["decoder_attention", "input"] = "decoder_attention"
    """Hidden positions leave the decoder's self-attention keys, or their input embeddings become a mask token."""
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
    """What is added up (eqs 14-16)."""

    weights: Weights = Weights()
    half: bool = False
    """Halve the symmetric InfoNCE, as CLIP does; the paper prints no factor 1/2."""
    max_logit_scale: float = Field(100.0, gt=0)
    positives: Literal["pair", "group"] = "pair"
    """pair: each image's own report alone is right (eqs 14, 15); group: so is every report of the batch that says the same findings.
    Weak pairs repeat themselves, and calling a repeated sentence wrong teaches the opposite of what it says."""


class Warmup(Section):
    """The first iterations, on masked objectives alone."""

    iterations: Annotated[int, Field(ge=0)] = 15_000
    objectives: tuple[Objective, ...] = ("mim", "mlm")
    mask: Literal["attmim", "random"] = "attmim"


class BatchSection(Section):
    """Images per step: with a report, and without."""

    paired: Annotated[int, Field(ge=0)] = 64
    unpaired: Annotated[int, Field(ge=0)] = 64
    one_source: bool = False
    """Take the pairs of a step from one source, so that InfoNCE cannot tell them apart by how each source's pictures look."""

    @model_validator(mode="after")
    def _not_empty(self) -> BatchSection:
        if self.paired + self.unpaired == 0:
            raise ValueError("paired and unpaired are both 0: nothing to train on")
        return self


class Optimizer(Section):
    """SGD is the paper's; AdamW with a cosine is the field's."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(5e-5, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    lr_warmup: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate climbs from 0."""
    clip_norm: float | None = Field(None, gt=0)


class Augmentation(Section):
    """Random views of each picture, drawn on the device. Flip is off: left and right matter in a report."""

    scale: tuple[float, float] = (1.0, 1.0)
    """Shortest and longest side of the crop, as a share of the picture's side."""
    aspect: float = Field(1.0, ge=1)
    """Largest ratio of width to height of the crop, and its inverse."""
    rotate: float = Field(0.0, ge=0, le=45)
    """Degrees, either way."""
    contrast: float = Field(0.0, ge=0, lt=1)
    """Largest relative change of contrast, brightness and gamma."""
    flip: bool = False


class TokenizerSection(Section):
    """`vocab`: train a byte-level BPE of that size on the training reports; None takes the tokenizer of `model.init`."""

    vocab: Annotated[int, Field(ge=300)] | None = None


class Checkpoints(Section):
    """When to save, and how many to keep."""

    every: Positive = 1000
    keep: Annotated[int, Field(ge=1)] = 2


class Compute(Section):
    """How a step is computed: memory and speed, on one device or many. What is learned stays the same, but for rounding, so that a
    run may go on from its checkpoints under other keys of this section."""

    micro_batch: Positive | None = None
    """Images in one forward and backward pass of one process; None: all of its share at once. Smaller ones save memory and cost one more
    forward pass where `align` is trained: its features are made first for the whole batch, so that every pair still meets every other."""
    checkpoint_activations: bool = False
    """Keep the input of each transformer block only and compute the rest again on the way back: less memory for a second forward pass."""
    compile: Literal["auto", "always", "never"] = "auto"
    """torch.compile the transformer blocks and the masks. auto: on a GPU; on a CPU it takes longer than it saves."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: ddp holds the whole model in every process, fsdp a share of weights, gradients and optimizer state."""
    matmul: Literal["high", "highest"] = "high"
    """Products of float32 matrices on a GPU: high takes TF32, highest full float32."""
    ahead: Annotated[int, Field(ge=0)] = 2
    """Batches made ahead of time by a thread of their own."""
    timeout: Positive = 10
    """Minutes that a process waits in a step for the others before it gives up."""


class Logging(Section):
    """What a run shows of itself. What is learned stays the same, so that a run may go on from its checkpoints under other keys."""

    vitals_every: Positive = 50
    """Steps from one record of throughput, utilisation, memory and mask statistics to the next. Costs a look at 32 images of each half."""
    pictures_every: Annotated[int, Field(ge=0)] = 1000
    """Steps from one figure of image, attention maps, mask and reconstruction to the next, as the paper's Figure 3; 0: none.
    They show patients' pictures, and lie in out/pictures, which only its owner may read."""
    pictures: Positive = 4
    """Images with a report, and as many without, in each figure: always the same."""
    tensorboard: bool = False
    """Write curves to out/tensorboard; needs the extra `mmclip[tensorboard]`."""
    peak_tflops: float | None = Field(None, gt=0)
    """What one device could do at best, in TFLOP/s: what utilisation is a share of. None: on a GPU its data sheet, or measured where that
    is not known; on a CPU utilisation is then not told."""


class Doing(TypedDict):
    """What a step is asked for, as `MMCLIP.losses` takes it: its objectives, and what overrides `attmim.strategy`."""

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
    checkpoint: Checkpoints = Checkpoints()
    compute: Compute = Compute()
    logging: Logging = Logging()
    entities: str = "chest_ner"
    """The recogniser of entities: our shipped pipeline, or an installed scispaCy model by name or path."""
    steps: Positive
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    store_size: Positive = 256
    """Side in pixels of the square pictures in the pixel store."""
    resize: Literal["squash", "pad", "crop"] = "squash"

    def doing(self, step: int) -> Doing:
        """What a step (0-based) is to do. Warm-up masks at random where the recipe says so, else by the run's own `attmim.strategy`."""
        if step >= self.warmup.iterations:
            return {"objectives": ("align", "mim", "mlm"), "mask": None}
        at_random = self.warmup.mask == "random" and self.attmim.strategy != "none"
        return {"objectives": self.warmup.objectives, "mask": "random" if at_random else None}

    @model_validator(mode="after")
    def _words_for_the_text_tower(self) -> PretrainRecipe:
        if self.model.init is None and self.tokenizer.vocab is None:
            raise ValueError("set tokenizer.vocab to train a tokenizer, or model.init to take the tokenizer of existing weights")
        return self
