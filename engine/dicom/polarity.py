"""How much a frontal chest picture looks inverted: bone dark and lungs bright after all that its header asked for.

Real files carry MONOCHROME1 on pixels that are MONOCHROME2, and the reverse; no tag tells. In a frontal chest the spine and heart are
brighter than the lungs beside them, and this holds for portable, adult and child pictures alike.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

THRESHOLD = -0.2
"""In standard deviations of the picture: what lies below looks inverted. README has its precision and recall, with the command."""

_MIDDLE = ((0.30, 0.75, 0.44, 0.58),)
_LUNGS = ((0.22, 0.55, 0.20, 0.36), (0.22, 0.55, 0.64, 0.80))
"""Top, bottom, left, right as shares of the sides."""


def contrast(picture: NDArray[Any]) -> float:
    """Mean of the middle minus mean of the lung fields of an upright picture (H, W), over its standard deviation; 0 for a constant one."""
    spread = float(picture.std())
    return (_mean(picture, _MIDDLE) - _mean(picture, _LUNGS)) / spread if spread else 0.0


def _mean(picture: NDArray[Any], fields: tuple[tuple[float, float, float, float], ...]) -> float:
    height, width = picture.shape
    parts = (picture[int(t * height) : int(b * height), int(left * width) : int(r * width)] for t, b, left, r in fields)
    return sum(float(part.mean()) for part in parts) / len(fields)
