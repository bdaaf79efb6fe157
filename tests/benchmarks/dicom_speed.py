"""File to 224-pixel picture against a baseline, one core, in one interleaved run: CPU time as ratios, and how far the pictures differ.

    python tests/benchmarks/dicom_speed.py FOLDER BASELINE.py [--repeat 7]

FOLDER holds <syntax>_<number>.dcm. BASELINE.py defines picture(path, size) -> float (size, size) in [0, 1], the centre square, bone bright;
it may need decoders that mmclip does not. `ours` is the whole reading, with the SHA-256 of the file (`hash`, which the baseline does not
take); `ratio` compares what both do, `ratio all` the whole reading. Difference: mean over the picture, of 255.
The last lines give wall-clock time per file of one and of two worker processes, and the CPU time that the process which feeds them takes
of it, which no second worker shares. Two workers need two free cores: the load before the runs stands beside the ratio.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.dicom.reader import read_file
from engine.dicom.workers import read_files

SIZE = 224


def centre(picture: np.ndarray) -> np.ndarray:
    """The centre square in [0, 1]."""
    top, left = (picture.shape[0] - SIZE) // 2, (picture.shape[1] - SIZE) // 2
    return picture[top : top + SIZE, left : left + SIZE] / 255


def seconds(job: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    job()
    return time.process_time() - began


def per_file(paths: list[Path], workers: int) -> tuple[float, float]:
    """Milliseconds per file: wall clock, and CPU time of this process; from the first reading on, when the workers have started."""
    readings = read_files(paths, size=SIZE, workers=workers)
    next(readings)
    wall, cpu = time.monotonic(), time.process_time()
    count = sum(reading.picture is not None for reading in readings)
    assert count == len(paths) - 1
    return (time.monotonic() - wall) / count * 1000, (time.process_time() - cpu) / count * 1000


def main() -> int:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("baseline", type=Path)
    arguments.add_argument("--repeat", type=int, default=7)
    given = arguments.parse_args()
    spec = importlib.util.spec_from_file_location("baseline", given.baseline)
    assert spec is not None and spec.loader is not None
    baseline = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(baseline)
    families: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(given.folder.glob("*_*.dcm")):
        families[path.stem.split("_")[0]].append(path)
    print(f"{'syntax':10} {'baseline ms':>12} {'ours ms':>8} {'hash ms':>8} {'ratio':>7} {'ratio all':>10} {'difference':>11}")
    ratios: list[tuple[float, float]] = []
    for name, paths in families.items():
        differences, times = [], [[], [], []]  # type: ignore[var-annotated]
        for path in paths:
            ours = read_file(path, size=SIZE)
            assert ours.picture is not None, f"{path.name}: {ours.reason}"
            differences.append(np.abs(centre(ours.picture) - np.asarray(baseline.picture(path, SIZE))).mean() * 255)
            content = path.read_bytes()
            for _ in range(given.repeat):
                times[0].append(seconds(lambda path=path: baseline.picture(path, SIZE)))
                times[1].append(seconds(lambda path=path: read_file(path, size=SIZE)))
                times[2].append(seconds(lambda content=content: hashlib.sha256(content)))
        theirs, mine, hashing = (float(np.median(column)) * 1000 for column in times)
        ratios.append((theirs / (mine - hashing), theirs / mine))
        print(
            f"{name:10} {theirs:12.1f} {mine:8.1f} {hashing:8.1f} {ratios[-1][0]:7.2f} {ratios[-1][1]:10.2f} {max(differences):11.3f}",
            flush=True,
        )
    means = np.exp(np.log(np.array(ratios)).mean(0))
    print(f"{'geometric mean':40} {means[0]:7.2f} {means[1]:10.2f}")
    paths, load = [path for _ in range(2) for family in zip(*families.values(), strict=False) for path in family], os.getloadavg()[0]
    runs = np.array([[per_file(paths, workers) for workers in (1, 2)] for _ in range(3)])  # (run, workers, wall or CPU)
    (one, feeding), (two, _) = np.median(runs, 0)
    print(f"one worker {one:.1f} ms per file, of them {feeding:.2f} to feed it; two workers {two:.1f} ms: {one / two:.2f} times as fast")
    print(f"load before these runs: {load:.1f} on {os.cpu_count()} cores")
    return 0


if __name__ == "__main__":
    sys.exit(main())
