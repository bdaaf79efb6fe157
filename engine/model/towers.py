"""The two CLIP towers of MMCLIP: their configuration from a recipe, and the encoding of images and texts (eqs 1-3, 5).

Any `transformers.CLIPModel` will do. Its own forward is not used: MMCLIP needs all tokens, and images with patches left out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPModel

    from engine.recipe.pretraining import PretrainRecipe


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


class Towers(nn.Module):
    """CLIP towers (`clip`, a `transformers.CLIPModel` of any size).

    Args:
        clip: the towers; `clip_config` makes the configuration of new ones.
        recipe: the switches of the method; its tower sizes are only read by `clip_config`, so that imported towers may differ.
    """

    def __init__(self, clip: CLIPModel, recipe: PretrainRecipe) -> None:
        super().__init__()
        self.clip = clip
        self.recipe = recipe
        width = clip.config.text_config.hidden_size
        self.text_mask_token = nn.Parameter(torch.zeros(width)) if recipe.entmlm.mode == "input" else None

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

    @property
    def patches(self) -> int:
        """N, the patches of one image."""
        vision = self.clip.config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2)

    def logit_scale(self) -> Tensor:
        """The multiplier of cosines. The parameter itself is clamped, as in CLIP: a clamped copy has no gradient to bring it back."""
        with torch.no_grad():
            self.clip.logit_scale.clamp_(max=math.log(self.recipe.objective.max_logit_scale))
        return self.clip.logit_scale.exp()  # type: ignore[no-any-return]
