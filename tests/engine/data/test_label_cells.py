"""Label cells: one reading of every spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.label_cells import LabelPolicy, could_be_labels, match_findings, near_finding, read_cell, read_column, split_listing
from engine.errors import LabelsError

FINDINGS = ("No Finding", "Edema", "Pleural Effusion", "Pneumonia")


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        (("1", "1.0", "1.", "01", "TRUE", "True", "yes", "Y", "positive", " 1 ", "1,0"), 1),
        (("0", "0.0", "FALSE", "no", "N", "negative", "absent", "-0"), 0),
        (("", " ", "NA", "n/a", "None", "nan", "NULL", "?", "unknown", "#N/A", "<NA>", None), None),
    ],
)
def test_every_spelling_of_a_label(cells, value):
    assert {read_cell(cell) for cell in cells} == {(value, False)}


@pytest.mark.parametrize("cell", ["-1", "-1.0", "u", "U", "uncertain"])
@pytest.mark.parametrize(("uncertain", "value"), [("unknown", None), ("present", 1), ("absent", 0)])
def test_uncertain_is_what_the_policy_says(cell, uncertain, value):
    assert read_cell(cell, LabelPolicy(uncertain)) == (value, True)


@given(st.floats(0.001, 0.999))
def test_a_soft_label_needs_a_threshold(value):
    with pytest.raises(ValueError, match="soft"):
        read_cell(f"{value:.6f}")
    assert read_cell(f"{value:.6f}", LabelPolicy(threshold=0.5)) == (int(float(f"{value:.6f}") >= 0.5), False)


@given(st.text())
def test_any_text_is_a_label_or_an_error(text):
    try:
        value, _ = read_cell(text)
    except ValueError:
        return
    assert value in (0, 1, None)


def test_an_error_names_row_and_column_and_repeats_no_name():
    with pytest.raises(LabelsError, match=r"row 7 of the labels, column 'Edema', holds text that is no label") as error:
        read_column(["1", "Mr Smith"], "Edema", LabelPolicy(), numbers=[3, 7])
    assert "Smith" not in str(error.value)


def test_findings_go_by_name_then_by_synonym_and_a_near_name_is_an_error():
    found = match_findings({"PNEUMONIA": ["1"], "Effusion": ["0"], "weight": ["70"], "Hernia": ["1"]}, FINDINGS)
    assert found.columns == {"PNEUMONIA": "Pneumonia", "Effusion": "Pleural Effusion"}
    assert (found.unused, found.taken) == (("Hernia",), ("'Effusion' as Pleural Effusion",))
    for name in ("Pnuemonia", "Pneumona", "Pleural Efusion"):
        with pytest.raises(LabelsError, match="nearly spelled like"):
            match_findings({name: ["1", "0"]}, FINDINGS)
    assert match_findings({"Pneumonia note": ["text"]}, FINDINGS).columns == {}


def test_a_rename_decides_and_null_drops():
    found = match_findings({"tb": ["1"], "Edema": ["1"]}, FINDINGS, rename={"tb": "Tuberculosis", "Edema": None})
    assert found.columns == {"tb": "Tuberculosis"}
    assert found.unused == ()


def test_columns_that_could_be_labels():
    assert could_be_labels(["1", "", "no", "0.5"])
    assert not could_be_labels(["", None])
    assert not could_be_labels(["1", "2"])
    assert near_finding("Hernia", FINDINGS) is None


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        *((cell, ["A", "B"]) for cell in ("A|B", "A; B", "A, B", "['A', 'B']", '["A", "B"]', "[A, B]", "A|B|A")),
        ("A", ["A"]),
        ("NA", []),
        ("", []),
    ],
)
def test_names_in_a_cell(cell, names):
    assert split_listing(cell) == names
