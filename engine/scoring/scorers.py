"""Image features -> scores of findings, by prompts or by a classifier's head; images -> features; ensembles."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import ConfigError, ModelError, NotFinite
from engine.model.head import Head
from engine.model.zero_shot import Words, logit_scale, words_by_finding, zero_shot
from engine.recipe.prompts import Phrases, PromptRecipe
from engine.recipe.section import plain_name

if TYPE_CHECKING:
    from engine.model.bundle import Bundle


# Images to image features in batches of one fixed shape.


def encode(bundle: Bundle, images: Sequence[NDArray[np.uint8]], batch_size: int) -> NDArray[np.float32]:
    """Features (N, D), rows of length 1, of N uint8 images (H, W), bone bright.

    Every batch is filled up to `batch_size` with black images: matrix products of one shape add up in one order, so an image has the
    same features to the bit, independent of its neighbours, and a run that was broken off and started again ends as if it had not been.
    With several threads and batches of 2, PyTorch was seen to change the last bit of a toy model's features all the same; at 8 it was
    not. Where a GPU's memory does not hold a batch, it is halved; features then agree to about 1e-6, as between two batch sizes.

    Raises:
        NotFinite: the model gave NaN or infinity.
    """
    rows = [_one_batch(bundle, images[start : start + batch_size], batch_size) for start in range(0, len(images), batch_size)]
    features = np.concatenate(rows) if rows else np.empty((0, bundle.clip.config.projection_dim), dtype=np.float32)
    if not np.isfinite(features).all():
        raise NotFinite("the model gives NaN or infinite features", hint="another model, or --device cpu")
    return features


def _one_batch(bundle: Bundle, images: Sequence[NDArray[np.uint8]], batch_size: int) -> NDArray[np.float32]:
    import torch

    try:
        pixels = bundle.pixels(images)
        if len(images) < batch_size:
            pixels = torch.cat([pixels, pixels.new_zeros((batch_size - len(images), *pixels.shape[1:]))])
        features = bundle.image_features(pixels)[: len(images)]
        rows: NDArray[np.float32] = features.cpu().numpy()
        return rows
    except torch.OutOfMemoryError:
        if batch_size == 1:
            raise
    half = (batch_size + 1) // 2
    torch.cuda.empty_cache()
    return np.concatenate([_one_batch(bundle, images[start : start + half], half) for start in range(0, len(images), half)])


Floats = NDArray[np.float64]
RANDOM = "random:"
"""`random:NAME` represents NAME's architecture, tokenizer and preprocessing with random weights: a control of what training did."""


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
    """Scores by one phrase alone, with all phrases of the other side. `scores` (N,) in [0, 1]."""

    finding: str
    side: str
    text: str
    scores: Floats


@dataclass(frozen=True)
class WordScorer:
    """Zero-shot scorer: the prompts of a recipe, embedded by one model."""

    recipe: PromptRecipe
    words: dict[str, Words]
    scale: float

    @staticmethod
    def of(bundle: Bundle, recipe: PromptRecipe) -> WordScorer:
        """Embed the prompts. Raises NotFinite where the model gives NaN."""
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
    """Scorer by a classifier's head; `places` are the columns of the wanted findings."""

    head: Head
    places: tuple[int, ...]

    def scores(self, features: NDArray[np.float32]) -> Floats:
        """See `Scorer`."""
        read = ~np.isnan(features).any(axis=1)
        found = np.full((len(features), len(self.places)), np.nan)
        found[read] = self.head.scores(features[read])[:, list(self.places)]
        return found


def scorer_of(bundle: Bundle, words: PromptRecipe, findings: Sequence[str]) -> Scorer:
    """The scorer of these findings: a classifier's head, matched by name, else prompts.

    Raises:
        ConfigError: the classifier does not know a finding.
    """
    head = bundle.head
    if head is None:
        return WordScorer.of(bundle, words)
    return HeadScorer(head, classifier_columns(bundle.name, head.findings, findings))


def classifier_columns(name: str, known: Sequence[str], findings: Sequence[str]) -> tuple[int, ...]:
    """The columns of a classifier's scores for these findings; `known` are all its findings.

    Raises:
        ConfigError: the classifier does not know a finding.
    """
    columns = {plain_name(each): column for column, each in enumerate(known)}
    if unknown := [each for each in findings if plain_name(each) not in columns]:
        raise ConfigError(f"classifier {name} does not know {', '.join(unknown)}", why=f"it knows {', '.join(known)}")
    return tuple(columns[plain_name(each)] for each in findings)


# Several checkpoints as one answer: the mean of their scores, or one model with the mean of their weights.


def prob_mean(scores: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """The mean over models of scores (N, F), each in [0, 1]."""
    return np.asarray(np.mean([np.asarray(each, dtype=np.float64) for each in scores], axis=0))


def joint_hash(hashes: Sequence[str], how: str) -> str:
    """The content hash of an ensemble: of its members' in any order, and of how they are joined; one member keeps its own."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join([how, *sorted(hashes)]).encode()).hexdigest()


def weight_soup(bundles: Sequence[Bundle]) -> Bundle:
    """One model whose every weight is the mean of the members', summed in float64; a single member is returned as it is.

    Tokenizer and preprocessing are the first one's, and must be everyone's.

    Raises:
        ModelError: no members, or members of another architecture, vocabulary or preprocessing.
    """
    import torch

    if not bundles:
        raise ModelError("a weight soup of no models", hint="two or more in `models`")
    first = bundles[0]
    if len(bundles) == 1:
        return first
    states = [bundle.clip.state_dict() for bundle in bundles]
    shapes = {name: tensor.shape for name, tensor in states[0].items()}
    for number, (bundle, state) in enumerate(zip(bundles, states, strict=True), 1):
        if {name: tensor.shape for name, tensor in state.items()} != shapes:
            raise ModelError(f"model {number} of the soup has another architecture than the first", hint="ensemble: prob_mean")
        if bundle.preprocessing != first.preprocessing or bundle.tokenizer.get_vocab() != first.tokenizer.get_vocab():
            raise ModelError(f"model {number} of the soup sees other pixels or words than the first", hint="ensemble: prob_mean")
    clip = copy.deepcopy(first.clip)
    with torch.no_grad():
        for name, tensor in clip.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.stack([state[name].double() for state in states]).mean(dim=0))
    name = f"soup of {len(bundles)} models"
    return dataclasses.replace(
        first, clip=clip, name=name, content_hash=joint_hash([each.content_hash for each in bundles], "weight_soup"), card="", provenance={}
    )
