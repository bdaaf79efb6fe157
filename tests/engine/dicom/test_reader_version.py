"""The reader's version: reference files come out as stored for it, and names of readers are understood.

Where a test fails with "raise READER_VERSION": add a line to CHANGES in engine/dicom/reader_version.py, then store the new values with
the command in the message.
"""

import base64
import hashlib
import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from engine.dicom import reader_version as module
from engine.dicom.reader_version import CHANGES, READER_VERSION, reader_version, same_readers, why_outdated

REFERENCE = Path(__file__).parent / "reader_reference.json"
WEIGHTS = Path(module.__file__).parent
COMMAND = "STORE_READER_REFERENCE=1 python -m pytest tests/engine/dicom/test_reader_version.py"
CELLS = 16
GREY, SHARPNESS = 2.0, 0.03
"""Tolerances between builds of the decoders: grey levels of a cell, and relative difference of the mean step between neighbours."""


def reference_files(make):
    """Name -> bytes of small radiographs: every encoding, and headers that lead to flags, other windows or a reason."""
    values = make.chest()
    files = {name: encode(values, 12) for name, encode in {**make.LOSSLESS, **make.LOSSY}.items()}
    for name in make.FRAMES:
        files[f"8 bit {name}"] = make.to_bytes(make.encoded(make.radiograph((values >> 4).astype(np.uint8), 8), name))
    bordered = values.copy()
    bordered[:12], bordered[:, :12] = 0, 0
    headers = {
        "inverse": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        "narrow window": {"WindowCenter": "1500", "WindowWidth": "700"},
        "useless window": {"WindowCenter": "128", "WindowWidth": "256"},
        "window off the data": {"WindowCenter": "60000", "WindowWidth": "100"},
        "sigmoid": {"VOILUTFunction": "SIGMOID"},
        "no window": {"WindowCenter": None, "WindowWidth": None},
        "slope": {"RescaleSlope": "0.5", "RescaleIntercept": "-100"},
        "not square": {"PixelAspectRatio": ["2", "1"]},
        "padding": {"PixelPaddingValue": 0},
        "turned": {"PatientOrientation": ["R", "F"]},
        "unknown view": {"ViewPosition": None},
        "lateral": {"ViewPosition": "LL"},
        "abdomen": {"BodyPartExamined": "ABDOMEN"},
        "computed tomography": {"Modality": "CT"},
        "for processing": {"PresentationIntentType": "FOR PROCESSING"},
        "no study": {"StudyInstanceUID": None},
        "burned in": {"BurnedInAnnotation": "YES"},
    }
    files |= {name: make.to_bytes(make.radiograph(bordered, **changes)) for name, changes in headers.items()}
    whole = files["jpeg_lossless"]
    return files | {"cut": whole[: len(whole) // 2], "no DICOM": b"text" * 200, "constant": make.to_bytes(make.radiograph(values * 0))}


def summary(reading):
    """What the cache keeps of a reading: its outcome, reason, flags, and pixels as cell means and mean step between neighbours."""
    kept = {
        "outcome": reading.outcome,
        "reason": reading.reason,
        "flags": sorted(reading.flags),
        "shape": None,
        "cells": None,
        "step": None,
    }
    if reading.image is not None:
        image = reading.image.astype(np.float64)
        rows, columns = (np.linspace(0, side, CELLS + 1).astype(int) for side in image.shape)
        cells = [[image[a:b, c:d].mean() for c, d in pairwise(columns)] for a, b in pairwise(rows)]
        kept["shape"], kept["step"] = list(image.shape), round(float(np.abs(np.diff(image)).mean()), 4)
        kept["cells"] = base64.b64encode(np.rint(cells).astype(np.uint8).tobytes()).decode()
    return kept


def differences(now, stored):
    """The names of what differs between two summaries."""
    found = [name for name in ("outcome", "reason", "flags", "shape") if now[name] != stored[name]]
    if not found and now["cells"]:
        new, old = (np.frombuffer(base64.b64decode(each["cells"]), np.uint8).astype(float) for each in (now, stored))
        steps = abs(now["step"] - stored["step"]) > SHARPNESS * stored["step"] + 0.01
        found += ["pixels"] if np.abs(new - old).max() > GREY or steps else []
    return found


def weights():
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(WEIGHTS.glob("*.npz"))}


@pytest.fixture(scope="module")
def now(make, tmp_path_factory):
    from engine.intake.reader import read_file

    folder = tmp_path_factory.mktemp("reference")
    (folder / "file").touch()
    summaries = {}
    for name, content in reference_files(make).items():
        (folder / "file").write_bytes(content)
        summaries[name] = summary(read_file(folder / "file", size=make.SIZE))
    return {"reader": READER_VERSION, "weights": weights(), "files": summaries}


@pytest.fixture(scope="module")
def stored(now):
    if os.environ.get("STORE_READER_REFERENCE"):
        lines = [f"  {json.dumps(name)}: {json.dumps(now['files'][name])}" for name in now["files"]]
        head = f'{{"reader": {READER_VERSION},\n "weights": {json.dumps(now["weights"])},\n "files": {{\n'
        REFERENCE.write_text(head + ",\n".join(lines) + "\n}}\n")
    return json.loads(REFERENCE.read_text())


def test_the_stored_values_are_of_this_version(stored):
    assert stored["reader"] == READER_VERSION, f"run {COMMAND}"


def test_reference_files_come_out_as_stored_for_this_version(now, stored):
    assert list(now["files"]) == list(stored["files"]), f"reference files were added or removed: run {COMMAND}"
    changed = {name: found for name, each in now["files"].items() if (found := differences(each, stored["files"][name]))}
    assert not changed, f"pixels/flags/reasons changed: raise READER_VERSION, describe it in CHANGES, and run {COMMAND}"


def test_weights_are_those_of_this_version(now, stored):
    message = f"weights changed: raise READER_VERSION, describe it in CHANGES, and run {COMMAND}"
    assert now["weights"] == stored["weights"], message


def test_references_cover_flags_and_reasons(stored):
    files = stored["files"].values()
    assert {each["outcome"] for each in files} >= {"score", "reject"}
    assert len({each["reason"] for each in files}) >= 8
    assert len({flag for each in files for flag in each["flags"]}) >= 6


def test_the_name_holds_the_version_and_the_decoders():
    words = reader_version().split()
    assert words[:2] == ["reader", str(READER_VERSION)]
    assert words[2::2] == list(module.DECODERS)


def test_versions_are_numbered_without_a_gap():
    assert list(CHANGES) == list(range(1, READER_VERSION + 1))


def test_rows_of_the_first_build_are_valid_until_the_version_is_raised(monkeypatch):
    first = "mmclip 0.1.0 30f181f3e214a6a7"
    monkeypatch.setattr(module, "READER_VERSION", 1)
    assert first in same_readers()
    monkeypatch.setattr(module, "READER_VERSION", 2)
    monkeypatch.setattr(module, "CHANGES", {1: "one", 2: "windows without a plateau"})
    assert same_readers() == ()
    assert "windows without a plateau" in why_outdated(first)


def test_it_says_why_rows_are_outdated():
    assert "development build" in why_outdated("mmclip 0.1.0 0123456789abcdef")
    assert "decoders" in why_outdated(f"reader {READER_VERSION} imagecodecs 1.0 pillow 1.0 simpleitk 1.0")
    assert "newer" in why_outdated(f"reader {READER_VERSION + 1} imagecodecs 1.0")
