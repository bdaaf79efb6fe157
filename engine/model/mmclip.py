"""MMCLIP: two CLIP towers, two decoders, and the losses of one batch by name (arXiv 2407.19546).

One encoder pass over paired and unpaired images together serves alignment, the attention maps and (with `mask_level: feature`)
the reconstruction. The caller weighs and adds the losses (eq 16); see `engine/training/loop.py`.

Decisions, where the paper leaves one open (recipe keys in brackets):

    eqs 1-3  E_img, E_report: all tokens through the last layer norm and CLIP's projection; CLS and EOT pool them for alignment
    eq 9     hidden encoder outputs become a learned mask token, or a second pass encodes visible patches alone   [attmim.mask_level]
    eq 12    the decoder reads tokens before the projection                                             [model.image_decoder.input]
    eq 13    the text decoder reads the text encoder's tokens and cross-attends to all patch tokens, CLS included; its output
             weights are the token embedding's
    eqs 14-16  warm-up leaves out `align`                                                                        [warmup.objectives]
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engine.errors import ModelError
from engine.model import attmim, entmlm
from engine.model.decoders import ImageDecoder, TextDecoder
from engine.model.losses import align_loss, mim_loss, mlm_loss
from engine.recipe.pretraining import MaskStrategy, Objective, PretrainRecipe

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPModel

ALL_OBJECTIVES: tuple[Objective, ...] = ("align", "mim", "mlm")


def clip_config(recipe: PretrainRecipe, *, vocab_size: int, sot: int, eot: int) -> CLIPConfig:
    """The transformers configuration of the recipe's towers. `sot` and `eot` are token ids; padding is EOT again, as in CLIP."""
    from transformers import CLIPConfig

    image, text = recipe.model.image, recipe.model.text
    activation = recipe.model.activation
    return CLIPConfig(
        projection_dim=recipe.model.projection,
        vision_config={
            "hidden_size": image.width,
            "intermediate_size": 4 * image.width,
            "num_hidden_layers": image.layers,
            "num_attention_heads": image.heads,
            "image_size": image.size,
            "patch_size": image.patch,
            "hidden_act": activation,
            "projection_dim": recipe.model.projection,
        },
        text_config={
            "vocab_size": vocab_size,
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "max_position_embeddings": text.context,
            "hidden_act": activation,
            "projection_dim": recipe.model.projection,
            "bos_token_id": sot,
            "eos_token_id": eot,
            "pad_token_id": eot,
        },
    )


class MMCLIP(nn.Module):
    """CLIP towers (`clip`, a `transformers.CLIPModel` of any size) with MMCLIP's decoders and losses.

    Args:
        clip: the towers; `clip_config` makes the configuration of new ones.
        recipe: the switches of the method; its tower sizes are only read by `clip_config`, so that imported towers may differ.
    """

    def __init__(self, clip: CLIPModel, recipe: PretrainRecipe) -> None:
        super().__init__()
        self.clip = clip
        self.recipe = recipe
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
        self.text_mask_token = nn.Parameter(torch.zeros(text.hidden_size)) if recipe.entmlm.mode == "input" else None

    @classmethod
    def from_recipe(cls, recipe: PretrainRecipe, *, vocab_size: int, sot: int, eot: int) -> MMCLIP:
        """A randomly initialised model of the recipe's sizes (torch's global generator)."""
        from transformers import CLIPModel

        return cls(CLIPModel(clip_config(recipe, vocab_size=vocab_size, sot=sot, eot=eot)), recipe)

    # ---- towers -------------------------------------------------------------------------------------------------------------

    def encode_images(self, images: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        """All image tokens after the last layer norm (eq 1).

        Args:
            images: (B, 3, S, S), normalised.
            ids_keep: (B, K) patch numbers to encode, in ascending order; None: all N.

        Returns:
            (B, 1 + N or 1 + K, width): CLS, then patches.
        """
        vision = self.clip.vision_model
        tokens = vision.embeddings(images)
        if ids_keep is not None:
            patches = tokens[:, 1:].gather(1, ids_keep[..., None].expand(-1, -1, tokens.shape[-1]))
            tokens = torch.cat([tokens[:, :1], patches], dim=1)
        tokens = vision.encoder(inputs_embeds=vision.pre_layrnorm(tokens)).last_hidden_state
        return vision.post_layernorm(tokens)  # type: ignore[no-any-return]

    def encode_texts(self, input_ids: Tensor, hidden: Tensor | None = None) -> Tensor:
        """All text tokens after the last layer norm (eqs 2, 3): (B, T) ids -> (B, T, width).

        Args:
            hidden: (B, T), True where the input embedding is replaced by the mask token (`entmlm.mode: input`).
        """
        text = self.clip.text_model
        embedded = text.embeddings.token_embedding(input_ids)
        if hidden is not None and self.text_mask_token is not None:
            embedded = torch.where(hidden[..., None], self.text_mask_token.to(embedded.dtype), embedded)
        length = input_ids.shape[1]
        # an explicit causal mask, so that every attention implementation of transformers reads it alike
        causal = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()
        additive = torch.zeros(length, length, dtype=embedded.dtype, device=input_ids.device).masked_fill(~causal, float("-inf"))
        tokens = text.encoder(inputs_embeds=text.embeddings(inputs_embeds=embedded), attention_mask=additive[None, None]).last_hidden_state
        return text.final_layer_norm(tokens)  # type: ignore[no-any-return]

    def pooled_text(self, tokens: Tensor, input_ids: Tensor) -> Tensor:
        """The token at the first EOT of each text, projected: (B, T, width) -> (B, C)."""
        eot = self.clip.config.text_config.eos_token_id
        # token 2 as EOT marks OpenAI's converted weights, whose EOT is really the highest id (transformers does the same)
        place = input_ids.argmax(-1) if eot == 2 else (input_ids == eot).int().argmax(-1)
        return self.clip.text_projection(tokens[torch.arange(len(tokens), device=tokens.device), place])  # type: ignore[no-any-return]

    def prompt_tokens(self, prompt_ids: Tensor) -> Tensor:
        """E_prompt (eq 5): (P, T) ids of disease prompts -> (1, P * T, C), padding included, without gradient."""
        with torch.no_grad():
            return self.clip.text_projection(self.encode_texts(prompt_ids)).flatten(0, 1)[None]  # type: ignore[no-any-return]

    # ---- losses -------------------------------------------------------------------------------------------------------------

    def losses(
        self,
        batch: Mapping[str, Tensor],
        *,
        prompts: tuple[Tensor, Tensor],
        objectives: Collection[Objective] = ALL_OBJECTIVES,
        mask: MaskStrategy | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The losses of one batch by name: `align`, `mim`, `mim_unpaired`, `mlm`; those without data or objective are left out.

        Args:
            batch: `images` (B, 3, S, S) with `input_ids` (B, T), `padding_mask` (B, T; True = padding), `entity_ids` (B, T; 0 = none) and
                optionally `report_group` (B,); `unpaired_images` (U, 3, S, S). Either half may be absent.
            prompts: ids and padding mask of the disease prompts, (P, T) each; T no longer than the longest of them saves work.
            objectives: which of the three to compute (warm-up leaves out `align`).
            mask: overrides `attmim.strategy` (warm-up may mask at random).
            generator: draws the masks; of the batch's device.
        """
        paired, unpaired = batch.get("images"), batch.get("unpaired_images")
        if paired is None and unpaired is None:
            raise ModelError("the batch holds neither images nor unpaired_images")
        strategy: MaskStrategy = mask or self.recipe.attmim.strategy
        with_mim = "mim" in objectives and strategy != "none"
        with_mlm = "mlm" in objectives and self.recipe.entmlm.strategy != "none" and paired is not None
        with_align = "align" in objectives and paired is not None

        parts = [images for images in (paired, unpaired if with_mim else None) if images is not None]
        if not parts or not (with_mim or with_mlm or with_align):
            return {}
        images = torch.cat(parts)
        image_tokens = self.encode_images(images)
        count = 0 if paired is None else len(paired)
        text_tokens = None
        if count and (with_align or with_mlm or (with_mim and strategy in ("attmim", "report"))):
            with torch.set_grad_enabled(torch.is_grad_enabled() and (with_align or with_mlm)):
                text_tokens = self.encode_texts(batch["input_ids"])

        losses: dict[str, Tensor] = {}
        if with_align and text_tokens is not None:
            objective = self.recipe.objective
            losses["align"] = align_loss(
                self.clip.visual_projection(image_tokens[:count, 0]),
                self.pooled_text(text_tokens, batch["input_ids"]),
                self._logit_scale(objective.max_logit_scale),
                half=objective.half,
                group=batch.get("report_group") if objective.positives == "group" else None,
            )
        if with_mim:
            hidden = self._hidden_patches(image_tokens, text_tokens, batch, prompts, strategy, generator)
            predicted = self._reconstruct(images, image_tokens, hidden)
            for name, part in (("mim", slice(0, count)), ("mim_unpaired", slice(count, None))):
                if len(images[part]):
                    losses[name] = mim_loss(predicted[part], images[part], hidden[part], norm_pix=self.recipe.model.image_decoder.norm_pix)
        if with_mlm and text_tokens is not None:
            losses["mlm"] = self._next_token_loss(text_tokens, image_tokens[:count], batch, generator)
        return losses

    def _logit_scale(self, highest: float) -> Tensor:
        """The multiplier of cosines. The parameter itself is clamped, as in CLIP: a clamped copy has no gradient to bring it back."""
        with torch.no_grad():
            self.clip.logit_scale.clamp_(max=math.log(highest))
        return self.clip.logit_scale.exp()  # type: ignore[no-any-return]

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
        needs_prompts = strategy in ("attmim", "prompt")
        prompt = self.prompt_tokens(prompts[0]) if needs_prompts else image.new_zeros(1, 1, image.shape[-1])
        # masked rather than dropped: dropping would make the shape depend on the data, and a GPU wait for the host
        prompt_padding = prompts[1].flatten()[None] if needs_prompts else None
        report = None if text_tokens is None else self.clip.text_projection(text_tokens)
        count = len(batch["images"]) if "images" in batch else 0
        masks = []
        if count:
            masks.append(
                attmim.hidden_patches(
                    image[:count],
                    prompt,
                    self.recipe.attmim,
                    strategy=strategy,
                    prompt_padding=prompt_padding,
                    report=report,
                    padding_mask=batch.get("padding_mask"),
                    generator=generator,
                )
            )
        if len(image) > count:
            masks.append(
                attmim.hidden_patches(
                    image[count:], prompt, self.recipe.attmim, strategy=strategy, prompt_padding=prompt_padding, generator=generator
                )
            )
        return torch.cat(masks)

    def _reconstruct(self, images: Tensor, image_tokens: Tensor, hidden: Tensor) -> Tensor:
        """Predicted patches (B, N, patch * patch) from what the mask leaves visible (eqs 9, 12)."""
        if self.recipe.attmim.mask_level == "input":
            # every row hides equally many patches (ratio_of: image), so the visible ones form a rectangle
            visible = hidden.shape[1] - round(self.recipe.attmim.ratio * hidden.shape[1])
            ids_keep = hidden.int().argsort(dim=1, stable=True)[:, :visible]  # stable: in ascending order
            seen = self.encode_images(images, ids_keep)[:, 1:]
            place = ids_keep[..., None].expand(-1, -1, seen.shape[-1])
            tokens = seen.new_zeros(*hidden.shape, seen.shape[-1]).scatter(1, place, seen)
        else:
            tokens = image_tokens[:, 1:]
        if self.recipe.model.image_decoder.input == "proj":
            tokens = self.clip.visual_projection(tokens)
        return self.image_decoder(tokens, hidden)  # type: ignore[no-any-return]

    def _next_token_loss(
        self, text_tokens: Tensor, image_tokens: Tensor, batch: Mapping[str, Tensor], generator: torch.Generator | None
    ) -> Tensor:
        """The loss of eq 13 under the mask of eqs 10, 11."""
        recipe = self.recipe.entmlm
        input_ids, padding_mask, entity_ids = batch["input_ids"], batch["padding_mask"], batch["entity_ids"]
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        last = (~padding_mask).sum(1, keepdim=True) - 1  # EOT
        words = (place > 0) & (place < last)
        hidden = entmlm.hidden_positions(entity_ids, words, recipe, generator)
        if recipe.mode == "input":
            text_tokens = self.encode_texts(input_ids, hidden)
            mask = entmlm.attention_mask(torch.zeros_like(hidden), padding_mask)
        else:
            mask = entmlm.attention_mask(hidden, padding_mask)
        embedding = self.clip.text_model.embeddings.token_embedding.weight
        logits = self.text_decoder(text_tokens, image_tokens, mask, embedding)
        counted = hidden if recipe.targets == "entities" else ~padding_mask
        return mlm_loss(logits, input_ids, counted)
