"""Lookup tables of a header: an item of a LUT sequence -> the values that it represents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset


@dataclass(frozen=True, eq=False)
class LookupTable:
    """A modality or VOI LUT (PS3.3 C.11.1.1, C.11.2.1.1): input value `first` maps to values[0]; outputs are in [0, 2^bits - 1]."""

    first: int
    bits: int
    values: NDArray[np.float32]


def read_lut(item: Dataset, *, signed: bool, little: bool) -> LookupTable:
    """A LUT as its descriptor describes it (C.11.1.1); raises almost anything where data and descriptor disagree.

    Entries of 8 bits come one in a word, one in a byte, or two in a word, the first in its low byte.
    """
    entries, first, bits = (int(value) for value in item.LUTDescriptor)
    entries = entries if entries > 0 else entries + 65536
    first = first - 65536 if signed and first > 32767 else first + 65536 if not signed and first < -32768 else first
    data, word = item.LUTData, "<u2" if little else ">u2"
    stored: NDArray[Any]
    words = np.frombuffer(data[: len(data) // 2 * 2], word) if isinstance(data, bytes) else np.atleast_1d(np.asarray(data, np.int64))
    if bits <= 8 and len(words) < entries:
        by_word = isinstance(data, bytes) and little
        stored = np.frombuffer(data, np.uint8) if by_word else words.astype("<u2").view(np.uint8)
    else:
        stored = words & 0xFFFF
    values: NDArray[np.float32] = stored[:entries].astype(np.float32)
    if not 8 <= bits <= 16 or len(values) < entries or entries < 2 or values.max() >= 2**bits:
        raise ValueError
    return LookupTable(first, bits, values)
