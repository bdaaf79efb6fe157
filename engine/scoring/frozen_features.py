"""Image features that are computed once per model and picture, and kept."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from engine.model.bundle import Bundle
from engine.scoring.scorers import encode
from engine.tables.atomic import publish

CHUNK = 1024
"""Pictures between two savings: what a kill can cost."""


def kept_features(
    bundle: Bundle,
    contents: Sequence[str],
    picture: Callable[[int], NDArray[np.uint8]],
    folder: Path,
    batch_size: int,
) -> NDArray[np.float32]:
    """Features (N, D) of N pictures: those in `folder` from an earlier call, and new ones, which are added to them.

    Args:
        contents: SHA-256 of each picture's file: what a feature is found by, together with the model's hash.
        picture: number (0 to N - 1) -> uint8 (H, W); asked for new ones alone.

    Raises:
        NotFinite: the model gives NaN. OutputError: the folder cannot be written.
    """
    file = folder / f"features-{bundle.content_hash[:16]}.npz"
    width = int(bundle.clip.config.projection_dim)
    known = _read(file, width)
    new = {content: number for number, content in enumerate(contents) if content not in known}
    waiting = list(new.items())
    for start in range(0, len(waiting), CHUNK):
        chunk = waiting[start : start + CHUNK]
        rows = encode(bundle, [picture(number) for _, number in chunk], batch_size)
        known |= {content: row for (content, _), row in zip(chunk, rows, strict=True)}
        _write(file, known)
    return np.stack([known[content] for content in contents]) if contents else np.zeros((0, width), np.float32)


def _write(file: Path, known: Mapping[str, NDArray[np.float32]]) -> None:
    contents, features = np.array(list(known), dtype=np.str_), np.stack(list(known.values()))

    def write(stream: BinaryIO) -> None:
        np.savez(stream, contents=contents, features=features)

    publish(file, write)


def _read(file: Path, width: int) -> dict[str, NDArray[np.float32]]:
    """What is kept; nothing where the file is absent, or only what a careless copy left of one."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            contents, features = stored["contents"], stored["features"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    if features.shape != (len(contents), width) or not np.isfinite(features).all():
        return {}
    return dict(zip(contents.tolist(), features.astype(np.float32), strict=True))
