"""calibration.json: written, read back, and refused where it does not fit."""

import json

import pytest

from engine.errors import ConfigError, InputMissing
from engine.tables.calibrations import read_calibration, write_calibration

CONTENTS = {
    "method": "platt",
    "aggregate": "mean",
    "model": {"name": "toy", "sha256": "m"},
    "prompts": {"name": "chest14", "sha256": "p"},
    "findings": {"Edema": {"slope": 2.0, "shift": -1.0, "n": 20}, "Fracture": {"reason": "0 positives", "n": 20}},
}
FITS = {"model": "m", "prompts": "p", "aggregate": "mean"}


def test_what_was_written_is_read_back(tmp_path):
    write_calibration(tmp_path / "c.json", CONTENTS)
    found = read_calibration(tmp_path / "c.json", **FITS)
    assert found.slopes == {"Edema": (2.0, -1.0)}
    assert found.about["model"]["name"] == "toy"
    assert "findings" not in found.about


@pytest.mark.parametrize("name", FITS)
def test_another_model_prompts_or_aggregate_is_refused(tmp_path, name):
    write_calibration(tmp_path / "c.json", CONTENTS)
    with pytest.raises(ConfigError, match=f"another {name}"):
        read_calibration(tmp_path / "c.json", **FITS | {name: "x"})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 2}, "newer version"),
        ({"findings": {"Edema": {"slope": -1.0, "shift": 0.0}}}, "not written by mmclip"),
        ({"findings": {"Edema": {"slope": "steep", "shift": 0.0}}}, "not written by mmclip"),
        ({"model": None}, "not written by mmclip"),
        ({"findings": []}, "not written by mmclip"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(tmp_path, change, why):
    (tmp_path / "c.json").write_text(json.dumps({"version": 1, **CONTENTS} | change))
    with pytest.raises(ConfigError, match=why):
        read_calibration(tmp_path / "c.json", **FITS)


def test_no_file_and_no_json_are_told_apart(tmp_path):
    with pytest.raises(InputMissing):
        read_calibration(tmp_path / "none.json", **FITS)
    (tmp_path / "c.json").write_text("slope: 1")
    with pytest.raises(ConfigError, match="no JSON"):
        read_calibration(tmp_path / "c.json", **FITS)
