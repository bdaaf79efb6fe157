"""Small real data: grey pictures drawn with Pillow, and tables that name them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def draw(path: Path, seed: int, shape: tuple[int, int] = (40, 50)) -> Path:
    """A smooth grey picture (height, width) of its own, as PNG or JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5), dtype=np.uint8)
    Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC).save(path)
    return path


MakeTable = Callable[..., Path]


@pytest.fixture
def make_table(tmp_path: Path) -> MakeTable:
    """Writes rows as CSV, and a picture for each `file` unless it is told not to; returns the table."""

    def make(rows: Sequence[Mapping[str, str]], *, name: str = "table.csv", pictures: bool = True) -> Path:
        table = tmp_path / name
        with table.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        for seed, row in enumerate(rows):
            if pictures and row.get("file"):
                draw(tmp_path / row["file"], seed)
        return table

    return make
