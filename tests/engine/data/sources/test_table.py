from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.sources.image_table import COLUMNS, DROPS, ImageTable
from engine.data.sources.table import passages, read_table
from engine.errors import ConfigError, InputMissing
from engine.recipe.sources import PatientSplit, TableSource

PUBLISHED = Path(__file__).parents[5] / "shared/data/labels/Data_Entry_2017_v2020.csv.gz"


def source(table: Path, **keys: Any) -> TableSource:
    return TableSource(file=str(table), **keys)


def patients(count: int) -> list[dict[str, str]]:
    """Two images of each patient, with a report."""
    return [{"file": f"p{i // 2}/{i}.png", "patient": f"p{i // 2}", "report": f"Report {i}."} for i in range(2 * count)]


def test_a_column_called_file_is_all_a_table_needs(make_table: Any, tmp_path: Path) -> None:
    table = read_table(source(make_table([{"file": "a.png"}, {"file": "sub/b.png"}])))
    assert table.frame.columns == list(COLUMNS)
    assert table.frame["image"].to_list() == ["a.png", "sub/b.png"]
    assert table.frame["file"].to_list() == [str(tmp_path / "a.png"), str(tmp_path / "sub/b.png")]
    assert table.frame["paired"].to_list() == [False, False]
    assert table.frame["study"].n_unique() == table.frame["patient"].n_unique() == 2


def test_columns_go_by_the_names_that_the_recipe_gives(make_table: Any) -> None:
    rows = [{"path": "a.png", "subject": "p1", "exam": "s1", "text": "Clear lungs."}]
    path = make_table([{"file": "a.png"}], name="pictures.csv").with_name("t.csv")
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    columns = {"file": "path", "patient": "subject", "study": "exam", "report": "text"}
    row = read_table(source(path, columns=columns, name="mine")).frame.row(0, named=True)
    assert (row["patient"], row["study"], row["report"], row["paired"]) == ("mine:p1", "mine:s1", "Clear lungs.", True)


def test_what_cannot_be_used_is_dropped_with_its_reason(make_table: Any, tmp_path: Path) -> None:
    rows = [{"file": name, "labels": "Pneumonia"} for name in ["good.png", "gone.png", "", "empty.png", "pointer.png", "./good.png"]]
    rows.append({"file": "torn.png", "labels": "No Finding|Pneumonia"})
    path = make_table(rows)
    (tmp_path / "gone.png").unlink()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    with path.open("a") as out:
        out.write("ragged.png,Pneumonia,one cell too many\n")
    table = read_table(source(path, labels="labels", implies={"No Finding": {"Pneumonia": 0}}))
    assert table.frame["image"].to_list() == ["good.png"]
    assert table.dropped["reason"].to_list() == [
        "file_missing", "file_blank", "empty_file", "lfs_pointer", "duplicate_image", "labels_contradict", "row_ragged",
    ]  # fmt: skip
    assert set(table.dropped["reason"]) <= set(DROPS)
    assert table.facts["rows"] == table.facts["images"] + len(table.dropped) + table.facts["left_out"] == 8


def test_a_report_that_was_never_fetched_is_no_report(make_table: Any) -> None:
    rows = [{"file": "a.png", "report": "version https://git-lfs.github.com/spec/v1 oid"}, {"file": "b.png", "report": "Clear."}]
    table = read_table(source(make_table(rows)))
    assert table.dropped["reason"].to_list() == ["lfs_pointer"]


def test_rows_of_one_file_that_disagree_are_all_dropped_and_those_that_agree_are_one(make_table: Any) -> None:
    rows = [
        {"file": name, "Edema": label} for name, label in [("a.png", "1"), ("b.png", "0"), ("a.png", "0"), ("b.png", "0"), ("c.png", "")]
    ]
    table = read_table(source(make_table(rows)))
    assert table.frame["image"].to_list() == ["b.png", "c.png"]
    assert table.facts["dropped"] == {"duplicate_image": 1, "labels_disagree": 2}
    assert table.facts["rows"] == 5


def test_where_leaves_rows_out_and_counts_them(make_table: Any) -> None:
    rows = [{"file": f"{i}.png", "license": "CC BY 4.0" if i < 2 else "CC BY-NC 4.0"} for i in range(5)]
    table = read_table(source(make_table(rows), where={"license": ("CC BY 4.0",)}))
    assert (len(table.frame), table.facts["left_out"], len(table.dropped)) == (2, 3, 0)


def test_nothing_left_is_an_error_that_says_why(make_table: Any) -> None:
    path = make_table([{"file": "a.png", "set": "x"}, {"file": "b.png", "set": "y"}], pictures=False)
    with pytest.raises(ConfigError, match=r"1 rows: the file is not there; 1 rows are left out by `where`"):
        read_table(source(path, where={"set": ("x",)}))


def test_a_missing_table_and_missing_columns_are_named_with_the_nearest(make_table: Any, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="is missing"):
        read_table(source(tmp_path / "none.csv"))
    path = make_table([{"file": "a.png", "patient_id": "1", "label": "x"}])
    with pytest.raises(ConfigError, match=r"'labels' \(did you mean 'label'\?\).*'patientid' \(did you mean 'patient_id'\?\)"):
        read_table(source(path, labels="labels", columns={"patient": "patientid"}))


def test_labels_become_findings_and_blank_is_unknown(make_table: Any) -> None:
    labels = ["Effusion|Mass", "Healthy", "", "Hernia"]
    path = make_table([{"file": f"{i}.png", "labels": label} for i, label in enumerate(labels)])
    rename = {"Effusion": "Pleural Effusion", "Mass": "Lung Lesion", "Healthy": "No Finding", "Hernia": None}
    frame = read_table(source(path, labels="labels", rename=rename, exhaustive=("Pleural Effusion", "Edema"))).frame
    assert frame["Pleural Effusion"].to_list() == [1, 0, None, 0]
    assert frame["Edema"].to_list() == [0, 0, None, 0]
    assert frame["Lung Lesion"].to_list() == [1, None, None, None]
    assert frame["No Finding"].to_list() == [None, 1, None, None]
    assert frame["Edema"].dtype == pl.Int8


def test_finding_columns_are_read_where_there_is_no_list(make_table: Any) -> None:
    cells = ["1.0", "0.0", "-1.0", ""]
    path = make_table([{"file": f"{i}.png", "Edema": cell, "age": "63"} for i, cell in enumerate(cells)])
    table = read_table(source(path))
    assert table.findings == ("Edema",)
    assert table.frame["Edema"].to_list() == [1, 0, None, None]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), train=st.floats(0.1, 0.9), extra=st.integers(0, 3))
def test_every_image_of_a_patient_falls_on_one_side_whatever_else_the_table_holds(
    seed: int, train: float, extra: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "split"
    folder.mkdir(exist_ok=True)
    for row in patients(12):
        file = folder / row["file"]
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"not looked into")

    def sides(count: int) -> dict[str, set[tuple[bool, bool]]]:
        path = folder / "table.csv"
        rows = patients(count)
        path.write_text("file,patient,report\n" + "".join(f"{row['file']},{row['patient']},{row['report']}\n" for row in rows[::-1]))
        frame = read_table(source(path, split=PatientSplit(train=train, seed=seed), unpaired_share=0.5)).frame
        found: dict[str, set[tuple[bool, bool]]] = {}
        for row in frame.iter_rows(named=True):
            found.setdefault(row["patient"], set()).add((row["held_out"], row["paired"]))
        return found

    fewer, more = sides(9), sides(9 + extra)
    assert all(len(side) == 1 for side in more.values())
    assert {patient: more[patient] for patient in fewer} == fewer


def test_shares_are_met_over_many_patients_and_drawn_apart(make_table: Any) -> None:
    rows = patients(600)
    path = make_table(rows, pictures=False)
    for row in rows:
        file = path.parent / row["file"]
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
    frame = read_table(source(path, split=PatientSplit(train=0.7), unpaired_share=0.2)).frame
    held_out = frame["held_out"].mean()
    unpaired = 1 - frame.filter(~pl.col("held_out"))["paired"].mean()
    assert abs(held_out - 0.3) < 0.06
    assert abs(unpaired - 0.2) < 0.06  # among those trained on: the two draws do not share their salt


def test_a_split_column_holds_out_the_patients_other_images_too(make_table: Any) -> None:
    rows = [{"file": f"{i}.png", "patient": p, "split": s} for i, (p, s) in enumerate([("a", "train"), ("a", "test"), ("b", "train")])]
    assert read_table(source(make_table(rows))).frame["held_out"].to_list() == [True, True, False]


def test_weak_pairs_of_one_set_of_findings_share_their_wordings(make_table: Any) -> None:
    labels = ["Pneumonia", "No Finding", "Pneumonia", ""]
    path = make_table([{"file": f"{i}.png", "labels": label} for i, label in enumerate(labels)])
    table = read_table(source(path, labels="labels", reports="weak", variants=5, exhaustive=("Pneumonia",)))
    keys = table.frame["report_key"].to_list()
    assert keys[0] == keys[2] != keys[1]
    assert table.frame["report_group"].to_list() == ["weak:Pneumonia", "weak:No Finding", "weak:Pneumonia", ""]
    assert table.frame["paired"].to_list() == [True, True, True, False]
    assert len(table.texts[keys[0]]) == 5
    assert table.frame["report"][0] == table.texts[keys[0]][0]


def test_equal_reports_are_one_group_and_images_only_have_none(make_table: Any) -> None:
    reports = ["Clear lungs.", "Clear  lungs.", "Effusion.", ""]
    path = make_table([{"file": f"{i}.png", "report": report} for i, report in enumerate(reports)])
    groups = read_table(source(path)).frame["report_group"].to_list()
    assert groups[0] == groups[1] != groups[2]
    assert groups[3] == ""
    assert read_table(source(path, reports="none")).frame["paired"].sum() == 0


def test_tables_join_by_name_and_no_image_is_taken_twice(make_table: Any, tmp_path: Path) -> None:
    first = make_table([{"file": "a.png", "Edema": "1"}, {"file": "b.png", "Edema": "0"}], name="first.csv")
    second = make_table([{"file": "b.png", "Fracture": "1"}, {"file": "c.png", "Fracture": "1"}], name="second.csv")
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes((tmp_path / "a.png").read_bytes())
    (other / "third.csv").write_text("file\na.png\n")
    joined = ImageTable.joined([read_table(source(path)) for path in (first, second, other / "third.csv")])
    assert joined.frame["image"].to_list() == ["first:a.png", "b.png", "c.png", "third:a.png"]
    assert joined.findings == ("Edema", "Fracture")
    assert joined.frame["Edema"].to_list() == [1, 0, None, None]
    assert joined.frame["Fracture"].to_list() == [None, None, 1, None]
    assert joined.dropped["reason"].to_list() == ["duplicate_image"]


@given(
    st.lists(st.text(alphabet="abc ", min_size=1, max_size=60).filter(lambda words: words.strip()), min_size=1, max_size=12),
    st.integers(20, 100),
)
def test_a_passage_is_a_part_of_the_text_that_begins_with_a_sentence(sentences: list[str], longest: int) -> None:
    text = " ".join(" ".join(sentence.split()) + "." for sentence in sentences)
    found = passages(text, longest)
    starts = [0, *(index + 2 for index in range(len(text)) if text[index : index + 2] == ". ")]
    assert found
    for passage in found:
        assert len(passage) <= longest
        assert any(text[start:].startswith(passage) for start in starts)
    if len(text) <= longest:
        assert found == (text,)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs ../shared/data/labels")
def test_the_published_nih_table_is_read_as_it_is(tmp_path: Path) -> None:
    with gzip.open(PUBLISHED, "rt") as published:
        rows = [row for row, _ in zip(csv.DictReader(published), range(300), strict=False)]
    for row in rows:
        (tmp_path / row["Image Index"]).write_bytes(b"x")
    columns = {"file": "Image Index", "patient": "Patient ID", "view": "View Position"}
    exhaustive = ("No Finding", "Cardiomegaly")
    table = read_table(source(PUBLISHED, root=str(tmp_path), columns=columns, labels="Finding Labels", exhaustive=exhaustive))
    assert len(table.frame) == 300
    assert set(table.dropped["reason"]) == {"file_missing"}
    named = [int("Cardiomegaly" in row["Finding Labels"].split("|")) for row in rows]
    assert table.frame["Cardiomegaly"].to_list() == named
    assert 0 < sum(named) < 300


def test_the_split_has_a_name_and_a_hash_that_other_rows_do_not_change(make_table: Any) -> None:
    rows = [{"file": f"{i}.png", "patient": p, "split": s} for i, (p, s) in enumerate([("a", "train"), ("a", "test"), ("b", "train")])]
    split = read_table(source(make_table(rows), name="mine")).facts["split"]
    assert split["name"] == "mine, column split" and split["shared_patients"] == 1
    assert {part: piece["n"] for part, piece in split["parts"].items()} == {"test": 1, "train": 2}
    alone = read_table(source(make_table(rows[1:2]))).facts["split"]
    assert alone["sha256"] == alone["parts"]["test"]["sha256"] == split["parts"]["test"]["sha256"] != split["sha256"]


def test_a_table_without_a_split_says_how_it_was_drawn(make_table: Any) -> None:
    path = make_table(patients(40))
    drawn = read_table(source(path, name="mine", split=PatientSplit(train=0.5, seed=3))).facts["split"]
    assert drawn["name"] == "mine, 0.5 of the patients trained on, by a hash of the patient, seed 3"
    assert sum(piece["n"] for piece in drawn["parts"].values()) == drawn["n"] == 80 and drawn["shared_patients"] == 0
    whole = read_table(source(path, name="mine")).facts["split"]
    assert whole["name"] == "mine, undivided" and whole["sha256"] == drawn["sha256"]


def test_split_sex_and_age_are_read_where_the_table_has_them(make_table: Any) -> None:
    rows = [{"file": "a.png", "split": "test", "sex": "female", "age": "063Y"}, {"file": "b.png", "split": "", "sex": "", "age": ""}]
    frame = read_table(source(make_table(rows))).frame.sort("file")
    assert frame.select("split", "sex", "age", "held_out").rows() == [("test", "F", 63.0, True), ("", "", None, False)]


def test_a_split_column_decides_alone_where_it_says_something(make_table: Any) -> None:
    rows = [{"file": f"{i}.png", "patient": f"p{i}", "split": "Train" if i % 2 else "test"} for i in range(40)]
    table = read_table(source(make_table(rows), split=PatientSplit(train=0.5)))
    assert table.frame["held_out"].to_list() == [row["split"] == "test" for row in rows]


def test_a_path_of_windows_is_read_as_one(make_table: Any, tmp_path: Path) -> None:
    path = make_table([{"file": "sub/a.png"}])
    path.write_text("file\nsub\\a.png\n")
    table = read_table(source(path))
    assert table.frame["file"].to_list() == [str(tmp_path / "sub/a.png")]
    assert table.frame["image"].to_list() == ["sub\\a.png"]
