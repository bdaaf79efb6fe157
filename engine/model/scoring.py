"""From a model's image features to scores of named findings: by words, or by a classifier's own head; phrase by phrase where asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.model.head import Head
from engine.model.zero_shot import Words, logit_scale, words_by_finding, zero_shot
from engine.recipe.prompts import Phrases, PromptRecipe
from engine.tables.labels import plain_name

if TYPE_CHECKING:
    from engine.model.bundle import Bundle

Floats = NDArray[np.float64]
RANDOM = "random:"
"""`random:NAME` stands for NAME's architecture, tokenizer and preprocessing with random weights: a control of what training did."""


def spoken(prompts: PromptRecipe, findings: Sequence[str], template: Phrases | None) -> PromptRecipe:
    """The prompt recipe with words for all findings: its own, else the template's with the finding's name in lower case."""
    words = dict(prompts.findings)
    for name in findings:
        if name not in words and template is not None:
            words[name] = Phrases(
                positive=tuple(phrase.format(finding=name.lower()) for phrase in template.positive),
                negative=tuple(phrase.format(finding=name.lower()) for phrase in template.negative),
            )
    return prompts.model_copy(update={"findings": {name: words[name] for name in findings}})


@dataclass(frozen=True)
class Phrase:
    """One phrase judged by itself: with all phrases of the other side. `scores` (N,) in [0, 1]."""

    finding: str
    side: str
    text: str
    scores: Floats


@dataclass(frozen=True)
class WordScorer:
    """Zero-shot: the words of a prompt recipe, embedded by one model."""

    recipe: PromptRecipe
    words: dict[str, Words]
    scale: float

    @staticmethod
    def of(bundle: Bundle, recipe: PromptRecipe) -> WordScorer:
        """Embed the words. Raises NotFinite where the model gives NaN."""
        words = words_by_finding(recipe, lambda texts: bundle.text_features(texts).cpu().numpy())
        return WordScorer(recipe, words, logit_scale(recipe, bundle.logit_scale))

    def scores(self, features: NDArray[np.float32]) -> Floats:
        """(N, D) -> (N, findings) in [0, 1]; rows of NaN stay NaN."""
        return self._scores(features, self.words)

    def phrases(self, features: NDArray[np.float32]) -> Iterator[Phrase]:
        """Every phrase of every finding that has several on its side, by itself."""
        for name, words in self.words.items():
            texts = self.recipe.findings[name]
            for side, sentences in (("positive", texts.positive), ("negative", texts.negative)):
                for k, text in enumerate(sentences if len(sentences) > 1 else ()):
                    mine = getattr(words, side)[k : k + 1]
                    alone = Words(mine, words.negative) if side == "positive" else Words(words.positive, mine)
                    yield Phrase(name, side, text, self._scores(features, {name: alone})[:, 0])

    def _scores(self, features: NDArray[np.float32], words: dict[str, Words]) -> Floats:
        read = ~np.isnan(features).any(axis=1)
        found = np.full((len(features), len(words)), np.nan)
        found[read] = zero_shot(features[read], words, score=self.recipe.score, pool=self.recipe.pool, scale=self.scale)
        return found


class Scorer(Protocol):
    """Image features (N, D) -> scores (N, findings) in [0, 1]; rows of NaN stay NaN."""

    def scores(self, features: NDArray[np.float32]) -> Floats:
        """See the class."""
        ...


@dataclass(frozen=True)
class HeadScorer:
    """A classifier's own head; `places` are the columns of the findings that are asked for."""

    head: Head
    places: tuple[int, ...]

    def scores(self, features: NDArray[np.float32]) -> Floats:
        """See `Scorer`."""
        read = ~np.isnan(features).any(axis=1)
        found = np.full((len(features), len(self.places)), np.nan)
        found[read] = self.head.scores(features[read])[:, list(self.places)]
        return found


def scorer_of(bundle: Bundle, words: PromptRecipe, findings: Sequence[str]) -> Scorer:
    """What scores these findings: a classifier's head, joined by name; else the words.

    Raises:
        ConfigError: the classifier does not know a finding.
    """
    head = bundle.head
    if head is None:
        return WordScorer.of(bundle, words)
    known = {plain_name(name): place for place, name in enumerate(head.findings)}
    if unknown := [name for name in findings if plain_name(name) not in known]:
        raise ConfigError(f"classifier {bundle.name} does not know {', '.join(unknown)}", why=f"it knows {', '.join(head.findings)}")
    return HeadScorer(head, tuple(known[plain_name(name)] for name in findings))
