"""Sex, age and view of a DICOM file."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from engine.data.sources.rsna import Described, described


@pytest.fixture
def write(make_studies, tmp_path):
    def save(**attributes) -> Path:
        data: Dataset = make_studies.chest_dataset(np.full((8, 8), 300, np.uint16), "a", make_studies.SYNTAXES[0])
        for keyword in ("PatientSex", "PatientAge", "ViewPosition"):
            if keyword in data:
                del data[keyword]
        for keyword, value in attributes.items():
            setattr(data, keyword, value)
        data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        return tmp_path / "a.dcm"

    return save


def test_what_the_header_says_is_told_as_it_is_written(write):
    assert described(write(PatientSex="F", PatientAge="063Y", ViewPosition="AP")) == Described("F", "063Y", "AP")


@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")  # of this test's own writing
def test_an_age_without_its_unit_is_passed_on(write):
    assert described(write(PatientAge="51")).age == "51"


def test_absent_attributes_are_blank(write):
    assert described(write()) == Described("", "", "")


@pytest.mark.parametrize("content", [b"", b"no DICOM", b"\0" * 128 + b"DICM" + b"\xff" * 40])
def test_a_file_that_is_no_dicom_says_nothing(tmp_path, content):
    (tmp_path / "a.dcm").write_bytes(content)
    assert described(tmp_path / "a.dcm") == Described()
    assert described(tmp_path / "absent.dcm") == Described()


def test_free_text_is_not_passed_on(write):
    assert described(write(ViewPosition="PA")).view == "PA"
    path = write(ViewPosition="PA")
    raw = path.read_bytes()
    at = raw.index(b"\x18\x00\x01\x51CS")
    name = b"DOE^JANE 1957 WARD B "[:20].ljust(20)
    path.write_bytes(raw[:at] + b"\x18\x00\x01\x51CS" + len(name).to_bytes(2, "little") + name + raw[at + 10 :])
    assert described(path).view == ""
