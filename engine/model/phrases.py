"""Prompt phrases against the length of a text tower: phrases that are cut, and phrases that are the same to the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from engine.errors import ConfigError
from engine.recipe.prompts import Phrases

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from engine.recipe.pretraining import PretrainRecipe

MOST_NAMED = 5
"""Number of cut phrases that a message quotes; the rest is counted."""


def token_counts(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[int]:
    """Number of tokens of each text, start and end of text included, without a cut."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), truncation=False, add_special_tokens=True, split_special_tokens=True, verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]


def cut_texts(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], context: int) -> dict[str, int]:
    """The texts that a text tower of `context` tokens cuts, with their number of tokens."""
    distinct = list(dict.fromkeys(texts))
    return {text: count for text, count in zip(distinct, token_counts(tokenizer, distinct), strict=True) if count > context}


def disease_prompts(recipe: PretrainRecipe) -> list[str]:
    """The disease prompts of pretraining (eq 5): all findings in one text, or one text each."""
    findings = list(recipe.prompt.findings)
    return [", ".join(findings)] if recipe.prompt.mode == "joined" else findings


def check_prompt_length(recipe: PretrainRecipe, counts: Sequence[int], context: int) -> None:
    """Raise ConfigError where a disease prompt has more tokens than the text tower, so that findings would be cut off."""
    if max(counts) > context:
        raise ConfigError(
            f"the {recipe.prompt.mode} disease prompts need {max(counts)} tokens, the text tower has {context}",
            hint="prompt.mode=separate, fewer prompt.findings, or a larger model.text.context",
        )


def check_phrases(findings: Mapping[str, Phrases], tokenizer: PreTrainedTokenizerFast, context: int, model: str) -> list[str]:
    """Warnings about phrases that the model cuts or cannot tell apart.

    Args:
        findings: name -> its phrases.
        tokenizer: a fast tokenizer of transformers.
        context: the text tower's length in tokens.
        model: its name, for the messages.

    Raises:
        ConfigError: a positive and a negative phrase of a finding are the same tokens to the model, usually since they differ after the
            cut alone; names all such findings.
    """
    from engine.model.tokenizer import tokenize

    texts = list(dict.fromkeys(text for each in findings.values() for text in (*each.positive, *each.negative)))
    tokens = {text: tuple(ids) for text, ids in zip(texts, tokenize(tokenizer, texts, context).input_ids.tolist(), strict=True)}
    same = [
        f"{name}: {_quoted(positive)} and {_quoted(negative)}"
        for name, each in findings.items()
        for positive in each.positive
        for negative in each.negative
        if tokens[positive] == tokens[negative]
    ]
    if same:
        raise ConfigError(
            f"positive and negative phrases are the same to the model {model}, so that they say nothing about a finding",
            why=f"its text tower reads {context} tokens; {'; '.join(same[:MOST_NAMED])}{_rest(same)}",
            hint="shorter phrases, which differ near the beginning",
        )
    return [*_cut_warning(findings, cut_texts(tokenizer, texts, context), context, model), *_alike_warning(findings, tokens, model)]


def _cut_warning(findings: Mapping[str, Phrases], cut: Mapping[str, int], context: int, model: str) -> list[str]:
    named = [
        f"{name} ({side}, {cut[text]} tokens): {_quoted(text)}"
        for name, each in findings.items()
        for side, sentences in (("positive", each.positive), ("negative", each.negative))
        for text in sentences
        if text in cut
    ]
    if not named:
        return []
    what = f"{len(named)} {'phrase is' if len(named) == 1 else 'phrases are'} longer than the {context} tokens of {model}"
    return [f"{what}, and the end is cut: {'; '.join(named[:MOST_NAMED])}{_rest(named)}"]


def _alike_warning(findings: Mapping[str, Phrases], tokens: Mapping[str, tuple[int, ...]], model: str) -> list[str]:
    """Findings whose phrases are all the same to the model, and which therefore have equal scores."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, each in findings.items():
        key = tuple(frozenset(tokens[text] for text in texts) for texts in (each.positive, each.negative))
        groups.setdefault(key, []).append(name)
    alike = [" and ".join(names) for names in groups.values() if len(names) > 1]
    return [f"findings with the same phrases to {model}, and so with equal scores: {'; '.join(alike)}"] if alike else []


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _rest(named: Sequence[str]) -> str:
    return f"; and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
