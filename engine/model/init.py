"""The initial model of pretraining: new towers and tokenizer, or existing weights; and the tokens of the disease prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.errors import ConfigError
from engine.model.imports.source import import_model
from engine.model.mmclip import MMCLIP
from engine.model.phrases import check_prompt_length, disease_prompts, token_counts
from engine.model.preprocessing import GREY_MEAN, GREY_STD, Preprocessing
from engine.model.tokenizer import tokenize, train_tokenizer

if TYPE_CHECKING:
    from engine.recipe.pretraining import PretrainRecipe


@dataclass(frozen=True)
class InitialModel:
    """The model before the first step.

    Attributes:
        module: the towers with their decoders.
        tokenizer: a fast tokenizer of transformers.
        preprocessing: of its images.
        context: the text tower's length in tokens.
    """

    module: MMCLIP
    tokenizer: Any
    preprocessing: Preprocessing
    context: int


def check_vocabulary(recipe: PretrainRecipe) -> None:
    """Raise ConfigError for a recipe that names both existing weights and a new vocabulary."""
    if recipe.model.init is not None and recipe.tokenizer.vocab is not None:
        raise ConfigError(
            "the recipe names both `model.init` and `tokenizer.vocab`",
            why="a new vocabulary does not fit the token embeddings of existing weights",
            hint="leave one of them out",
        )


def initial_model(recipe: PretrainRecipe, texts: Sequence[str]) -> InitialModel:
    """New towers and a new tokenizer, or those that `model.init` names; decoders are always new.

    `model.init` is anything that `mmclip models import` takes. Its widths, layers, patches and activation stay; its position
    embeddings are interpolated to the recipe's `model.image.size` and `model.text.context`; images are resized as the recipe says.

    New weights are drawn with torch's global generator, which is seeded with the recipe's seed.

    Args:
        texts: the training reports, on which a new tokenizer is trained.

    Raises:
        ConfigError: the recipe names both weights and a new vocabulary, or an image size that is no whole number of their patches.
        InputMissing, ModelError: `model.init` cannot be loaded.
    """
    torch.manual_seed(recipe.seed)
    if recipe.model.init is None:
        context = recipe.model.text.context
        tokenizer = train_tokenizer([*sorted(set(texts)), *recipe.prompt.findings], recipe.tokenizer.vocab or 0, context)
        module = MMCLIP.from_recipe(recipe, vocab_size=len(tokenizer), sot=tokenizer.bos_token_id, eot=tokenizer.eos_token_id)
        return InitialModel(module, tokenizer, Preprocessing(recipe.model.image.size, recipe.resize, GREY_MEAN, GREY_STD), context)
    check_vocabulary(recipe)
    image, text = recipe.model.image, recipe.model.text
    found = import_model(recipe.model.init, image_size=image.size, context=text.context)
    preprocessing = Preprocessing(image.size, recipe.resize, found.preprocessing.mean, found.preprocessing.std)
    return InitialModel(MMCLIP(found.clip, recipe), found.tokenizer, preprocessing, found.context)


def prompt_tokens(recipe: PretrainRecipe, initial: InitialModel) -> tuple[Tensor, Tensor]:
    """Ids and padding mask of the disease prompts (eq 5): (1, T) joined, (P, T) separate.

    Raises:
        ConfigError: they are too long for the text tower, and findings would be cut off.
    """
    texts = disease_prompts(recipe)
    check_prompt_length(recipe, token_counts(initial.tokenizer, texts), initial.context)
    tokens = tokenize(initial.tokenizer, texts, initial.context)
    return torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.padding_mask)
