"""The real label tables, where this machine has them. Miniatures of published data sets are made in tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

LABEL_TABLES = Path(__file__).resolve().parents[5] / "shared" / "data" / "labels"


@pytest.fixture(scope="session")
def real_table() -> Callable[[str], Path]:
    """The path of a real label table, without .gz; the test is skipped where the machine has none."""

    def path(name: str) -> Path:
        if not (LABEL_TABLES / f"{name}.gz").is_file():
            pytest.skip(f"{name}.gz is not on this machine (it may not be copied into the project)")
        return LABEL_TABLES / name

    return path
