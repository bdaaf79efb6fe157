"""Zero-shot scores in [0, 1]: similarity of an image to the positive phrases of a finding against its negative phrases.

With x the image embedding, p_i and n_j those of the I positive and J negative phrases (all of length 1) and s the logit scale:

    pooling of phrases (`pool`)
        mean_embed   p = norm(mean_i p_i), n = norm(mean_j n_j); one score from x.p and x.n          (CheXzero; CLIP's prompt ensembling)
        max          one score from max_i x.p_i and max_j x.n_j                                        (the best phrase of each side)
        mean_prob    the score of every pair (i, j), averaged
    score of two cosines (`score`), for a = x.p and b = x.n
        softmax_pair exp(s a) / (exp(s a) + exp(s b)) = sigmoid(s (a - b))
        difference   (2 + a - b) / 4
        cosine       (1 + a) / 2; negative phrases are not used

1 means that the positive phrases fit, 0 that the negative ones do, 0.5 that both fit equally. Scores are not calibrated probabilities.
`s` is the model's learned scale (`learned`), 1 (`none`) or the recipe's number; only softmax_pair uses it.
Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import NotFinite
from engine.recipe.prompts import PromptRecipe

Floats = NDArray[np.float64]
Score = Literal["softmax_pair", "cosine", "difference"]
Pool = Literal["mean_embed", "mean_prob", "max"]


@dataclass(frozen=True)
class Words:
    """The embedded phrases of one finding: `positive` (I, D) and `negative` (J, D), rows of length 1; J may be 0 for `cosine`."""

    positive: Floats
    negative: Floats


def phrases(recipe: PromptRecipe) -> list[str]:
    """Every phrase of the recipe once, in the order of first use."""
    return list(dict.fromkeys(text for finding in recipe.findings.values() for text in (*finding.positive, *finding.negative)))


def words_by_finding(recipe: PromptRecipe, text_features: Callable[[Sequence[str]], ArrayLike]) -> dict[str, Words]:
    """The embedded phrases of each finding, in the recipe's order.

    Args:
        recipe: the prompts.
        text_features: T texts -> (T, D), rows of length 1.

    Raises:
        NotFinite: the model gives NaN or infinity.
    """
    texts = phrases(recipe)
    embedded = np.asarray(text_features(texts), dtype=np.float64)
    if not np.isfinite(embedded).all():
        raise NotFinite("the model gives NaN or infinite features for the phrases of the recipe", hint="another model, or --device cpu")
    row = {text: number for number, text in enumerate(texts)}
    return {
        name: Words(embedded[[row[t] for t in finding.positive]], embedded[[row[t] for t in finding.negative]])
        for name, finding in recipe.findings.items()
    }


def logit_scale(recipe: PromptRecipe, learned: float) -> float:
    """The multiplier s of the cosines by the recipe; `learned` is the model's own, already exponentiated."""
    if recipe.logit_scale == "learned":
        return learned
    return 1.0 if recipe.logit_scale == "none" else float(recipe.logit_scale)


def zero_shot(image_features: ArrayLike, words: Mapping[str, Words], *, score: Score, pool: Pool, scale: float) -> Floats:
    """Scores in [0, 1], (N, findings) in the order of `words`, of `image_features` (N, D) with rows of length 1.

    Each score depends on its own image and finding alone.
    """
    x = np.asarray(image_features, dtype=np.float64)
    columns = [_finding_scores(x, each, score, pool, scale) for each in words.values()]
    return np.stack(columns, axis=1) if columns else np.empty((len(x), 0))


def _finding_scores(x: Floats, words: Words, score: Score, pool: Pool, scale: float) -> Floats:
    """(N,) scores of one finding."""
    positive, negative = words.positive, words.negative
    if score == "cosine":
        negative = np.zeros((1, x.shape[1]))
    if pool == "mean_embed":
        positive, negative = _centre(positive), _centre(negative)
    # (N, I) and (N, J): einsum, unlike BLAS, adds up a row in the same order however many rows there are
    a, b = np.einsum("nd,id->ni", x, positive), np.einsum("nd,jd->nj", x, negative)
    if pool == "max":
        a, b = a.max(axis=1, keepdims=True), b.max(axis=1, keepdims=True)
    pairs = _pair_score(a[:, :, None], b[:, None, :], score, scale)
    result: Floats = pairs.mean(axis=(1, 2))
    return result


def _pair_score(a: Floats, b: Floats, score: Score, scale: float) -> Floats:
    if score == "softmax_pair":
        # tanh form of the sigmoid: no overflow, however large the scale
        return np.asarray(0.5 + 0.5 * np.tanh(scale * (a - b) / 2))
    if score == "difference":
        return np.clip((2 + a - b) / 4, 0, 1)
    return np.clip((1 + a + 0 * b) / 2, 0, 1)


def _centre(rows: Floats) -> Floats:
    """The mean of the rows, of length 1 again, as (1, D)."""
    mean = rows.mean(axis=0, keepdims=True)
    length = np.linalg.norm(mean)
    result: Floats = mean / length if length > 0 else mean
    return result
