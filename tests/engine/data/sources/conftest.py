"""The real label tables, where this machine has them. Miniatures of data sets that several rooms read are made in tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

LABEL_TABLES = Path(__file__).resolve().parents[5] / "shared" / "data" / "labels"


@pytest.fixture(scope="session")
def real_table() -> Callable[[str], Path]:
    """The path of a real label table, without .gz; the test is skipped where the machine has none."""

    def path(name: str) -> Path:
        if not (LABEL_TABLES / f"{name}.gz").is_file():
            pytest.skip(f"{name}.gz is not on this machine (it may not be copied into the project)")
        return LABEL_TABLES / name

    return path


@pytest.fixture
def picture() -> Callable[[Path], Path]:
    """Writes a small smooth grey picture, PNG or JPEG by its suffix; the name decides what it shows."""

    def draw(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(len(path.name) + sum(path.name.encode())).integers(0, 256, (5, 5), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 48), Image.Resampling.BICUBIC).save(path)
        return path

    return draw


@pytest.fixture(scope="session")
def real_labels() -> Path:
    """The folder of real label tables; not every machine has it, and tests that read a table there say so when it is not."""
    return LABEL_TABLES
