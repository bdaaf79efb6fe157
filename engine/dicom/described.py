"""Sex, age and view as a DICOM file gives them: three attributes of its header, for subgroups of a data set that has them nowhere else."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import NamedTuple

import pydicom

import engine.dicom.header  # noqa: F401  # silences pydicom, whose messages quote values

KEYWORDS = ("PatientSex", "PatientAge", "ViewPosition")
CODE = re.compile(r"[A-Z0-9_]{1,16}")
"""One word of a code string (PS3.5 6.2, CS and AS); anything else is free text, and not passed on."""


class Described(NamedTuple):
    """PatientSex, PatientAge ("063Y"; some data sets write 63) and ViewPosition as they are written; "" where absent."""

    sex: str = ""
    age: str = ""
    view: str = ""


def described(path: Path) -> Described:
    """What the header says; nothing ("") of a file that cannot be read as DICOM. No pixel is read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(KEYWORDS))
            texts = [str(dataset.get(keyword) or "").strip() for keyword in KEYWORDS]
    except MemoryError:
        raise
    except Exception:  # pydicom raises almost anything on hostile bytes
        return Described()
    return Described(*(text if CODE.fullmatch(text) else "" for text in texts))
