"""`mmclip score` over very many files, twice: memory as the rows grow, the first row that no kill can take away, files a second.

    python tests/benchmarks/dicom_load.py [--files 100000] [--links 10000] [--workers 2] [--model MODEL] [--scratch FOLDER]

The files are drawn chests (examples/make_studies.py) of 256 x 218 pixels and 8 bits, each with UIDs, a patient and pixels of its own;
--links of them are hard links to others. The second run meets the same folder and knows every file.
The model is `tiny` unless another is named.
Exits 1 where a row is missing or a run fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from io import BytesIO
from pathlib import Path

import numpy as np

MAKE = Path(__file__).resolve().parents[2] / "examples" / "make_studies.py"
ROOT = "1.2.826.0.1.3680043.10.1313"
FIRST = 1_000_000
A_FOLDER = 500
NOISE = 4096
"""Pixels of every file that are its own."""


def base_files() -> list[bytes]:
    """Six drawn chests as small DICOM files, whose UIDs and patient end in FIRST."""
    spec = importlib.util.spec_from_file_location("make_studies", MAKE)
    assert spec is not None and spec.loader is not None
    studies = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(studies)
    contents = []
    for number in range(6):
        stored = studies.draw_chest(list(studies.KINDS)[number % 3], np.random.default_rng(number))
        rows, columns = (np.linspace(0, side - 1, round(side * 0.4)).astype(int) for side in stored.shape)
        small = (stored[np.ix_(rows, columns)] >> 4).astype(np.uint8)
        data = studies.chest_dataset(stored, "load", studies.SYNTAXES[0])
        data.Rows, data.Columns = small.shape
        data.BitsAllocated, data.BitsStored, data.HighBit, data.WindowCenter, data.WindowWidth = 8, 8, 7, "118.75", "225"
        data.PixelData, data["PixelData"].VR = small.tobytes(), "OB"
        for part, keyword in enumerate(("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"), 4):
            setattr(data, keyword, f"{ROOT}.{part}.{FIRST}")
        data.file_meta.MediaStorageSOPInstanceUID, data.PatientID = data.SOPInstanceUID, f"LOAD{FIRST}"
        stream = BytesIO()
        data.save_as(stream, enforce_file_format=True)
        contents.append(stream.getvalue())
    return contents


def make_files(folder: Path, files: int, links: int) -> None:
    """So many files, the last `links` of them hard links to earlier ones."""
    bases, rng = base_files(), np.random.default_rng(0)
    own = files - links
    for number in range(files):
        path = folder / f"{number // A_FOLDER:04}" / f"{number:07}.dcm"
        path.parent.mkdir(exist_ok=True)
        if number >= own:
            other = (number - own) % own
            os.link(folder / f"{other // A_FOLDER:04}" / f"{other:07}.dcm", path)
            continue
        content = bytearray(bases[number % len(bases)].replace(str(FIRST).encode(), str(FIRST + number).encode()))
        content[-NOISE:] = rng.integers(90, 110, NOISE, np.uint8).tobytes()
        path.write_bytes(content)


def megabytes(pid: int, field: str) -> float:
    """VmRSS or VmHWM of a process."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def watched_run(command: list[str], out: Path, shown: int) -> dict[str, object]:
    """Run it; prints its memory whenever `shown` more files have their rows, and the end; gives run.json's counts."""
    began = time.monotonic()
    run = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    first: list[float] = []

    def watch() -> None:
        while run.poll() is None and not first:
            if next((out / "table").rglob("part-*.parquet"), None):
                first.append(time.monotonic() - began)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert run.stderr is not None and run.stdout is not None
    drain = threading.Thread(target=run.stdout.read)
    drain.start()
    peak = 0.0
    for line in run.stderr:
        said = json.loads(line)
        peak = max(peak, megabytes(run.pid, "VmHWM"))
        if said["message"] == "scoring" and (said["files"] % shown == 0 or said["files"] == 1000):
            print(f"{said['files']:9,} files {time.monotonic() - began:8.1f} s {megabytes(run.pid, 'VmRSS'):8.0f} MB now", flush=True)
        elif said["message"] != "scoring":
            print(line, end="")
    drain.join()
    _, status, usage = os.wait4(run.pid, 0)
    run.returncode = os.waitstatus_to_exitcode(status)
    watcher.join()
    seconds = time.monotonic() - began
    first_part = f"first part of the table after {first[0]:.1f} s, " if first else ""
    print(f"{first_part}exit code {run.returncode}, {seconds:.0f} s, at most {usage.ru_maxrss / 1024:.0f} MB")
    if run.returncode:
        sys.exit(1)
    counts: dict[str, object] = json.loads((out / "run.json").read_text())["counts"]
    print("  ".join(f"{name} {count}" for name, count in counts.items()))
    return counts


def main() -> int:
    """Make the files, score them, score them again."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--files", type=int, default=100_000)
    arguments.add_argument("--links", type=int, default=10_000)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--model", default="tiny")
    arguments.add_argument("--scratch", type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        folder, out = Path(scratch, "in"), Path(scratch, "out")
        folder.mkdir()
        began = time.monotonic()
        make_files(folder, given.files, given.links)
        print(f"{given.files:,} files made in {time.monotonic() - began:.0f} s")
        command = [str(Path(sys.executable).with_name("mmclip")), "score", str(folder), "--prompts", "chest14", "--model", given.model]
        command += ["--out", str(out), "--workers", str(given.workers), "--device", "cpu"]
        whole = True
        for which in ("first run", "second run"):
            print(which)
            counts = watched_run(command, out, shown=max(1000, given.files // 5))
            whole &= (counts["files"], counts["score"], counts["duplicate"]) == (given.files, given.files - given.links, given.links)
        return int(not whole)


if __name__ == "__main__":
    sys.exit(main())
