"""Files that mmclip itself writes into its output folders, distinguished from a user's files next to them by name."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = r"[^/]+"
_PATTERNS = (
    r"(scores|images|dropped|metrics|subgroups|predictions|comparisons|reliability|prompt_sensitivity)\.(csv|parquet|json)",
    r"(table|curve|history)\.(csv|parquet|json|svg)",
    r"(run|calibration)\.json|log\.jsonl|(report|evaluation)\.html|\.lock",
    r"private/(files|failed|worklist)\.(csv|parquet)|private/files\.jsonl",
    rf"private/heatmaps/{_NAME}\.(png|json)",
    rf"(private/)?table/[0-9a-f]{{16}}/(shard|part)-{_NAME}\.parquet",
    rf"pictures-{_NAME}/({_NAME})",
    rf"(.*/)?\.{_NAME}\.[0-9]+\.part|(.*/)?\.scratch-{_NAME}",
)
_OWN = re.compile("|".join(f"({pattern})" for pattern in _PATTERNS))


def is_own_file(path: Path, out: Path) -> bool:
    """Whether a file below the output folder `out` has a name that mmclip gives: a result, a shard, a heatmap, a temporary file.

    Args:
        path, out: both absolute, links resolved.
    """
    return path.is_relative_to(out) and _OWN.fullmatch(path.relative_to(out).as_posix()) is not None
