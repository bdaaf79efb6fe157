"""Limits of time, memory and size for reading one file, and their settings (`--limit seconds=60`)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Limits for one file.

    seconds: wall clock from hand-over to answer. memory: bytes a worker may allocate beyond what it holds when idle. file_bytes: on disk.
    inflated_bytes: of a deflated data set. pixels: rows x columns x samples claimed by header or codestream. depth: nested sequences.
    """

    seconds: float = 30.0
    memory: int = 2 << 30
    file_bytes: int = 512 << 20
    inflated_bytes: int = 256 << 20
    pixels: int = 100_000_000
    depth: int = 64


LIMITS = Limits()

_MEGABYTE = 1 << 20
SETTINGS = ("seconds", "memory_gb", "file_mb", "megapixels", "nesting")
"""Keys of `--limit`. A gigabyte is 2^30 bytes and a megabyte 2^20; a deflated data set may grow to half of `file_mb`."""


def limits_from(settings: Sequence[str], limits: Limits = LIMITS) -> Limits:
    """`limits` with `KEY=VALUE` settings, the last of each key, put in their place.

    Raises:
        UsageError: an unknown key, or a value that is no number above 0; all faults at once.
    """
    values, faults = {}, []
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in SETTINGS:
            near = difflib.get_close_matches(key, SETTINGS, n=1, cutoff=0.5)
            faults.append(f"unknown limit {key!r}" + (f"; did you mean {near[0]}?" if near else ""))
            continue
        number = _number(value)
        if number is None:
            faults.append(f"{key} should be a number above 0, not {value!r}")
        else:
            values[key] = number
    if faults:
        raise UsageError("; ".join(faults), hint=f"--limit KEY=VALUE with one of {', '.join(SETTINGS)}")
    return _with(limits, values)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _with(limits: Limits, values: dict[str, float]) -> Limits:
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key == "seconds":
            changes["seconds"] = value
        elif key == "memory_gb":
            changes["memory"] = math.ceil(value * 1024 * _MEGABYTE)
        elif key == "file_mb":
            changes["file_bytes"], changes["inflated_bytes"] = math.ceil(value * _MEGABYTE), math.ceil(value * _MEGABYTE / 2)
        elif key == "megapixels":
            changes["pixels"] = math.ceil(value * 1e6)
        else:
            changes["depth"] = math.ceil(value)
    return replace(limits, **changes)


def as_settings(limits: Limits) -> dict[str, float]:
    """The limits by their `--limit` keys, for run.json."""
    numbers = (limits.seconds, limits.memory / (1024 * _MEGABYTE), limits.file_bytes / _MEGABYTE, limits.pixels / 1e6, limits.depth)
    return dict(zip(SETTINGS, numbers, strict=True))
