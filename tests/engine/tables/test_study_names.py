"""Scored studies by the names that labels give them."""

from pathlib import Path

import pytest

from engine.tables.study_names import StudyNames, key_form

FOLDER = Path("/data/labels")
NAMES = StudyNames(
    {"aa": "", "bb": ""},
    lambda key: {"1.2": ["aa"], "1.3": ["zz"]}.get(key, []),
    [("/data/in/a.PNG", "aa"), ("in/b.dcm", "bb"), ("/data/labels/x/c.png", "aa"), ("/data/in/twice.png", "aa"), ("/else/twice.png", "bb")],
)


@pytest.mark.parametrize(
    ("key", "study"), [("aa", "aa"), ("AA", "aa"), ("1.2", "aa"), ("'1.2", "aa"), ('="1.2"', "aa"), ("1.3", None), ("x", None)]
)
def test_a_study_is_named_by_its_pseudonym_or_uid(key, study):
    assert NAMES.study(key) == study


@pytest.mark.parametrize(
    ("key", "study"),
    [
        ("/data/in/a.PNG", "aa"), ("/data/in/A.png", "aa"), ("../in/a.PNG", "aa"), ("..\\in\\a.PNG", "aa"), ("in/b.dcm", "bb"),
        ("b.dcm", "bb"), ("b", "bb"), ("x/c.png", "aa"), ("twice.png", None), ("in/none.png", None),
    ],
)  # fmt: skip
def test_a_file_is_named_by_its_path_or_by_a_name_that_one_study_has(key, study):
    assert NAMES.study_of_file(key, FOLDER) == study


def test_the_form_of_a_key_shows_no_content():
    assert key_form("1.2.840.5") == "9.9.999.9"
    assert key_form("Doe_1931") == "aaa_9999"
    assert len(key_form("1" * 64)) == 40
