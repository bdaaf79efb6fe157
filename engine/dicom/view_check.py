"""Whether an image looks like an upright frontal chest: which way up it hangs, and whether it is a lateral or no chest at all.

Tags lie about all three, or say nothing. A small convolutional net looks at a 64 x 64 copy of the image.
examples/train_image_checks.py made its weights from freely licensed images: radiographs of children (Kermany et al., CC BY 4.0) and of
adults (NIH ChestX-ray14), radiographs computed from one chest CT (LIDC-IDRI-0001, CC BY 3.0), among them all the laterals, and as strangers
photographs, CT slices, fragments and drawn shapes. tests/benchmarks/dicom_image_checks.py measures it on patients and sets that it never
saw. Flags only: no image is rejected, or turned round, for what is found here. The tags are not asked: an image that looks lateral
is flagged also where its tags say PA or AP; one whose tags say lateral has been rejected before it comes here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from engine.dicom.resample import squashed

# How much a frontal chest image looks inverted: bone dark and lungs bright after all that its header asked for.

THRESHOLD = -0.2
"""In standard deviations of the image; below this it looks inverted. Precision and recall: engine/dicom/README.md."""

_MIDDLE = ((0.30, 0.75, 0.44, 0.58),)
_LUNGS = ((0.22, 0.55, 0.20, 0.36), (0.22, 0.55, 0.64, 0.80))
"""Top, bottom, left, right as shares of the sides."""


def contrast(image: NDArray[Any], spread: float | None = None) -> float:
    """Mean of the middle minus mean of the lung fields of an upright image (H, W), over its standard deviation; 0 for a constant one.

    spread: that deviation, where it is known.
    """
    spread = float(image.std()) if spread is None else spread
    return float(np.vdot(_weights(*image.shape), image)) / spread if spread else 0.0


@lru_cache(maxsize=16)
def _weights(height: int, width: int) -> NDArray[np.float64]:
    """What each pixel of an image adds to the difference of the means."""
    weights = np.zeros((height, width))
    for sign, fields in ((1, _MIDDLE), (-1, _LUNGS)):
        for top, bottom, left, right in fields:
            part = weights[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
            part += sign / len(fields) / part.size
    return weights


SIDE = 64
UPRIGHT, MIRRORED, LATERAL, OTHER = 0, 4, 8, 9
"""Places among the ten classes: a frontal chest hung in one of eight ways (turned by 0, 90, 180, 270 degrees anticlockwise, then the same
mirrored), a lateral however it hangs, anything else."""
STRIDES = (2, 2, 2)
"""Of the three layers of square kernels, no padding: 64 -> 30 -> 14 -> 6 for kernels of 5, 3 and 3."""
MIRROR = (4, 7, 6, 5, 0, 3, 2, 1, 8, 9)
"""Class of an image -> class of its mirror image."""
_ROUGHEST, _LEAST_LEFT = 0.4, 0.025
"""Of `is_pattern`, whose images the net never saw. The farthest of 6,610 public chest images have 0.32 and 0.035."""
_MIRROR = np.array(MIRROR)
SURE = 0.7
"""Chance of upright above which the mirror image is not asked: 94 % of upright chests. Of 1,173 that the training did not see, hung in
eight ways, as they are and inverted, 4 of 18,768 would have other flags at 0.4, and none from 0.5 on."""
WEIGHTS = Path(__file__).with_name("view_check.npz")


@dataclass(frozen=True, eq=False)
class ViewClassifier:
    """What was learnt, as float32, and what counts as an alarm.

    kernels: three of shape (size * size * channels in, channels out), rows in the order (down, right, channel), each with a bias.
    hidden and out: matrices (inputs, outputs) over the flattened last layer (down, right, channel), each with a bias.
    strange, turned: chances in [0, 1] above which an image is flagged; mirrored: the same, between upright and mirrored alone. They were
    chosen for few false alarms on patients that neither the training nor the measurement saw.
    """

    kernels: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]
    hidden: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]
    out: NDArray[np.float32]
    out_bias: NDArray[np.float32]
    strange: float
    turned: float
    mirrored: float

    def scores(self, squares: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 10) logits of images (N, 64, 64), each of mean 0 and deviation 1."""
        layer = squares[..., None]
        for kernel, bias, stride in zip(self.kernels, self.biases, STRIDES, strict=True):
            layer = convolved(layer, kernel, bias, stride)
        inner = np.maximum(layer.reshape(len(layer), -1) @ self.hidden + self.hidden_bias, 0)
        return np.asarray(inner @ self.out + self.out_bias, np.float32)


def convolved(layer: NDArray[np.float32], kernel: NDArray[np.float32], bias: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
    """ReLU of a convolution without padding: (N, S, S, C) and a kernel (size * size * C, D) -> (N, T, T, D)."""
    layer = np.ascontiguousarray(layer)
    number, side, _, channels = layer.shape
    size = round((len(kernel) / channels) ** 0.5)
    places = (side - size) // stride + 1
    each, down, right, _ = layer.strides
    windows = as_strided(
        layer, (number, places, places, size, size * channels), (each, stride * down, stride * right, down, layer.itemsize), writeable=False
    )  # a row of a window is one run of memory, so that the copy that `reshape` makes is made of few pieces
    product = windows.reshape(number * places * places, -1) @ kernel
    product += bias
    return np.maximum(product, 0, out=product).reshape(number, places, places, -1)


@cache
def shipped() -> ViewClassifier:
    """The view classifier in this folder."""
    return load(WEIGHTS)


def load(path: Path) -> ViewClassifier:
    """The likeness in a file that examples/train_image_checks.py wrote."""
    with np.load(path, allow_pickle=False) as file:
        values = {name: file[name].astype(np.float32) for name in file.files}
    layers = range(len(STRIDES))
    return ViewClassifier(
        tuple(values[f"kernel{layer}"] for layer in layers),
        tuple(values[f"bias{layer}"] for layer in layers),
        *(values[name] for name in ("hidden", "hidden_bias", "out", "out_bias")),
        *(float(values[name]) for name in ("strange", "turned", "mirrored")),
    )


@dataclass(frozen=True)
class Look:
    """strange: the chance in [0, 1] that it is no frontal chest; lateral, turned: chances; mirrored: given that it is upright or mirrored.

    contrast: that of `engine.dicom.view_check`, of the image hung upright.
    """

    strange: float
    lateral: float
    turned: float
    mirrored: float
    contrast: float

    def flags(self, likeness: ViewClassifier) -> tuple[str, ...]:
        """`out_of_distribution`, and `looks_lateral` where that is the likeliest reason; or any of `orientation` and `polarity`.

        The last two ask how a frontal chest is shown, which is no question for anything else.
        """
        if self.strange > likeness.strange:
            return ("looks_lateral", "out_of_distribution") if self.lateral > self.strange / 2 else ("out_of_distribution",)
        found = ("orientation",) if self.turned > likeness.turned or self.mirrored > likeness.mirrored else ()
        return (*found, "polarity") if self.contrast < THRESHOLD else found


def view_scores(image: NDArray[np.uint8], likeness: ViewClassifier, sure: float = SURE) -> Look:
    """How an image (H, W) looks: the mean of the scores of it and of its mirror image, whose classes are changed back.

    sure: the mirror image is not asked where the image itself is upright at so high a chance.
    """
    square = small_copy(image)
    scores = likeness.scores(square[None])[0]
    chances = _chances(scores)
    if chances[UPRIGHT] <= sure:
        chances = _chances((scores + likeness.scores(square[None, :, ::-1])[0, _MIRROR]) / 2)
    upright, mirrored, lateral, other = (chances[place] for place in (UPRIGHT, MIRRORED, LATERAL, OTHER))
    turned = max(1 - upright - mirrored - lateral - other, 0.0)
    way = chances.index(max(chances[:LATERAL])) if turned > likeness.turned else UPRIGHT
    hung = np.rot90(square, -way) if way else square  # a mirrored one stays mirrored: contrast is the same
    strange = 1.0 if is_pattern(square) else other + lateral
    return Look(strange, lateral, turned, mirrored / max(upright + mirrored, 1e-9), contrast(hung, 1.0))


def _chances(scores: NDArray[np.float32]) -> list[float]:
    """Softmax of ten logits."""
    odds = np.exp(scores - scores.max())
    chances: list[float] = (odds / odds.sum()).tolist()
    return chances


def is_pattern(square: NDArray[np.float32]) -> bool:
    """Whether a small copy (S, S) of mean 0 and deviation 1 is noise or a test pattern: stripes, ramps, grids.

    Noise and fine patterns: neighbours differ by more than half as much as any two pixels do. Stripes and ramps: next to nothing is left
    once the mean of its row and that of its column are taken from every pixel.
    """
    each = np.full(len(square), 1 / len(square), np.float32)
    down, right, row, column = square[1:] - square[:-1], square[:, 1:] - square[:, :-1], square @ each, each @ square  # 10 x np.diff, mean
    rough = (np.vdot(down, down) + np.vdot(right, right)) / (2 * down.size)
    left = 1 - (np.vdot(row, row) + np.vdot(column, column)) / len(square)
    return bool(rough > _ROUGHEST or left < _LEAST_LEFT)


def view_flags(image: NDArray[np.uint8]) -> tuple[str, ...]:
    """Flags of reasons.FLAGS for an image (H, W) by its pixels: `orientation`, `polarity`, `looks_lateral`, `out_of_distribution`."""
    return view_scores(image, shipped()).flags(shipped())


def small_copy(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """64 x 64 means of an image (H, W), its sides squashed to one length; mean 0, deviation 1, all 0 for a constant image."""
    means = squashed(image, SIDE)
    means -= np.float32(np.add.reduce(means, None, np.float64) / means.size)
    spread = math.sqrt(float(np.vdot(means, means)) / means.size)
    if spread:
        means /= np.float32(spread)
    return means
