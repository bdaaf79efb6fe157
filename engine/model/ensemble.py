"""Several checkpoints as one answer: the mean of their scores, or one model with the mean of their weights.

The paper's "+ Ensemble" is six checkpoints; it does not say how they are joined. The mean of scores is the default, as CheXzero does;
a weight soup (Wortsman et al., ICML 2022) costs no more to run than one model, and works only for checkpoints of one starting point.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import ModelError

if TYPE_CHECKING:
    from engine.model.bundle import Bundle


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
