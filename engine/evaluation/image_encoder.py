"""Features of the images of an evaluation, from the feature cache where an earlier run encoded them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.dicom.reader_version import reader_version, same_readers
from engine.evaluation.events import ImageEncoded
from engine.model.linear_probe import raw_pixels
from engine.scoring.feature_cache import FeatureCache
from engine.scoring.image_features import file_features
from engine.scoring.scorers import encode
from engine.tables.shards import ShardFolder

if TYPE_CHECKING:
    from engine.model.bundle import Bundle

BASELINE_SIDE = 32
_BASELINE_READ_SIZE = 256
"""Shorter side, in pixels, at which images are read before they are reduced to 32 x 32."""


@dataclass(frozen=True)
class ImageEncoder:
    """Where and how images are encoded: `out` holds the feature cache; `workers` processes read files."""

    out: Path
    workers: int
    batch_size: int

    def features(
        self, files: Sequence[str], bundle: Bundle | None
    ) -> Generator[ImageEncoded, None, tuple[NDArray[np.float32], Counter[str]]]:
        """Features (N, D) by a model, or for None grey values (N, 1024) in [0, 1].

        Returns:
            The features, with rows of NaN for files that cannot be read, and the number of these by reason.
        """
        if bundle is not None:
            model, width, size = bundle.content_hash, int(bundle.clip.config.projection_dim), bundle.preprocessing.read_size
        else:
            model, width, size = f"raw-pixels-{BASELINE_SIDE}", BASELINE_SIDE**2, _BASELINE_READ_SIZE

        def vectors(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            if bundle is not None:
                return encode(bundle, images, self.batch_size)
            return raw_pixels(images, BASELINE_SIDE).astype(np.float32)

        cache = FeatureCache(ShardFolder(self.out, model, reader_version(), width, same_readers()))
        found = np.full((len(files), width), np.nan, dtype=np.float32)
        reasons = Counter[str]()
        paths = [Path(file) for file in files]
        with closing(file_features(paths, cache, vectors, size=size, batch_size=self.batch_size, workers=self.workers)) as all_files:
            for each in all_files:
                if each.features is not None:
                    found[each.number] = each.features
                elif each.reason:
                    reasons[each.reason] += 1
                yield ImageEncoded(each.known)
        return found, reasons
