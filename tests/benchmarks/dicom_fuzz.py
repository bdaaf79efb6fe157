"""Read seeded mutants of DICOM files in the worker processes: no row may be lost, no crash may reach this process.

    python tests/benchmarks/dicom_fuzz.py FOLDER [--mutants 20000] [--seed 0] [--workers 2] [--keep FOLDER]

FOLDER holds the base files (ten, one per transfer syntax, are enough). A mutant gets one to eight changes: bytes of the header, lengths,
bytes of the pixels (one mutant in three: of nothing else), a cut, a repeated or a removed stretch. Prints outcomes, the slowest file and
the largest memory of a worker; exits 1 where a row is lost or a worker died or hung (those mutants are kept with --keep, each the start of
a test).
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from engine.intake.workers import read_files

SPECIAL = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
LENGTHS = (0, 1, 2, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF)


def pixels_at(content: bytes) -> int:
    """Where the pixel data starts: past its element header, offset table and item header; 0 where the data set is deflated."""
    found = [at for tag in (b"\xe0\x7f\x10\0", b"\x7f\xe0\0\x10") if (at := content.find(tag)) >= 0]
    if not found:
        return 0
    at = min(found)
    at += 12 if content[at + 4 : at + 6] in (b"OB", b"OW") else 8
    if content[at : at + 4] != b"\xfe\xff\x00\xe0":
        return at
    return at + 16 + int.from_bytes(content[at + 4 : at + 8], "little")


def mutant(base: bytes, rng: random.Random) -> bytes:
    """One mutant of a file: of three, two change anything, mostly in the first 2,000 bytes, and one bytes of the pixel data alone."""
    content = bytearray(base)
    start = pixels_at(base)
    if start and rng.random() < 1 / 3:
        for _ in range(rng.randint(1, 8)):
            # half of them in the head of the codestream, where its sizes and tables are
            at = rng.randrange(start, min(start + 300, len(content)) if rng.random() < 0.5 else len(content))
            content[at] = rng.choice(SPECIAL) if rng.random() < 0.4 else rng.randrange(256)
        return bytes(content)
    for _ in range(rng.randint(1, 8)):
        reach = len(content) if rng.random() < 0.35 else min(2000, len(content))
        at = rng.randrange(min(132, reach - 1), reach) if reach > 133 else 0
        kind = rng.random()
        if kind < 0.45:
            content[at] = rng.choice(SPECIAL) if rng.random() < 0.4 else rng.randrange(256)
        elif kind < 0.75:
            width = rng.choice("HI")
            content[at : at + struct.calcsize(width)] = struct.pack(
                f"<{width}", rng.choice(LENGTHS) & (0xFFFF if width == "H" else 0xFFFFFFFF)
            )
        elif kind < 0.85:
            length = rng.randrange(1, 200)
            content[at:at] = content[at : at + length]
        elif kind < 0.95:
            del content[at : at + rng.randrange(1, 200)]
        else:
            del content[rng.randrange(len(content) // 3, len(content)) :]
        if len(content) < 200:
            break
    return bytes(content)


def main() -> int:
    """Write mutants one by one, read them, delete them."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--mutants", type=int, default=20_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--keep", type=Path)
    given = arguments.parse_args()
    bases = [path.read_bytes() for path in sorted(given.folder.iterdir()) if path.is_file()]
    rng = random.Random(given.seed)
    outcomes: Counter[str] = Counter()
    slowest, lost = 0.0, []
    with tempfile.TemporaryDirectory() as scratch:

        def mutants() -> Iterator[Path]:
            for number in range(given.mutants):
                path = Path(scratch) / f"{number}.dcm"
                path.write_bytes(mutant(bases[number % len(bases)], rng))
                yield path

        rows, last, began = 0, time.monotonic(), time.monotonic()
        for reading in read_files(mutants(), size=224, workers=given.workers):
            now = time.monotonic()
            slowest, last, rows = max(slowest, now - last), now, rows + 1
            outcomes[f"{reading.outcome}:{reading.reason}" if reading.reason else "score"] += 1
            if reading.reason in ("decode_crash", "decode_timeout"):
                lost.append(reading.path.name)
                if given.keep:
                    given.keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(reading.path, given.keep)
            reading.path.unlink()
    for outcome, count in outcomes.most_common():
        print(f"{count:7} {outcome}")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    print(f"{rows} of {given.mutants} rows in {time.monotonic() - began:.0f} s, longest wait {slowest:.2f} s, largest worker {memory} MB")
    print(f"{len(lost)} workers lost: {' '.join(lost[:20])}")
    return int(rows != given.mutants or bool(lost))


if __name__ == "__main__":
    sys.exit(main())
