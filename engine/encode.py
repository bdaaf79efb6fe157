"""One picture and its words to comparable features, from Python: the interface that the authors' README promises.

    from engine import MMCLIPModel
    model = MMCLIPModel.from_pretrained("tiny")
    image_features, text_features = model.encode("chest.dcm", ["pneumonia", "no pneumonia"])
    cosines = image_features @ text_features.T

For folders of DICOM use `engine.score`: it runs each file in a sandbox, with limits, and remembers what it has done.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.errors import InputMissing, ReadError, UsageError
from engine.model.bundle import Bundle, load_bundle

if TYPE_CHECKING:
    from torch import Tensor

Picture = str | os.PathLike[str] | npt.NDArray[np.generic]


class MMCLIPModel:
    """A model bundle with one verb, `encode`. `bundle` gives everything else: preprocessing, tokenizer, `logit_scale`, card."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path = "tiny", device: str = "cpu") -> MMCLIPModel:
        """A shipped model by name, a bundle or CLIP folder, or a Hugging Face id. Raises InputMissing or ModelError."""
        return cls(load_bundle(name_or_path, device))

    def encode(self, image: Picture | Sequence[Picture], text: str | Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features of pictures and texts, each (number given, D) float32 and L2-normalised.

        Args:
            image: one or several of: a DICOM, PNG or JPEG file, or an array (H, W), bone bright: uint8 as it is, other types scaled from
                their minimum and maximum.
            text: one or several texts.

        Raises:
            InputMissing: a file that is not there.
            ReadError: a file that cannot become a picture, with the reason code.
            UsageError: an array that is not (H, W).
        """
        several = isinstance(image, Sequence) and not isinstance(image, str)
        images: Sequence[Picture] = image if several else [image]  # type: ignore[assignment, list-item]
        pictures = [self._picture(one) for one in images]
        texts = [text] if isinstance(text, str) else list(text)
        return self.bundle.image_features(self.bundle.pixels(pictures)), self.bundle.text_features(texts)

    def _picture(self, image: Picture) -> npt.NDArray[np.uint8]:
        if isinstance(image, np.ndarray):
            return _as_grey(image)
        from engine.dicom.workers import read_files

        path = Path(image)  # type: ignore[arg-type]
        if not path.exists():
            raise InputMissing("no such picture", hint="check the path")
        reading = next(iter(read_files([path], size=self.bundle.preprocessing.size, workers=1, pictures=True)))
        if reading.picture is None:
            raise ReadError("the file could not be read as a chest radiograph", why=reading.reason or reading.outcome)
        return reading.picture


def _as_grey(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    if array.ndim != 2:
        raise UsageError(f"a picture is (height, width), and this array is {array.shape}", hint="one channel of it")
    if array.dtype == np.uint8:
        return array.astype(np.uint8, copy=False)
    values = array.astype(np.float64)
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise UsageError("the array holds NaN or infinite values")
    return np.rint((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
