"""Fine-tuning: image tower with a linear head, which a bundle stores as a `Head` (head.py).

logits = s (W' norm(visual_projection(pooled CLS)) + b'), with s the pretrained model's logit scale, held fixed: the head works on cosines,
and `init: text` starts as the zero-shot classifier. W = s W' and b = s b' are stored.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import ConfigError
from engine.model.head import Head
from engine.model.zero_shot import Words

if TYPE_CHECKING:
    from transformers import CLIPModel

    from engine.model.bundle import Bundle


class Classifier(nn.Module):
    """The image tower of a CLIP model, trained in place, and a linear head. The text tower is not used.

    Args:
        clip: its image tower and visual projection are trained in place.
        head: initial weights of the head.
        scale: s, the multiplier of the cosines.
    """

    def __init__(self, clip: CLIPModel, head: Head, scale: float) -> None:
        super().__init__()
        self.vision_model = clip.vision_model
        self.visual_projection = clip.visual_projection
        self.scale = scale
        device = clip.logit_scale.device
        self.weight = nn.Parameter(torch.from_numpy(head.weight / scale).to(device))
        self.bias = nn.Parameter(torch.from_numpy(head.bias / scale).to(device))
        self.findings = head.findings

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> logits (B, F)."""
        pooled = self.visual_projection(self.vision_model(pixels).pooler_output)
        features = F.normalize(pooled.float(), dim=-1)
        return self.scale * (features @ self.weight.T + self.bias)

    def head(self, about: Mapping[str, object]) -> Head:
        """The head as a bundle stores it."""
        weight, bias = (self.scale * each.detach().float().cpu().numpy() for each in (self.weight, self.bias))
        return Head(self.findings, weight.astype(np.float32), bias.astype(np.float32), dict(about))

    @property
    def layers(self) -> int:
        """Transformer layers of the image tower."""
        return len(self.vision_model.encoder.layers)


def bce_loss(logits: Tensor, labels: Tensor, pos_weight: Tensor) -> Tensor:
    """Mean binary cross-entropy over the known labels; unknown labels contribute neither loss nor gradient.

    Args:
        logits: (B, F).
        labels: (B, F) of 1 = present, 0 = absent, NaN = unknown.
        pos_weight: (F,), the weight of a present finding; an absent one weighs 1.
    """
    known = ~labels.isnan()
    each = F.binary_cross_entropy_with_logits(logits.float(), torch.where(known, labels, 0.0), pos_weight=pos_weight, reduction="none")
    return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


def pos_weights(labels: NDArray[np.float32], *, balanced: bool) -> NDArray[np.float32]:
    """(F,) of labels (N, F): absent / present, so that both classes of a finding weigh the same; ones without `balanced`.

    Every finding must be known present and absent at least once.
    """
    present, absent = (labels == 1).sum(0), (labels == 0).sum(0)
    return (absent / present).astype(np.float32) if balanced else np.ones(labels.shape[1], np.float32)


def class_balance(findings: Sequence[str], labels: NDArray[np.float32], *, balanced: bool) -> dict[str, dict[str, float]]:
    """Prevalence and `pos_weights` of the training labels (N, F), by finding; stored in the bundle for calibration."""
    shares, weights = np.nanmean(labels, axis=0), pos_weights(labels, balanced=balanced)
    return {
        key: {name: round(float(value), 6) for name, value in zip(findings, values, strict=True)}
        for key, values in (("prevalence", shares), ("pos_weight", weights))
    }


def layer_scales(layers: int, decay: float) -> Callable[[str], float]:
    """Name of a parameter of `Classifier` -> its factor on the learning rate: decay to the power of its distance from the head.

    Head, projection and last layer norm: 1. Transformer layer i of L (from 0): decay^(L - i). Embeddings: decay^(L + 1). (BEiT, MAE.)
    """

    def share(name: str) -> float:
        place, _, rest = name.partition("vision_model.encoder.layers.")
        if not place and rest:
            return decay ** (layers - int(rest.partition(".")[0]))
        return decay ** (layers + 1) if name.startswith(("vision_model.embeddings.", "vision_model.pre_layrnorm.")) else 1.0

    return share


def zero_head(findings: Sequence[str], width: int) -> Head:
    """A head whose scores are all 0.5."""
    return Head(tuple(findings), np.zeros((len(findings), width), np.float32), np.zeros(len(findings), np.float32))


def text_head(findings: Sequence[str], words: Mapping[str, Words], scale: float) -> Head:
    """The zero-shot classifier as a head: sigmoid(s (x.p - x.n)) with p and n the mean phrases of each finding, of length 1.

    Raises:
        ConfigError: a finding without phrases, or without negative ones.
    """
    if missing := [name for name in findings if name not in words or not len(words[name].negative)]:
        raise ConfigError(
            f"head.init: text has no positive and negative phrases for {', '.join(missing)}", hint="head.prompts, or head.init: zeros"
        )
    rows = [scale * (_centre(words[name].positive) - _centre(words[name].negative)) for name in findings]
    return Head(tuple(findings), np.stack(rows).astype(np.float32), np.zeros(len(rows), np.float32))


def _centre(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = rows.mean(axis=0)
    return mean / np.linalg.norm(mean)


def randomised(bundle: Bundle, seed: int) -> Bundle:
    """The same architecture, tokenizer and preprocessing with random weights, as a control; torch's global generator is not changed."""
    from transformers import CLIPModel

    content = hashlib.sha256(f"random weights {seed} in {bundle.content_hash}".encode()).hexdigest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(content[:8], 16))
        clip = CLIPModel(bundle.clip.config).eval().to(bundle.device)
    return dataclasses.replace(bundle, clip=clip, content_hash=content, name=f"{bundle.name} with random weights", head=None)
