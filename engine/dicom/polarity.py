"""How much a frontal chest picture looks inverted: bone dark and lungs bright after all that its header asked for.

Real files carry MONOCHROME1 on pixels that are MONOCHROME2, and the reverse; no tag tells. In a frontal chest the spine and heart are
brighter than the lungs beside them, and this holds for portable, adult and child pictures alike.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD = -0.2
"""In standard deviations of the picture: what lies below looks inverted. README has its precision and recall, with the command."""

_MIDDLE = ((0.30, 0.75, 0.44, 0.58),)
_LUNGS = ((0.22, 0.55, 0.20, 0.36), (0.22, 0.55, 0.64, 0.80))
"""Top, bottom, left, right as shares of the sides."""


def contrast(picture: NDArray[Any], spread: float | None = None) -> float:
    """Mean of the middle minus mean of the lung fields of an upright picture (H, W), over its standard deviation; 0 for a constant one.

    spread: that deviation, where it is known.
    """
    spread = float(picture.std()) if spread is None else spread
    return float(np.vdot(_weights(*picture.shape), picture)) / spread if spread else 0.0


@lru_cache(maxsize=16)
def _weights(height: int, width: int) -> NDArray[np.float64]:
    """What each pixel of a picture adds to the difference of the means."""
    weights = np.zeros((height, width))
    for sign, fields in ((1, _MIDDLE), (-1, _LUNGS)):
        for top, bottom, left, right in fields:
            part = weights[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
            part += sign / len(fields) / part.size
    return weights
