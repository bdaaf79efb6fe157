"""File to 224-pixel picture against a baseline, one core, file by file in turn: CPU time as ratios, and how far the pictures differ.

    python tests/benchmarks/dicom_speed.py FOLDER BASELINE.py [--repeat 7]

FOLDER holds <syntax>_<number>.dcm. BASELINE.py defines picture(path, size) -> float (size, size) in [0, 1], the centre square, bone bright;
it may need decoders that mmclip does not. Each side reads in a process of its own, ours set up as its workers are. `ours` is the whole
reading, with the SHA-256 of the file (`hash`, which the baseline does not take); `ratio` compares what both do, `ratio all` the whole
reading. Difference: mean over the picture, of 255.
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
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from engine.intake.reader import read_file
from engine.intake.sandbox import keep_freed_memory
from engine.intake.workers import read_files

SIZE = 224


def centre(picture: np.ndarray) -> np.ndarray:
    """The centre square in [0, 1]."""
    top, left = (picture.shape[0] - SIZE) // 2, (picture.shape[1] - SIZE) // 2
    return picture[top : top + SIZE, left : left + SIZE] / 255


def ours(path: Path) -> tuple[float, np.ndarray]:
    """CPU seconds and picture of our reading."""
    began = time.process_time()
    reading = read_file(path, size=SIZE)
    spent = time.process_time() - began
    assert reading.image is not None, f"{path.name}: {reading.reason}"
    return spent, centre(reading.image)


def theirs(baseline: Path, path: Path) -> tuple[float, np.ndarray]:
    """CPU seconds and picture of the baseline's."""
    module = loaded(baseline)
    began = time.process_time()
    picture = module.picture(path, SIZE)
    return time.process_time() - began, np.asarray(picture)


@cache
def loaded(baseline: Path) -> Any:
    """The baseline as a module."""
    spec = importlib.util.spec_from_file_location("baseline", baseline)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hashing(path: Path) -> float:
    """CPU seconds of the SHA-256 of a file."""
    content = path.read_bytes()
    began = time.process_time()
    hashlib.sha256(content)
    return time.process_time() - began


def per_file(paths: list[Path], workers: int) -> tuple[float, float]:
    """Milliseconds per file: wall clock, and CPU time of this process; from the first reading on, when the workers have started."""
    readings = read_files(paths, size=SIZE, workers=workers)
    next(readings)
    wall, cpu = time.monotonic(), time.process_time()
    count = sum(reading.image is not None for reading in readings)
    assert count == len(paths) - 1
    return (time.monotonic() - wall) / count * 1000, (time.process_time() - cpu) / count * 1000


def main() -> int:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("baseline", type=Path)
    arguments.add_argument("--repeat", type=int, default=7)
    given = arguments.parse_args()
    families: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(given.folder.glob("*_*.dcm")):
        families[path.stem.split("_")[0]].append(path)
    print(f"{'syntax':10} {'baseline ms':>12} {'ours ms':>8} {'hash ms':>8} {'ratio':>7} {'ratio all':>10} {'difference':>11}")
    ratios: list[tuple[float, float]] = []
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as baseline, ProcessPoolExecutor(1, spawn, keep_freed_memory) as mmclip:
        for name, paths in families.items():
            differences, times = [], [[], [], []]  # type: ignore[var-annotated]
            for repeat in range(given.repeat + 1):
                for path in paths:
                    their_time, their_picture = baseline.submit(theirs, given.baseline, path).result()
                    our_time, our_picture = mmclip.submit(ours, path).result()
                    differences.append(np.abs(our_picture - their_picture).mean() * 255)
                    if repeat:  # the first round warms up
                        for column, value in zip(times, (their_time, our_time, hashing(path)), strict=True):
                            column.append(value)
            their_ms, our_ms, hash_ms = (float(np.median(column)) * 1000 for column in times)
            ratios.append((their_ms / (our_ms - hash_ms), their_ms / our_ms))
            compared = f"{ratios[-1][0]:7.2f} {ratios[-1][1]:10.2f} {max(differences):11.3f}"
            print(f"{name:10} {their_ms:12.1f} {our_ms:8.1f} {hash_ms:8.1f} {compared}", flush=True)
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
