"""What `mmclip ingest` spends on a picture, in the sizes and encodings of published data sets: CPU time, and pictures a second.

    python tests/benchmarks/ingest.py [--pictures 48] [--workers 1 2]

The pictures are synthetic chests (examples/make_studies.py) blown up to the published sizes, with grain: JPEG at quality 95
(MIMIC-CXR-JPG), 16-bit PNG (PadChest), uncompressed 12-bit DICOM (MIMIC-CXR). CPU time is that of one process without the sandbox;
pictures a second are wall clock from disk cache with the start of the processes in it, and mean something on an idle machine alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
from PIL import Image

from engine.data.build_store import build_store
from engine.intake.workers import read_files

MAKE = Path(__file__).resolve().parents[2] / "examples" / "make_studies.py"


def make_studies() -> ModuleType:
    """The module examples/make_studies.py."""
    spec = importlib.util.spec_from_file_location("make_studies", MAKE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(folder: Path, kind: str, pictures: int) -> list[Path]:
    """So many files of one kind."""
    studies, rng = make_studies(), np.random.default_rng(0)
    drawn = studies.draw_chest("clear", rng)
    paths = []
    for number in range(pictures):
        rows, columns = (2500, 2048) if kind == "png" else (3056, 2544)
        large = np.asarray(Image.fromarray((drawn >> 4).astype(np.uint8)).resize((columns, rows), Image.Resampling.BICUBIC), np.uint16)
        grained = np.clip((large << 4) + rng.integers(0, 48, large.shape, np.uint16), 0, 4095)
        path = folder / f"{number}.{kind}"
        if kind == "dcm":
            studies.chest_dataset(grained, str(number), studies.SYNTAXES[0], seed=number).save_as(path, enforce_file_format=True)
        elif kind == "png":
            Image.fromarray(grained).save(path, compress_level=3)
        else:
            Image.fromarray((grained >> 4).astype(np.uint8)).save(path, quality=95)
        paths.append(path)
    return paths


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--pictures", type=int, default=48)
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = arguments.parse_args()
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{cores} cores, load {load:.1f}; {options.pictures} pictures of each kind, made 256 pixels")
    heads = "".join(f"{f'{workers} workers, /s':>15}" for workers in options.workers)
    print(f"{'kind':<6}{'MB each':>9}{'CPU ms each':>13}{heads}")
    with tempfile.TemporaryDirectory() as made:
        for kind in ("jpg", "png", "dcm"):
            folder = Path(made) / kind
            folder.mkdir()
            paths = written(folder, kind, options.pictures)
            frame = pl.DataFrame({"image": [path.name for path in paths], "file": [str(path) for path in paths]})
            began = time.process_time()
            readings = list(read_files(paths, size=256, workers=0, plain_images=True))
            spent = (time.process_time() - began) / len(paths) * 1000
            assert all(reading.image is not None for reading in readings)
            speeds = []
            for workers in options.workers:
                began = time.monotonic()
                store = build_store(frame, folder / f"store-{workers}", 256, workers=workers)
                speeds.append(len(paths) / (time.monotonic() - began))
                assert len(store.pixels) == len(paths), store.dropped()
            size = sum(path.stat().st_size for path in paths) / len(paths) / 1e6
            print(f"{kind:<6}{size:>9.1f}{spent:>13.0f}" + "".join(f"{speed:>15.1f}" for speed in speeds))


if __name__ == "__main__":
    main()
