"""Compare two builds of mmclip on one folder: outcomes, reasons, flags, scores, table columns, and the hash of every shipped model.

    python tests/benchmarks/compare_builds.py CHECKOUT_BEFORE CHECKOUT_AFTER FOLDER --prompts chest14

Each build runs from its own checkout (`PYTHONPATH`) in its own process. Prints every difference and exits 1 where there is one. Columns and
files that only the later build writes are listed, and are no difference.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl

TOLERANCE = 1e-6
"""Scores that differ by no more are equal: sums in another order."""
TABLES = ("scores.parquet", "images.parquet", "private/files.parquet")
SCORE = "from mmclip_cli.app import main; main()"
HASHES = (
    "import sys, pathlib\n"
    "for path in sorted(pathlib.Path(sys.argv[1]).glob('engine/model/shipped/*/mmclip.json')):\n"
    "    from engine.model.bundle import load_bundle\n"
    "    print(path.parent.name, load_bundle(path.parent.name).content_hash)\n"
)


def run(checkout: Path, code: str, *arguments: str) -> str:
    """What the build of a checkout prints."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "MMCLIP_SITE_KEY": "compare-builds"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tempfile.gettempdir(), env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):  # 1: some files failed, which both builds must agree on
        sys.exit(f"{checkout}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def differences(before: pl.DataFrame, after: pl.DataFrame) -> list[str]:
    """Rows and cells that differ between two tables in the same order."""
    missing = [name for name in before.columns if name not in after.columns and name.strip()]
    found = [f"column {name} is missing" for name in missing]
    if len(before) != len(after):
        return [*found, f"{len(before)} rows before, {len(after)} after"]
    for name in (name for name in before.columns if name in after.columns):
        one, other = before[name], after[name]
        if one.dtype.is_float():
            unlike = ((one - other).abs() > TOLERANCE).fill_null(False) | (one.is_null() != other.is_null())
        else:
            unlike = one.ne_missing(other.cast(one.dtype))
        found += [f"row {row}, {name}: {one[row]} before, {other[row]} after" for row in unlike.arg_true().to_list()[:20]]
    return found


def main() -> None:
    """Run both builds, print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", default="chest14")
    given = parser.parse_args()
    builds = [given.before.resolve(), given.after.resolve()]
    hashes = [run(build, HASHES, str(build)) for build in builds]
    wrong = 0 if hashes[0] == hashes[1] else 1
    print(f"hashes of shipped models: {'equal' if not wrong else 'differ'}\n{hashes[1]}", end="")
    with tempfile.TemporaryDirectory() as scratch:
        outs = [Path(scratch, name) for name in ("before", "after")]
        for build, out in zip(builds, outs, strict=True):
            run(build, SCORE, "score", str(given.folder.resolve()), "--prompts", given.prompts, "--out", str(out), "--quiet")
        for name in TABLES:
            before, after = (pl.read_parquet(out / name) for out in outs)
            found = differences(before, after)
            wrong += len(found)
            new = [column for column in after.columns if column not in before.columns]
            print(f"{name}: {len(after)} rows, {len(found)} differences{f'; new columns {new}' if new else ''}", *found, sep="\n    ")
        new = {str(path.relative_to(outs[1])) for path in outs[1].rglob("*.csv")} - {
            str(path.relative_to(outs[0])) for path in outs[0].rglob("*.csv")
        }
        print(f"new files: {sorted(new)}" if new else "the same files")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
