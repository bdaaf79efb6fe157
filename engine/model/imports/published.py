"""Activation and preprocessing of published checkpoints whose files do not state them.

A file is recognised by its SHA-256: OpenAI's digests are part of their addresses, open_clip's release files end in the first eight digits,
and CheXzero's ten were recorded by people who downloaded them. These files were not available when this table was written; a wrong
digest would only fail to recognise its file. CheXzero's are also recognised by name, since they are often saved again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from engine.model.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing, Resample, Resize

Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True)
class PublishedPreprocessing:
    """Image preprocessing without the size: the resize, mean and deviation of grey values in [0, 1], and the filter."""

    resize: Resize
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: Resample = "bicubic"

    def at(self, size: int) -> Preprocessing:
        """The preprocessing of an image tower of that size in pixels."""
        return Preprocessing(size, self.resize, self.mean, self.std, self.resample)


@dataclass(frozen=True)
class KnownCheckpoint:
    """Training settings of a recognised file; `because` says how it was recognised, `preprocessing` is a key below."""

    maker: str
    activation: Activation
    preprocessing: str
    because: str


CHEXZERO_MEAN = (101.48761 / 255,) * 3
CHEXZERO_STD = (83.43944 / 255,) * 3
PUBLISHED_PREPROCESSING: Mapping[str, PublishedPreprocessing] = {
    "clip": PublishedPreprocessing("crop", CLIP_MEAN, CLIP_STD),
    "chexzero": PublishedPreprocessing("pad", CHEXZERO_MEAN, CHEXZERO_STD, "lanczos"),
}
"""clip: centre crop, CLIP's constants. chexzero: padded with black to a square, and the mean and deviation of its own radiographs, given
in 0-255. CheXzero resizes to 320 pixels and then to 224; here an image is resampled once."""

OPENAI = (
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",  # ViT-B/32
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",  # ViT-B/16
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",  # ViT-L/14
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",  # ViT-L/14 at 336 pixels
)
OPEN_CLIP: Mapping[str, Activation] = {
    "d867053b": "quick_gelu",  # vit_b_32-quickgelu-laion400m_e31
    "46683a32": "quick_gelu",  # vit_b_32-quickgelu-laion400m_e32
    "af8dbd0c": "gelu",  # vit_b_32-laion2b_e16
    "00efa78f": "gelu",  # vit_b_16-laion400m_e31
    "55e67d44": "gelu",  # vit_b_16-laion400m_e32
    "8fb26589": "gelu",  # vit_b_16_plus_240-laion400m_e31
    "699c4b84": "gelu",  # vit_b_16_plus_240-laion400m_e32
    "69988bb6": "gelu",  # vit_l_14-laion400m_e31
    "3d133497": "gelu",  # vit_l_14-laion400m_e32
}
CHEXZERO: Mapping[str, str] = {
    "best_128_0.0002_original_15000_0.859.pt": "620ee11d836f65104cd77c3764fd11ee787d709b0873ea58ca1acbf89c40c50c",
    "best_128_0.0002_original_8000_0.857.pt": "c1ec95b173e8dcd007320e6c33c2ae29023f5f38efc208add99702150c0a72f7",
    "best_128_5e-05_original_22000_0.855.pt": "1e3ae7be8d92caf09aa101ab81840b39ee4b1cad3111522250800566834622bf",
    "best_64_0.0001_original_16000_0.861.pt": "8f5f2679d205476b2e8f8c5112d010008b85ee3d17286cf4d301e50857282006",
    "best_64_0.0001_original_17000_0.863.pt": "ba3f39d6981c252148d7c3eff37979f2f28d29d193259eda06aaae6b5df596f5",
    "best_64_0.0001_original_35000_0.864.pt": "40ad37ea1933b6ae021a570d1a228e1b21ce1f7f4741348050766c365de214e9",
    "best_64_0.0002_original_23000_0.854.pt": "060d9743c5580b35ce42b602adc1a6dd8cd77e06055a0699584eb111757d9460",
    "best_64_5e-05_original_16000_0.858.pt": "6af517141430a61ac4084d8d08cf77d713dda8386eb1bb4afa4ea621b3483a6b",
    "best_64_5e-05_original_18000_0.862.pt": "0bc03704af2c5db952d2b9f59af1d93b7baa58b2346c953abf556d00eeccf7dc",
    "best_64_5e-05_original_22000_0.864.pt": "567a2efbabc6a02370de6e18178afd22ee72d7e6f29a789db1535e5c798d6ae8",
}


def known_file(name: str, sha256: str, *, has_openai_facts: bool = False) -> KnownCheckpoint | None:
    """The record of a file, found by its bytes, then its extra entries, then its name; None for an unknown file.

    Args:
        name: of the file.
        sha256: of its bytes, 64 hexadecimal digits.
        has_openai_facts: it holds `input_resolution`, `context_length` and `vocab_size` next to the weights, as OpenAI's releases do.
    """
    if sha256 in OPENAI:
        return KnownCheckpoint("openai", "quick_gelu", "clip", "its sha256 is that of OpenAI's release")
    if sha256 in CHEXZERO.values():
        return KnownCheckpoint("chexzero", "quick_gelu", "chexzero", "its sha256 is that of CheXzero's release")
    if sha256[:8] in OPEN_CLIP:
        return KnownCheckpoint("open_clip", OPEN_CLIP[sha256[:8]], "clip", "its sha256 starts as in open_clip's release")
    if has_openai_facts:
        return KnownCheckpoint(
            "openai", "quick_gelu", "clip", "it carries input_resolution, context_length and vocab_size, as OpenAI's releases do"
        )
    if re.sub(r"\.(pth|bin|safetensors)$", ".pt", name) in CHEXZERO:
        return KnownCheckpoint("chexzero", "quick_gelu", "chexzero", "its name is that of a file of CheXzero's release")
    return None
