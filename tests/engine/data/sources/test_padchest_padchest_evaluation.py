"""The physician-labelled images of PadChest, and which findings are judged on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.data.sources import read_sources
from engine.data.sources.padchest import (
    NO_FINDING,
    SEEN,
    finding_labels,
    label_counts,
    padchest_rows,
    padchest_table,
    read_padchest_evaluation,
)
from engine.data.sources.published import PADCHEST_TABLE
from engine.errors import ConfigError
from engine.recipe.labelled_sources import PADCHEST_SEEN, PadchestEvaluationSource


def source(root: Path, **keys: Any) -> PadchestEvaluationSource:
    return PadchestEvaluationSource.model_validate({"kind": "padchest_evaluation", "root": str(root), **keys})


def row(image: str, labels: str, **cells: str) -> dict[str, str]:
    return {
        "ImageID": f"{image}.png",
        "PatientID": f"p{image}",
        "StudyID": f"s{image}",
        "MethodLabel": "Physician",
        "Labels": labels,
        **cells,
    }


ROWS = [
    row("a", "['pulmonary edema', ' pneumonia ', '']"),
    row("b", "['atypical pneumonia', 'rib fracture']", Projection="L"),
    row("c", "['normal']", ImageDir="1"),
    row("d", "nan"),
    row("e", "['pneumonia']", MethodLabel="RNN_model"),
]


def test_labels_are_whole_items_and_only_physicians_labels_count(make_padchest: Callable[..., Path]) -> None:
    table = read_sources([source(make_padchest(ROWS, zipped=["1"]))])
    assert table.findings == PADCHEST_SEEN
    assert table.frame["image"].to_list() == ["0/a.png", "0/b.png", "1/c.png"]
    assert table.frame["file"][2].endswith("/1.zip/c.png")
    assert table.frame["Edema"].to_list() == [1, 0, 0] and table.frame["Pneumonia"].to_list() == [1, 0, 0]
    assert table.frame["Fracture"].to_list() == [0, 0, 0]
    assert table.frame["split"].to_list() == ["test"] * 3 and table.frame["held_out"].all()
    assert table.facts["dropped"] == {"no_label": 1} and table.facts["rows"] == 4


def test_projections_leave_pictures_out_and_the_split_as_it_is(make_padchest: Callable[..., Path]) -> None:
    root = make_padchest(ROWS)
    whole, frontal = read_padchest_evaluation(source(root)), read_padchest_evaluation(source(root, projections=["PA", "AP"]))
    assert frontal.frame["view"].to_list() == ["PA", "PA"] and frontal.facts["dropped"] == {"no_label": 1, "other_view": 1}
    assert frontal.facts["split"]["sha256"] == whole.facts["split"]["sha256"]
    assert (frontal.facts["split"]["n"], frontal.facts["split"]["there"]) == (3, 2)


def test_unseen_findings_are_the_most_frequent_by_count_then_alphabet() -> None:
    labels = [["scoliosis", "normal"]] * 6 + [["nodule", "pneumonia"]] * 6 + [["goiter"]] * 5 + [["empyema"]] * 4
    table = pl.DataFrame({"labels": labels})
    assert list(label_counts(table).items())[:2] == [("nodule", 6), ("normal", 6)]
    assert list(finding_labels(table, "unseen_173")) == ["nodule", "scoliosis", "goiter"]
    assert list(finding_labels(table, "unseen_10")) == ["nodule", "scoliosis", "goiter"]
    assert finding_labels(table, "seen_8") == SEEN


def test_a_folder_without_the_table_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sources\.0\.root: no label table there"):
        read_sources([source(tmp_path)])


@pytest.fixture(scope="module")
def real(real_table: Callable[[str], Path]) -> pl.DataFrame:
    return padchest_table(real_table(PADCHEST_TABLE))


def test_the_real_physicians_labelled_39_053_images_with_193_labels(real: pl.DataFrame) -> None:
    rows = padchest_rows(real, source(Path()))
    assert len(rows.frame) == 39_053 and rows.frame["reason"].null_count() == 39_053
    assert rows.frame["patient"].n_unique() == 24_491 and rows.frame["study"].n_unique() == 26_413
    assert rows.facts["labels"] == 193
    assert {finding: int(rows.frame[finding].sum()) for finding in rows.findings} == {
        "Atelectasis": 676, "Cardiomegaly": 3_746, "Consolidation": 364, "Edema": 87, "Fracture": 14, "Pleural Effusion": 1_748,
        "Pneumonia": 1_780, "Pneumothorax": 98,
    }  # fmt: skip


def test_the_rule_finds_the_papers_173_unseen_findings_in_the_real_table(real: pl.DataFrame) -> None:
    physicians = real.filter("physician")
    unseen = list(finding_labels(physicians, "unseen_173"))
    assert len(unseen) == 173
    assert list(finding_labels(physicians, "unseen_10")) == unseen[:10] == [
        "COPD signs", "chronic changes", "aortic elongation", "scoliosis", "vertebral degenerative changes", "air trapping",
        "interstitial pattern", "costophrenic angle blunting", "aortic atheromatosis", "apical pleural thickening",
    ]  # fmt: skip
    assert list(finding_labels(physicians, "unseen_20")) == unseen[:20]
    assert unseen[10:20] == [
        "kyphosis", "infiltrates", "vascular hilar enlargement", "laminar atelectasis", "alveolar pattern", "fibrotic band", "pacemaker",
        "increased density", "pseudonodule", "volume loss",
    ]  # fmt: skip
    left_out = set(label_counts(physicians)) - set(unseen) - set(SEEN) - set(NO_FINDING)
    assert left_out == {
        "breast mass", "double J stent", "empyema", "esophagic dilatation", "lipomatosis", "nephrostomy tube", "pleural mass",
        "round atelectasis",
    }  # fmt: skip
