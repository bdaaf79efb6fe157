"""calibration.json: maps from the scores of one model with one prompt recipe to probabilities, and the data they were fitted on.

    {"version": 1, "method": "platt", "aggregate": "mean",
     "model": {"name": ..., "sha256": ...}, "prompts": {"name": ..., "sha256": ...},
     "fitted_on": {...}, "findings": {"Pneumonia": {"slope": 1.9, "shift": -0.3, "n": 210, "n_positive": 140, "patients": 190}}}

A study's score s becomes sigmoid(slope * logit(s) + shift). A finding without slope has a `reason`, and its scores stay as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, InputMissing, ReadError
from engine.tables.columns import NOTICE, file_hash
from engine.tables.run_log import publish_json

VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """A calibration that matches the run.

    Attributes:
        slopes: finding -> (slope > 0, shift), for the findings that have a map.
        sha256: of the file.
        about: all other keys of the file.
    """

    slopes: Mapping[str, tuple[float, float]]
    sha256: str
    about: Mapping[str, Any]


def write_calibration(path: Path, contents: Mapping[str, Any]) -> None:
    """Publish calibration.json.

    Raises:
        OutputError: it cannot be written.
    """
    publish_json(path, {"notice": NOTICE, "version": VERSION, **contents})


def read_calibration(path: Path, *, model: str, prompts: str, aggregate: str) -> Calibration:
    """The calibration in a file, checked against what it is to be applied to.

    Args:
        model: the model's content hash.
        prompts: SHA-256 of the prompt recipe's file.
        aggregate: how images become studies.

    Raises:
        InputMissing, ReadError: the file.
        ConfigError: it is no calibration, of a newer version, or of another model, prompts or aggregate.
    """
    try:
        stored = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputMissing("the calibration file does not exist", hint="mmclip evaluate RECIPE --calibrate writes one") from None
    except OSError as error:
        raise ReadError("the calibration file cannot be read", why=type(error).__name__) from None
    except ValueError:
        raise ConfigError("the calibration file is no JSON", hint="the calibration.json of mmclip evaluate --calibrate") from None
    try:
        version = int(stored["version"])
        theirs = {
            "model": stored["model"]["sha256"],
            "prompts": stored["prompts"]["sha256"],
            "aggregate": stored["aggregate"],
        }
        slopes = {
            str(name): (float(each["slope"]), float(each["shift"]))
            for name, each in stored["findings"].items()
            if each.get("slope") is not None
        }
        sound = all(math.isfinite(slope) and slope > 0 and math.isfinite(shift) for slope, shift in slopes.values())
    except (KeyError, TypeError, ValueError, AttributeError):
        sound, version, theirs, slopes = False, VERSION, {}, {}
    if version > VERSION:
        raise ConfigError("the calibration file was written by a newer version", hint="that version, or fit it again")
    if not sound:
        raise ConfigError("the calibration file was not written by mmclip", hint="fit it again with mmclip evaluate --calibrate")
    mine = {"model": model, "prompts": prompts, "aggregate": aggregate}
    other = [name for name in mine if mine[name] != theirs[name]]
    if other:
        raise ConfigError(
            f"the calibration was fitted for {' and '.join('another ' + name for name in other)}",
            why="a map holds for one model with one prompt recipe",
            hint="fit it again with mmclip evaluate --calibrate",
        )
    about = {key: value for key, value in stored.items() if key not in ("findings", "notice")}
    return Calibration(slopes, file_hash(path), about)
