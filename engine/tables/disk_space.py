"""Free disk space, checked before work whose output may not fit."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from engine.errors import OutputError


def check_disk_space(folder: Path, needed: int) -> None:
    """Check that `needed` bytes can be written to `folder`, which need not exist yet; nothing is written.

    Raises:
        OutputError: the folder cannot be written to, or its disk has less space.
    """
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError("the output folder cannot be written to", hint="another folder with --out")
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OutputError(
            "not enough disk space", why=f"about {needed / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free", hint="another disk with --out"
        )
