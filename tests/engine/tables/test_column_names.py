"""Columns by the names that the field gives them."""

import pytest

from engine.errors import ConfigError
from engine.tables.column_names import columns_by_role, near_file_columns


@pytest.mark.parametrize(
    "name", ["patient", "patient_id", "subject_id", "PatientID", "Patient ID", "PATIENT", "Subject", "participant_id", "mrn", "patient_no"]
)
def test_the_patient_is_found_by_every_usual_name(name):
    assert columns_by_role(["file", name, "Edema"]).by_role["patient"] == name


@pytest.mark.parametrize("name", ["File", "Path", "path", "filename", "Image", "image_path", "Image Index", "ImageID", "dicom_id", "img"])
def test_the_file_is_found_by_every_usual_name_and_that_is_said(name):
    found = columns_by_role([name, "Edema"])
    assert found.by_role == {"file": name}
    assert (found.taken == "") == (name == "File")


def test_the_layouts_of_public_data_sets():
    nih = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position"]
    assert columns_by_role(nih).by_role == {
        "file": "Image Index", "patient": "Patient ID", "age": "Patient Age", "sex": "Patient Gender", "view": "View Position",
    }  # fmt: skip
    chexpert = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding"]
    assert columns_by_role(chexpert).by_role == {"file": "Path", "sex": "Sex", "age": "Age", "view": "AP/PA"}


def test_what_the_user_names_is_taken_before_anything_else():
    found = columns_by_role(["file", "patient", "case"], {"patient": "case"})
    assert found.by_role == {"patient": "case", "file": "file"}


@pytest.mark.parametrize("name", ["patient_numbr", "patinet_id", "Patient Name", "subjectid2", "pat_id", "patients"])
def test_a_name_that_may_be_the_patient_s_and_is_not_taken_is_an_error(name):
    with pytest.raises(ConfigError, match="looks like the patient's and is not taken"):
        columns_by_role(["file", name, "Edema"])
    assert columns_by_role(["file", name, "patient"]).by_role["patient"] == "patient"


@pytest.mark.parametrize("name", ["patient_weight", "Patient Birth Date", "pathology", "pattern", "note", "personal", "patch", "subset"])
def test_other_columns_are_no_patient(name):
    assert "patient" not in columns_by_role(["file", name]).by_role


def test_two_columns_that_may_be_the_patient_are_an_error():
    with pytest.raises(ConfigError, match="two columns may name the patient: 'patient_id' and 'subject_id'"):
        columns_by_role(["file", "patient_id", "subject_id"])


def test_the_column_that_was_perhaps_meant_for_files():
    assert near_file_columns(["fille", "Edema"]) == ["fille"]
    assert near_file_columns(["imagepaths", "Edema"]) == ["imagepaths"]
    assert near_file_columns(["Edema"]) == []
