"""Features of images and texts from Python, with the interface of the authors' README.

    from engine import MMCLIPModel
    model = MMCLIPModel.from_pretrained("tiny")
    image_features, text_features = model.encode("chest.dcm", ["pneumonia", "no pneumonia"])
    cosines = image_features @ text_features.T

For folders of DICOM use `engine.score`, which caches its results.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.errors import InputMissing, ReadError, UsageError
from engine.model.bundle import Bundle, load_bundle
from engine.model.phrases import cut_texts

if TYPE_CHECKING:
    from torch import Tensor

    from engine.intake.read_result import ReadResult

Image = str | os.PathLike[str] | npt.NDArray[np.generic]


class MMCLIPModel:
    """A model bundle with the method `encode`. `bundle` holds preprocessing, tokenizer, `logit_scale` and card."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path = "tiny", device: str = "cpu") -> MMCLIPModel:
        """A shipped model by name, a bundle or CLIP folder, or a Hugging Face id. Raises InputMissing or ModelError."""
        return cls(load_bundle(name_or_path, device))

    def encode(self, image: Image | Sequence[Image], text: str | Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features of images and texts, each (number given, D) float32 and L2-normalised.

        Args:
            image: one or several of: a DICOM, PNG or JPEG file, or an array (H, W), bone bright: uint8 unchanged, other types scaled
                from their minimum and maximum.
            text: one or several texts.

        Raises:
            InputMissing: no such file.
            ReadError: a file that cannot be read as an image, with the reason code.
            UserWarning: a text is longer than the text tower and is cut.
            UsageError: neither a file's name nor an array (H, W) of real numbers.
        """
        images = list(image) if isinstance(image, Sequence) and not isinstance(image, str) else [image]
        texts = [text] if isinstance(text, str) else list(text)
        if cut := cut_texts(self.bundle.tokenizer, texts, self.bundle.context):
            longest = f"{len(cut)} of {len(texts)} texts are longer than the {self.bundle.context} tokens of the text tower, and are cut"
            warnings.warn(longest, UserWarning, stacklevel=2)
        return self.bundle.image_features(self.bundle.pixels(self._grey_images(images))), self.bundle.text_features(texts)

    def _grey_images(self, images: Sequence[Image]) -> list[npt.NDArray[np.uint8]]:
        """Arrays as they are; files are read in one sandboxed child process."""
        arrays = {place: _as_grey(image) for place, image in enumerate(images) if not isinstance(image, (str, os.PathLike))}
        paths = [Path(image) for image in images if isinstance(image, (str, os.PathLike))]
        for path in paths:
            if not path.is_file():
                raise InputMissing("no such image", hint="check the path")
        if not paths:
            return list(arrays.values())
        from engine.intake.workers import read_files

        readings = iter(list(read_files(paths, size=self.bundle.preprocessing.read_size, workers=1, plain_images=True)))
        return [arrays[place] if place in arrays else _readable(next(readings)) for place in range(len(images))]


def _readable(reading: ReadResult) -> npt.NDArray[np.uint8]:
    if reading.image is None:
        raise ReadError("the file could not be read as a chest radiograph", why=reading.reason or reading.outcome)
    return reading.image


def _as_grey(array: object) -> npt.NDArray[np.uint8]:
    """uint8 as it is, anything else from its lowest value (0) to its highest (255)."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        raise UsageError(f"an image is a file or an array of real numbers, and this is {type(array).__name__}")
    if array.ndim != 2 or not array.size:
        raise UsageError(f"an image is (height, width), and this array is {array.shape}", hint="one channel of it")
    if array.dtype == np.uint8:
        return array
    values = array.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UsageError("the array holds NaN or infinite values")
    scaled = np.zeros(values.shape) if high == low else (values - low) / (high - low) * 255
    return np.rint(scaled).astype(np.uint8)
