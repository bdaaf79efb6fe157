"""What pretraining starts from: new towers and a new vocabulary, or existing weights; and the disease prompts in its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.errors import ConfigError
from engine.model.imports.source import import_model
from engine.model.mmclip import MMCLIP
from engine.model.preprocessing import GREY_MEAN, GREY_STD, Preprocessing
from engine.model.tokenizer import tokenize, train_tokenizer

if TYPE_CHECKING:
    from engine.recipe.pretraining import PretrainRecipe


@dataclass(frozen=True)
class Starting:
    """What the first step starts from.

    Attributes:
        module: the towers with their decoders.
        tokenizer: a fast tokenizer of transformers.
        preprocessing: what the image tower was, or is going to be, trained on.
        context: the text tower's length in tokens.
    """

    module: MMCLIP
    tokenizer: Any
    preprocessing: Preprocessing
    context: int


def starting_model(recipe: PretrainRecipe, texts: Sequence[str]) -> Starting:
    """New towers and a new vocabulary, or those that `model.init` names; decoders are always new.

    `model.init` is anything that `mmclip models import` takes. Its widths, layers, patches and activation stay; its positions are fitted
    to the recipe's `model.image.size` and `model.text.context` (engine/model/imports/positions.py); the recipe resizes the pictures.

    The recipe's seed decides all that is new: it is set as torch's global one.

    Args:
        texts: the training reports, from which a new vocabulary learns.

    Raises:
        ConfigError: the recipe asks for weights and for a new vocabulary, or for a size that is no whole number of their patches.
        InputMissing, ModelError: `model.init` cannot be loaded.
    """
    torch.manual_seed(recipe.seed)
    if recipe.model.init is None:
        context = recipe.model.text.context
        tokenizer = train_tokenizer([*sorted(set(texts)), *recipe.prompt.findings], recipe.tokenizer.vocab or 0, context)
        module = MMCLIP.from_recipe(recipe, vocab_size=len(tokenizer), sot=tokenizer.bos_token_id, eot=tokenizer.eos_token_id)
        return Starting(module, tokenizer, Preprocessing(recipe.model.image.size, recipe.resize, GREY_MEAN, GREY_STD), context)
    if recipe.tokenizer.vocab is not None:
        raise ConfigError(
            "the recipe names both `model.init` and `tokenizer.vocab`",
            why="a new vocabulary does not fit the token embeddings of existing weights",
            hint="leave one of them out",
        )
    image, text = recipe.model.image, recipe.model.text
    found = import_model(recipe.model.init, image_size=image.size, context=text.context)
    preprocessing = Preprocessing(image.size, recipe.resize, found.preprocessing.mean, found.preprocessing.std)
    return Starting(MMCLIP(found.clip, recipe), found.tokenizer, preprocessing, found.context)


def prompt_tokens(recipe: PretrainRecipe, starting: Starting) -> tuple[Tensor, Tensor]:
    """Ids and padding mask of the disease prompts (eq 5): (1, T) where they are joined, (P, T) where each stands alone.

    Raises:
        ConfigError: they are too long for the text tower, which would lose findings without a word.
    """
    findings = list(recipe.prompt.findings)
    texts = [", ".join(findings)] if recipe.prompt.mode == "joined" else findings
    length = max(len(ids) for ids in starting.tokenizer(texts)["input_ids"])
    if length > starting.context:
        raise ConfigError(
            f"the {recipe.prompt.mode} prompts need {length} tokens, the text tower has {starting.context}",
            hint="prompt.mode=separate, or fewer prompt.findings",
        )
    tokens = tokenize(starting.tokenizer, texts, starting.context)
    return torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.padding_mask)
