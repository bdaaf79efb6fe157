"""Stored values within their allocated bits: mask, sign extension, and what is done with values in bits that should be unused.

Bits above High Bit are to be ignored (PS3.5 8.1.1): old files keep overlays or junk there. Some senders write a BitsStored that is too
low instead, and hold values there; masked, bright areas of such an image wrap around to black. The two differ where neighbours differ in
these bits: values continue smoothly over the edge with the bits and jump without them, junk jumps with them. The median step decides;
in doubt the bits are ignored. Either way the flag is `unused_bits`; `more_bits` where they were read as values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMOOTHER = 2.0
"""Times by which the median step between neighbours must shrink where the bits above BitsStored are kept."""

_LINES = 512
"""Rows and columns that are compared with their neighbours."""


def stored_values(raw: NDArray[Any], bits: int, *, signed: bool, precision: int | None = None) -> tuple[NDArray[Any], int, tuple[str, ...]]:
    """The numbers that stored bits mean, how many bits hold them, and flags.

    raw: (H, W), unsigned integers as allocated. bits: BitsStored. precision: bits that the codestream says no value exceeds, which saves a
    look at every one of them; None where nothing says so.
    """
    allocated = 8 * raw.dtype.itemsize
    if signed:
        whole, masked = _signed(raw, allocated), _signed(raw, bits)
        if not exceeds(whole, bits, signed=True) or not exceeds(raw.view(f"<u{raw.dtype.itemsize}"), bits, signed=False):
            return masked, bits, ()  # the bits above repeat the sign, or are zero
    else:
        whole = raw.view(np.dtype(f"<u{raw.dtype.itemsize}"))
        if bits >= min(allocated, precision or allocated) or not exceeds(whole, bits, signed=False):
            return whole, bits, ()
        masked = whole & whole.dtype.type((1 << bits) - 1)
    if not _continues(whole, masked, bits):
        return masked, bits, ("unused_bits",)
    used = max(int(whole.max()).bit_length(), int(~whole.min()).bit_length() if signed else 0) + signed
    return whole, used, ("unused_bits", "more_bits")


def exceeds(values: NDArray[Any], bits: int, *, signed: bool) -> bool:
    """Whether a value needs more than `bits` bits."""
    if not values.size or bits >= 8 * values.dtype.itemsize:
        return False
    if signed:
        return int(values.max()) >= 1 << (bits - 1) or int(values.min()) < -(1 << (bits - 1))
    return int(values.max()) >> bits > 0


def _signed(raw: NDArray[Any], bits: int) -> NDArray[Any]:
    """Two's complement of the lowest `bits` bits."""
    values = raw.view(np.dtype(f"<i{raw.dtype.itemsize}"))
    spare = 8 * raw.dtype.itemsize - bits
    return (values << spare) >> spare if spare > 0 else values  # a codestream may hold fewer bits than the header stores


def _continues(whole: NDArray[Any], masked: NDArray[Any], bits: int) -> bool:
    """Whether values continue over the edges of the bits above `bits`: the median step across them is far smaller with the bits."""
    steps: list[NDArray[np.float64]] = []
    for values, without in ((whole, masked), (whole.T, masked.T)):
        some = slice(None, None, max(1, len(values) // _LINES))
        far, near = (np.abs(np.diff(lines[some].astype(np.float64), axis=1)) for lines in (values, without))
        edges = np.diff((values[some] - without[some]).astype(np.float64), axis=1) != 0
        steps.append(np.stack([far[edges], near[edges]]))
    together = np.concatenate(steps, axis=1)
    if not together.size:
        return False
    with_bits, without_bits = np.median(together, axis=1)
    return bool(with_bits * SMOOTHER < without_bits)
