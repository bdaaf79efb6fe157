"""A small seeded part of tests/benchmarks/dicom_fuzz.py: no mutant is lost, kills its worker or gets an answer off the lists."""

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from engine.dicom.reasons import FLAGS, REASONS
from engine.intake.workers import read_files

MUTANTS = 300


@pytest.fixture(scope="module")
def fuzz(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("tests/benchmarks/dicom_fuzz.py")


def test_the_pixel_data_is_found_in_every_encoding(fuzz: ModuleType, make: SimpleNamespace) -> None:
    values = make.chest(96, 80)
    contents = {name: encode(values, 12) for name, encode in make.LOSSLESS.items()}
    starts = {name: content[fuzz.pixels_at(content) :][:2] for name, content in contents.items()}
    deflated = starts.pop("deflated")
    assert deflated == b"\0\0", "it starts with the preamble: nothing of a deflated data set can be told apart"
    raw = values[:1, :1].tobytes()
    jpeg, j2k = b"\xff\xd8", b"\xff\x4f"
    assert starts == {
        "implicit": raw, "explicit": raw, "big_endian": raw[::-1], "rle": b"\2\0", "jpeg_lossless": jpeg, "jpegls": jpeg,
        "j2k": j2k, "htj2k": j2k,
    }  # fmt: skip


def test_no_mutant_is_lost(fuzz: ModuleType, make: SimpleNamespace, tmp_path: Path) -> None:
    values, rng = make.chest(96, 80), random.Random(0)
    bases = [encode(values, 12) for encode in (*make.LOSSLESS.values(), *make.LOSSY.values())]
    paths = [tmp_path / f"{number}.dcm" for number in range(MUTANTS)]
    for number, path in enumerate(paths):
        path.write_bytes(fuzz.mutant(bases[number % len(bases)], rng))
    readings = list(read_files(iter(paths), size=64, workers=1))
    assert [each.path for each in readings] == paths
    for each in readings:
        assert each.reason not in ("decode_crash", "decode_timeout"), each.path.name
        assert each.outcome == ("score" if each.reason is None else REASONS[each.reason].outcome)
        assert (each.image is not None) == (each.outcome == "score")
        assert set(each.flags) <= set(FLAGS)
    assert {"score", "reject"} <= {each.outcome for each in readings}
