"""Labels of studies: what is read, what is refused with its row, and what becomes of every row in the join."""

from pathlib import Path

import polars as pl
import pytest

from engine.data.label_cells import LabelPolicy
from engine.data.labels import JoinedLabels, join, labels_in, read_labels
from engine.errors import InputMissing, LabelsError
from engine.tables.study_names import StudyNames

FINDINGS = ("No Finding", "Edema", "Pleural Effusion")


def labels(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return read_labels(path, FINDINGS)


def test_columns_are_joined_by_name_in_any_order(tmp_path):
    read = labels(tmp_path, "pleural_effusion,StudyInstanceUID,EDEMA\n1,1.2,0\n,1.3,1.0\n")
    assert (read.key, read.by_file) == ("StudyInstanceUID", False)
    assert list(read.keys) == ["1.2", "1.3"]
    assert read.values == {"Pleural Effusion": [1, None], "Edema": [0, 1]}


def test_parquet_reads_like_csv(tmp_path):
    frame = pl.DataFrame({"study": ["a", "b", "c"], "Edema": [1.0, None, 0.0], "Pleural Effusion": [True, False, None]})
    frame.write_parquet(tmp_path / "labels.parquet")
    read = read_labels(tmp_path / "labels.parquet", FINDINGS)
    assert read.values == {"Edema": [1, None, 0], "Pleural Effusion": [1, 0, None]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study,Edema\na,1\nb,severe\n", "row 2 of the labels, column 'Edema', holds text that is no label"),
        ("study,Edema\na,19310704\n", "row 1 .* holds text that is no label"),
        ("study,Edema\na,0.7\n", "row 1 .* holds '0.7'.*soft label.*--label-threshold"),
        ("study,Edema\na,2\n", "row 1 .* holds '2'"),
        ("study,Edema\na,John Doe the patient\n", "row 1 .* holds text that is no label"),
        ("study,Edema\n,1\n", "row 1 of the labels has no study"),
        ("StudyInstanceUID,Edema\n1.2E+20,1\n", "a spreadsheet has turned the keys into numbers"),
        ("study,Edema\na,1,2\n", "row 1 of the table of labels has 3 cells where the header has 2"),
        ("study,Edema,Edema\na,1,1\n", "columns 2 and 3 of the table of labels have the same name"),
        ("study,Edema,edema\na,1,1\n", "columns 'Edema' and 'edema' are the same finding"),
        ("name,Edema\na,1\n", "no column StudyInstanceUID, study or file"),
        ("AccessionNumber,Edema\na,1\n", "AccessionNumber is not kept with the scores.*StudyInstanceUID, or file"),
        ("subject_id,Edema\na,1\n", "'subject_id' names patients, who may have several studies"),
        ("study,patient_numbr,Edema\na,p,1\n", "column 'patient_numbr' looks like the patient's"),
        ("study,Pleural Efusion,Edema\na,1,1\n", "column 'Pleural Efusion' is no finding, and nearly spelled like Pleural Effusion"),
        ("study,Cardiomegalie\na,1\n", "no column of the labels is a finding"),
        ("study,label\na,Hernia\nb,Hernia\nc,Hernia\n", "column 'label' lists 1 names that are no known finding: Hernia"),
        ("study\na\n", "there is no column beside the key"),
        ("", "empty"),
        ('study,Edema\n"a,1\n', "cannot be read as CSV beyond line"),
        ("study,Edema\na,1\0\n", "no text"),
    ],
)
def test_what_cannot_be_labels_is_refused_with_its_place(tmp_path, text, message):
    with pytest.raises(LabelsError, match=message) as error:
        labels(tmp_path, text)
    assert error.value.exit_code == 78
    assert "John" not in str(error.value)


def test_a_damaged_parquet_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(LabelsError, match="damaged"):
        read_labels(tmp_path / "a.parquet", FINDINGS)


def test_a_missing_file_is_a_missing_input(tmp_path):
    with pytest.raises(InputMissing):
        read_labels(tmp_path / "none.csv", FINDINGS)


def test_columns_of_labels_that_are_no_finding_are_named(tmp_path):
    read = labels(tmp_path, "study,patient,Edema,Hernia,note\na,p,1,0,text\n")
    assert read.unused == ("Hernia",)
    assert read.facts == {"patient": ["p"]}


def test_synonyms_of_the_public_label_sets_are_taken_and_said(tmp_path):
    read = labels(tmp_path, "study,Effusion,Oedema\na,1,0\n")
    assert read.values == {"Pleural Effusion": [1], "Edema": [0]}
    assert read.taken == ("'Effusion' as Pleural Effusion", "'Oedema' as Edema")


def test_the_policy_says_what_uncertain_and_soft_labels_are(tmp_path):
    text = "study,Edema\na,-1\nb,u\nc,0\nd,0.7\n"
    for uncertain, value in (("unknown", None), ("present", 1), ("absent", 0)):
        (tmp_path / "labels.csv").write_text(text)
        read = read_labels(tmp_path / "labels.csv", FINDINGS, LabelPolicy(uncertain, 0.5))
        assert read.values == {"Edema": [value, value, 0, 1]}
        assert read.uncertain == 2


@pytest.mark.parametrize(
    "text",
    [
        "StudyInstanceUID,Finding Labels\n1.2,Edema|Effusion\n1.3,No Finding\n1.4,\n",
        "StudyInstanceUID,Labels\n1.2,\"['edema', 'pleural effusion']\"\n1.3,['normal']\n1.4,\n",
        "study,class_name\n1.2,Pleural effusion;Edema\n1.3,normal\n1.4,NA\n",
    ],
)
def test_a_column_that_lists_findings_is_read(tmp_path, text):
    read = labels(tmp_path, text)
    assert read.values == {"Edema": [1, 0, None], "Pleural Effusion": [1, 0, None], "No Finding": [0, 1, None]}


def test_a_row_for_each_label_is_read(tmp_path):
    read = labels(tmp_path, "study,finding,value\na,Edema,1\na,Pleural Effusion,0\nb,Edema,no\n")
    joined = join([read], names({"a": "", "b": ""}))
    assert joined.labels == {"a": {"Edema": 1, "Pleural Effusion": 0}, "b": {"Edema": 0, "Pleural Effusion": None}}


def names(scored):
    return StudyNames(scored, lambda key: ())


def frame(text):
    header, *rows = [line.split(",") for line in text.split()]
    return labels_in(pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row"), FINDINGS, folder=Path())


def test_every_row_ends_in_one_place():
    read = frame("study,Edema a,1 a,1 b,0 b,1 b,1 x,1 c,1 d,0")
    joined = join([read], names({"a": "", "b": "", "c": "uid_conflict", "d": "", "e": ""}))
    assert joined.labels == {"a": {"Edema": 1}, "b": {"Edema": None}, "d": {"Edema": 0}}
    account = joined.account
    assert account["rows"] == 8 == account["matched_rows"] + account["unmatched_rows"] + account["ambiguous_rows"]
    assert (account["unmatched_rows"], account["ambiguous_rows"], account["duplicate_rows"], account["disagreements"]) == (1, 1, 3, 1)
    assert (account["studies_with_labels"], account["studies_without_labels"]) == (3, 2)
    assert account["listed"]["unmatched"] == [6]
    assert account["listed"]["ambiguous"] == [7]
    assert account["listed"]["duplicate"][0] == {"row": 2, "first_row": 1}
    assert account["listed"]["disagreeing"] == [{"study": "b", "finding": "Edema", "row": 4, "first_row": 3}]
    assert any("contradict an earlier row" in said for said in joined.notices())


def test_a_blank_is_filled_by_a_later_row():
    table = pl.DataFrame({"study": ["a", "a"], "Edema": [None, "1"]}, schema={"study": pl.String, "Edema": pl.String})
    joined = join([labels_in(table, FINDINGS, folder=Path())], names({"a": ""}))
    assert joined.labels == {"a": {"Edema": 1}}
    assert joined.account["disagreements"] == 0


def test_labels_of_several_tables_are_joined_as_one():
    first, second = frame("study,Edema a,1"), frame("study,No_Finding a,0 b,1")
    joined = join([first, second], names({"a": "", "b": ""}))
    assert joined.frame(FINDINGS).rows() == [("a", 0, 1, None), ("b", 1, None, None)]


def test_no_labels_are_an_empty_typed_frame():
    empty = JoinedLabels({}, {}).frame(FINDINGS)
    assert empty.schema == pl.Schema({"study": pl.String, **dict.fromkeys(FINDINGS, pl.Int8)})
