from __future__ import annotations

from typing import Any

import pytest

from engine.data.sources.findings import TableFindings, implied, table_findings
from engine.data.sources.table_rows import Row
from engine.errors import ConfigError, LabelsError
from engine.recipe.sources import TableSource


def source(**keys: Any) -> TableSource:
    return TableSource(file="t.csv", **keys)


def read(columns: dict[str, list[str]], **keys: Any) -> TableFindings:
    cells = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    rows = [Row(k, "", "", "", "", "", "", "", "", each, ragged=False, left_out=False) for k, each in enumerate(cells, 1)]
    return table_findings(rows, list(columns), source(**keys))


def test_what_is_implied_is_implied_all_the_way() -> None:
    recipe = source(labels="labels", implies={"Bacterial": {"Pneumonia": 1}, "Pneumonia": {"Lung Opacity": 1, "No Finding": 0}})
    found = implied(["Bacterial"], [], recipe)
    assert found.present == ("Bacterial", "Lung Opacity", "Pneumonia")
    assert found.absent == ("No Finding",)
    assert not found.contradicts


def test_a_circle_of_implications_ends() -> None:
    assert implied(["B"], [], source(implies={"A": {"B": 1}, "B": {"A": 1}})).present == ("A", "B")


def test_present_and_absent_at_once_contradicts() -> None:
    assert read({"labels": ["No Finding|Edema"]}, labels="labels", implies={"No Finding": {"Edema": 0}}).rows[0].contradicts


def test_only_a_labelled_row_says_that_something_is_absent() -> None:
    found = read({"labels": [" | ", "Fracture"]}, labels="labels", exhaustive=("Edema",))
    assert [each.values for each in found.rows] == [{}, {"Edema": 0, "Fracture": 1}]


def test_a_cell_that_is_no_label_is_an_error_without_its_value() -> None:
    with pytest.raises(LabelsError, match="row 1 of the labels, column 'Edema'") as raised:
        read({"Edema": ["Mr Smith"]})
    assert "Smith" not in str(raised.value)


def test_two_columns_of_one_finding_are_refused() -> None:
    with pytest.raises(ConfigError, match="same finding"):
        read({"Effusion": ["1"], "Pleural Effusion": ["1"]}, rename={"Effusion": "Pleural Effusion"})


def test_a_finding_is_known_in_any_case_and_others_by_rename_or_by_name() -> None:
    cells = {"pneumonia": "1", "PLEURAL_EFFUSION": "0", "tb": "1", "edema": "0", "weight": "70", "Hernia": "1", "viral": "1"}
    table = {name: [cell] for name, cell in cells.items()}
    found = read(table, rename={"tb": "Tuberculosis", "edema": None}, findings=("viral",))
    assert found.named == ("Pneumonia", "Pleural Effusion", "Tuberculosis", "viral")
    assert found.rows[0].values == {"Pneumonia": 1, "Pleural Effusion": 0, "Tuberculosis": 1, "viral": 1}
    assert found.unused == ("Hernia",)
    with pytest.raises(ConfigError, match="no column bacterial"):
        read({"viral": ["1"]}, findings=("bacterial", "viral"))


def test_a_column_of_classes_is_found_by_its_name_and_what_is_not_listed_is_absent() -> None:
    found = read({"Finding Labels": ["Edema|Effusion", "No Finding", ""], "note": ["x", "y", "z"]})
    assert [each.values for each in found.rows] == [
        {"Edema": 1, "Pleural Effusion": 1, "No Finding": 0}, {"Edema": 0, "Pleural Effusion": 0, "No Finding": 1}, {},
    ]  # fmt: skip
    assert "'Finding Labels' as a list of findings" in found.taken[0]
    other = read({"label": ["viral"] * 3})
    assert other.named == ()
    assert other.unread is not None
    assert other.unread[:2] == ("column 'label' lists 1 names that are no known finding", "viral")
    own = read({"label": ["viral", "bacterial", "asthma"]}, labels="label", unlisted="absent")
    assert own.rows[0].values == {"viral": 1, "bacterial": 0, "asthma": 0}


def test_uncertain_cells_are_read_by_the_policy_and_counted() -> None:
    found = read({"Edema": ["-1", "1"]}, uncertain="present")
    assert [each.values for each in found.rows] == [{"Edema": 1}, {"Edema": 1}]
    assert found.uncertain == 1
