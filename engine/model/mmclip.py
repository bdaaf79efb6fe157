"""MMCLIP: two CLIP towers, two decoders, and the losses of one batch by name (arXiv 2407.19546).

One encoder pass over paired and unpaired images together serves alignment, the attention maps and (with `mask_level: feature`)
the reconstruction. The caller weights and adds the losses (eq 16); see `engine/training/loop.py`.

Decisions, where the paper leaves one open (recipe keys in brackets):

    eqs 1-3  E_img, E_report: all tokens through the last layer norm and CLIP's projection; CLS and EOT pool them for alignment
    eq 9     hidden encoder outputs become a learned mask token, or a second pass encodes visible patches alone   [attmim.mask_level]
    eq 12    the decoder reads tokens before the projection                                             [model.image_decoder.input]
    eq 13    the text decoder reads the text encoder's tokens and cross-attends to all patch tokens, CLS included; its output
             weights are the token embedding's
    eqs 14-16  warm-up leaves out `align`                                                                        [warmup.objectives]
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.errors import ModelError
from engine.model import attmim, entmlm
from engine.model.decoders import ImageDecoder, TextDecoder
from engine.model.losses import BatchContext, align_loss, mim_loss, mlm_loss
from engine.model.mask_diagnostics import MaskSnapshot, inspect_masks
from engine.model.towers import Towers, clip_config
from engine.recipe.pretraining import MaskStrategy, Objective, PretrainRecipe

if TYPE_CHECKING:
    from transformers import CLIPModel

ALL_OBJECTIVES: tuple[Objective, ...] = ("align", "mim", "mlm")


class MMCLIP(Towers):
    """CLIP towers (`clip`, a `transformers.CLIPModel` of any size) with MMCLIP's decoders and losses.

    Args:
        clip: the towers; `clip_config` makes the configuration of new ones.
        recipe: the settings of the method; tower sizes are read by `clip_config` only, so that imported towers may differ.
    """

    def __init__(self, clip: CLIPModel, recipe: PretrainRecipe) -> None:
        super().__init__(clip, recipe)
        vision, text = clip.config.vision_config, clip.config.text_config
        for decoder, width, heads in (
            ("text_decoder", text.hidden_size, recipe.model.text_decoder.heads),
            ("image_decoder", recipe.model.image_decoder.width, recipe.model.image_decoder.heads),
        ):
            if width % heads:
                raise ModelError(
                    f"the {decoder}'s width {width} is no multiple of its {heads} heads", hint=f"another model.{decoder}.heads"
                )
        size = recipe.model.image_decoder
        source = vision.hidden_size if size.input == "pre_proj" else clip.config.projection_dim
        self.image_decoder = ImageDecoder(
            source,
            vision.image_size // vision.patch_size,
            vision.patch_size,
            width=size.width,
            layers=size.layers,
            heads=size.heads,
        )
        self.text_decoder = TextDecoder(
            text.hidden_size, vision.hidden_size, layers=recipe.model.text_decoder.layers, heads=recipe.model.text_decoder.heads
        )
        self.hidden_patches = attmim.hidden_patches  # an attribute, so that it can be compiled

    @classmethod
    def from_recipe(cls, recipe: PretrainRecipe, *, vocab_size: int, sot: int, eot: int) -> MMCLIP:
        """A randomly initialised model of the recipe's sizes (torch's global generator)."""
        from transformers import CLIPModel

        return cls(CLIPModel(clip_config(recipe, vocab_size=vocab_size, sot=sot, eot=eot)), recipe)

    def blocks(self) -> list[nn.Module]:
        """Every transformer block of towers and decoders: the units that are compiled, recomputed or sharded."""
        towers = (self.clip.vision_model.encoder.layers, self.clip.text_model.encoder.layers)
        return [block for blocks in (*towers, self.image_decoder.blocks, self.text_decoder.blocks) for block in blocks]

    # ---- losses -------------------------------------------------------------------------------------------------------------

    def forward(self, batch: Mapping[str, Tensor], **arguments: Any) -> dict[str, Tensor]:
        """`losses`, under the name that DDP and FSDP wrap."""
        return self.losses(batch, **arguments)

    def losses(
        self,
        batch: Mapping[str, Tensor],
        *,
        prompts: tuple[Tensor, Tensor],
        objectives: Collection[Objective] = ALL_OBJECTIVES,
        mask: MaskStrategy | None = None,
        generator: torch.Generator | None = None,
        batch_context: BatchContext | None = None,
    ) -> dict[str, Tensor]:
        """The losses of one batch by name: `align`, `mim`, `mim_unpaired`, `mlm`; those without data or objective are left out.

        Args:
            batch: `images` (B, 3, S, S) with `input_ids` (B, T), `padding_mask` (B, T; True = padding), `entity_ids` (B, T; 0 = none) and
                optionally `report_group` (B,); `unpaired_images` (U, 3, S, S). Either half may be absent. With the numbers of
                `engine.model.grad_cache.with_mask_noise`, masks are drawn from these.
            prompts: ids and padding mask of the disease prompts, (P, T) each; T no longer than the longest of them saves work.
            objectives: which of the three to compute (warm-up leaves out `align`).
            mask: overrides `attmim.strategy` (warm-up may mask at random).
            generator: draws the masks where the batch has no such numbers; on the batch's device.
            batch_context: totals of the whole batch of which this is a micro-batch; the losses then add up to the whole batch's.
        """
        active = self._active_objectives(batch, objectives, mask)
        if not active:
            return {}
        images, image_tokens, text_tokens = self._encoded(batch, active, mask)
        count = len(batch["images"]) if "images" in batch else 0

        losses: dict[str, Tensor] = {}
        if "align" in active and text_tokens is not None:
            losses["align"] = self._align_loss(image_tokens[:count], text_tokens, batch, batch_context)
        if "mim" in active:
            hidden = self._hidden_patches(image_tokens, text_tokens, batch, prompts, mask or self.recipe.attmim.strategy, generator)
            predicted = self._reconstruct(images, image_tokens, hidden)
            norm_pix = self.recipe.model.image_decoder.norm_pix
            for name, rows in (("mim", slice(0, count)), ("mim_unpaired", slice(count, None))):
                if len(images[rows]):
                    total = None if batch_context is None else batch_context.hidden[name]
                    losses[name] = mim_loss(predicted[rows], images[rows], hidden[rows], norm_pix=norm_pix, total=total)
        if "mlm" in active and text_tokens is not None:
            losses["mlm"] = self._next_token_loss(text_tokens, image_tokens[:count], batch, generator, batch_context)
        return losses

    @torch.no_grad()
    def cached_features(
        self,
        batch: Mapping[str, Tensor],
        *,
        prompts: tuple[Tensor, Tensor],
        objectives: Collection[Objective] = ALL_OBJECTIVES,
        mask: MaskStrategy | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Masks and pooled features of a batch as `losses` computes them, without gradient, for gradient caching.

        Returns:
            `hidden` (B + U, N), True = hidden, where `mim` is trained; `image` and `text` (B, C), pooled, where `align` is.
        """
        active = self._active_objectives(batch, objectives, mask)
        if not active:
            return {}
        _, image_tokens, text_tokens = self._encoded(batch, active, mask)
        features: dict[str, Tensor] = {}
        if "align" in active and text_tokens is not None:
            features["image"], features["text"] = self._pooled(image_tokens[: len(batch["images"])], text_tokens, batch)
        if "mim" in active:
            strategy = mask or self.recipe.attmim.strategy
            features["hidden"] = self._hidden_patches(image_tokens, text_tokens, batch, prompts, strategy, generator)
        return features

    def inspect_masks(self, batch: Mapping[str, Tensor], *, predict: bool = False, **arguments: Any) -> dict[str, MaskSnapshot]:
        """Maps and masks of a batch (`engine.model.mask_diagnostics.inspect_masks`), as a method that FSDP wraps."""
        return inspect_masks(self, batch, reconstruct=self._reconstruct if predict else None, **arguments)

    def _active_objectives(
        self, batch: Mapping[str, Tensor], objectives: Collection[Objective], mask: MaskStrategy | None
    ) -> set[Objective]:
        """Those of the objectives that the recipe trains and the batch has data for."""
        is_paired = "images" in batch
        if not is_paired and "unpaired_images" not in batch:
            raise ModelError("the batch holds neither images nor unpaired_images")
        active = set(objectives)
        if (mask or self.recipe.attmim.strategy) == "none":
            active.discard("mim")
        if self.recipe.entmlm.strategy == "none" or not is_paired:
            active.discard("mlm")
        if not is_paired:
            active.discard("align")
        return active

    def _encoded(
        self, batch: Mapping[str, Tensor], active: Collection[Objective], mask: MaskStrategy | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images, paired before unpaired, their tokens, and the tokens of the reports where an objective needs them."""
        names = ("images", *(["unpaired_images"] if "mim" in active else []))
        images = torch.cat([batch[name] for name in names if name in batch])
        trains_text = "align" in active or "mlm" in active
        masks_by_report = "mim" in active and (mask or self.recipe.attmim.strategy) in ("attmim", "report")
        text_tokens = None
        if "images" in batch and (trains_text or masks_by_report):
            with torch.set_grad_enabled(torch.is_grad_enabled() and trains_text):
                text_tokens = self.encode_texts(batch["input_ids"])
        return images, self.encode_images(images), text_tokens

    def _pooled(self, image_tokens: Tensor, text_tokens: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.clip.visual_projection(image_tokens[:, 0]), self.pooled_text(text_tokens, batch["input_ids"])

    def _align_loss(
        self, image_tokens: Tensor, text_tokens: Tensor, batch: Mapping[str, Tensor], batch_context: BatchContext | None
    ) -> Tensor:
        image, text = self._pooled(image_tokens, text_tokens, batch)
        objective = self.recipe.objective
        logit_scale = self.logit_scale()
        if batch_context is not None and batch_context.align is not None:
            return batch_context.align(image, text, logit_scale)
        group = batch.get("report_group") if objective.positives == "group" else None
        return align_loss(image, text, logit_scale, half=objective.half, group=group)

    @torch.no_grad()
    def _hidden_patches(
        self,
        image_tokens: Tensor,
        text_tokens: Tensor | None,
        batch: Mapping[str, Tensor],
        prompts: tuple[Tensor, Tensor],
        strategy: MaskStrategy,
        generator: torch.Generator | None,
    ) -> Tensor:
        """The (B + U, N) mask of the paired images, then of the unpaired."""
        image = self.clip.visual_projection(image_tokens[:, 1:])
        noise, unpaired_noise = batch.get("patch_noise"), batch.get("unpaired_patch_noise")
        needs_prompts = strategy in ("attmim", "prompt")
        prompt = self.prompt_tokens(prompts[0]) if needs_prompts else image.new_zeros(1, 1, image.shape[-1])
        # masked rather than dropped: dropping would make the shape depend on the data, and a GPU wait for the host
        prompt_padding = prompts[1].flatten()[None] if needs_prompts else None
        report = None if text_tokens is None else self.clip.text_projection(text_tokens)
        count = len(batch["images"]) if "images" in batch else 0
        masks = []
        if count:
            masks.append(
                self.hidden_patches(
                    image[:count],
                    prompt,
                    self.recipe.attmim,
                    strategy=strategy,
                    prompt_padding=prompt_padding,
                    report=report,
                    padding_mask=batch.get("padding_mask"),
                    generator=generator,
                    noise=noise,
                )
            )
        if len(image) > count:
            masks.append(
                self.hidden_patches(
                    image[count:],
                    prompt,
                    self.recipe.attmim,
                    strategy=strategy,
                    prompt_padding=prompt_padding,
                    generator=generator,
                    noise=unpaired_noise,
                )
            )
        return torch.cat(masks)

    def _reconstruct(self, images: Tensor, image_tokens: Tensor, hidden: Tensor) -> Tensor:
        """Predicted patches (B, N, patch * patch) from the visible patches (eqs 9, 12)."""
        if self.recipe.attmim.mask_level == "input":
            # every row hides equally many patches (ratio_of: image), so the visible ones form a rectangle
            visible = hidden.shape[1] - round(self.recipe.attmim.ratio * hidden.shape[1])
            ids_keep = hidden.int().argsort(dim=1, stable=True)[:, :visible]  # stable: in ascending order
            kept = self.encode_images(images, ids_keep)[:, 1:]
            place = ids_keep[..., None].expand(-1, -1, kept.shape[-1])
            tokens = kept.new_zeros(*hidden.shape, kept.shape[-1]).scatter(1, place, kept)
        else:
            tokens = image_tokens[:, 1:]
        if self.recipe.model.image_decoder.input == "proj":
            tokens = self.clip.visual_projection(tokens)
        return self.image_decoder(tokens, hidden)  # type: ignore[no-any-return]

    def _next_token_loss(
        self,
        text_tokens: Tensor,
        image_tokens: Tensor,
        batch: Mapping[str, Tensor],
        generator: torch.Generator | None,
        batch_context: BatchContext | None,
    ) -> Tensor:
        """The loss of eq 13 under the mask of eqs 10, 11."""
        recipe = self.recipe.entmlm
        input_ids, padding_mask = batch["input_ids"], batch["padding_mask"]
        hidden = self._hidden_words(batch, generator)
        if recipe.mode == "input":
            text_tokens = self.encode_texts(input_ids, hidden)
            mask = entmlm.attention_mask(torch.zeros_like(hidden), padding_mask)
        else:
            mask = entmlm.attention_mask(hidden, padding_mask)
        embedding = self.clip.text_model.embeddings.token_embedding.weight
        logits = self.text_decoder(text_tokens, image_tokens, mask, embedding)
        counted = hidden if recipe.targets == "entities" else ~padding_mask
        return mlm_loss(logits, input_ids, counted, None if batch_context is None else batch_context.targets)

    def _hidden_words(self, batch: Mapping[str, Tensor], generator: torch.Generator | None) -> Tensor:
        """(B, T), True = hidden from the text decoder (eq 10)."""
        padding_mask = batch["padding_mask"]
        place = torch.arange(padding_mask.shape[1], device=padding_mask.device)
        last = (~padding_mask).sum(1, keepdim=True) - 1  # EOT
        words = (place > 0) & (place < last)
        return entmlm.hidden_positions(batch["entity_ids"], words, self.recipe.entmlm, generator, batch.get("word_noise"))

    def targets(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Number of target words of a batch with mask noise: the divisor of `mlm`."""
        counted = self._hidden_words(batch, None) if self.recipe.entmlm.targets == "entities" else ~batch["padding_mask"]
        return counted[:, 1:].sum()
