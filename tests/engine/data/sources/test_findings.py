from __future__ import annotations

from typing import Any

import pytest

from engine.data.sources.findings import finding_columns, findings_of
from engine.errors import ConfigError
from engine.recipe.sources import TableSource


def source(**keys: Any) -> TableSource:
    return TableSource(file="t.csv", **keys)


def test_what_is_implied_is_implied_all_the_way() -> None:
    recipe = source(labels="labels", implies={"Bacterial": {"Pneumonia": 1}, "Pneumonia": {"Lung Opacity": 1, "No Finding": 0}})
    found = findings_of({"labels": "Bacterial"}, {}, recipe)
    assert found.present == ("Bacterial", "Lung Opacity", "Pneumonia")
    assert found.absent == ("No Finding",)
    assert not found.contradicts


def test_a_circle_of_implications_ends() -> None:
    recipe = source(labels="labels", implies={"A": {"B": 1}, "B": {"A": 1}})
    assert findings_of({"labels": "B"}, {}, recipe).present == ("A", "B")


def test_present_and_absent_at_once_contradicts() -> None:
    recipe = source(labels="labels", implies={"No Finding": {"Edema": 0}})
    assert findings_of({"labels": "No Finding|Edema"}, {}, recipe).contradicts


def test_only_a_labelled_row_says_that_something_is_absent() -> None:
    recipe = source(labels="labels", exhaustive=("Edema",))
    assert findings_of({"labels": " | "}, {}, recipe).values == {}
    assert findings_of({"labels": "Fracture"}, {}, recipe).values == {"Edema": 0, "Fracture": 1}


def test_a_cell_that_is_no_label_is_an_error_without_its_value() -> None:
    recipe = source()
    columns = finding_columns(["file", "Edema"], recipe)
    with pytest.raises(ConfigError, match="column Edema") as raised:
        findings_of({"Edema": "Mr Smith"}, columns, recipe)
    assert "Smith" not in str(raised.value)


def test_two_columns_of_one_finding_are_refused() -> None:
    with pytest.raises(ConfigError, match="same finding"):
        finding_columns(["Effusion", "Pleural Effusion"], source(rename={"Effusion": "Pleural Effusion"}))


def test_a_finding_is_known_in_any_case_and_others_by_rename_alone() -> None:
    source = TableSource(file="t.csv", rename={"tb": "Tuberculosis", "edema": None})
    columns = finding_columns(["file", "pneumonia", " PLEURAL_EFFUSION ", "tb", "edema", "weight"], source)
    assert columns == {"pneumonia": "Pneumonia", " PLEURAL_EFFUSION ": "Pleural Effusion", "tb": "Tuberculosis"}
