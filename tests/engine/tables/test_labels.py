"""Labels: what is read, what is refused with its row, and what becomes of every row in the join."""

import polars as pl
import pytest

from engine.errors import InputMissing, LabelsError
from engine.tables.labels import Joined, join, labels_of, near_finding, plain_name, read_labels

FINDINGS = ("No Finding", "Edema", "Pleural Effusion")


def labels(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return read_labels(path, FINDINGS)


def test_columns_are_joined_by_name_in_any_order(tmp_path):
    read = labels(tmp_path, "pleural_effusion,StudyInstanceUID,EDEMA\n1,1.2,0\n,1.3,1.0\n")
    assert read.key == "StudyInstanceUID"
    assert list(read.keys) == ["1.2", "1.3"]
    assert read.values == {"Pleural Effusion": [1, None], "Edema": [0, 1]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_spreadsheets_dialects_read_alike(tmp_path, encoding, separator, newline):
    text = newline.join(["study,Edema", "a,1", "b,0", ""]).replace(",", separator)
    assert labels(tmp_path, text, encoding).values == {"Edema": [1, 0]}


def test_parquet_reads_like_csv(tmp_path):
    frame = pl.DataFrame({"study": ["a", "b", "c"], "Edema": [1.0, None, 0.0], "Pleural Effusion": [True, False, None]})
    frame.write_parquet(tmp_path / "labels.parquet")
    read = read_labels(tmp_path / "labels.parquet", FINDINGS)
    assert read.values == {"Edema": [1, None, 0], "Pleural Effusion": [1, 0, None]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study,Edema\na,1\nb,yes\n", "row 2 of the labels, column 'Edema', holds 'yes'.*1 for present"),
        ("study,Edema\na,19310704\n", "row 1 .* holds something else"),
        ("study,Edema\na,-1\n", "row 1 .* holds '-1'"),
        ("study,Edema\na,NaN\n", "row 1 .* holds 'NaN'.*blank"),
        ("study,Edema\na,John Doe the patient\n", "row 1 .* holds something else"),
        ("study,Edema\n,1\n", "row 1 of the labels has no study"),
        ("study,Edema\na,1,2\n", "row 1 of the table has 3 cells where the header has 2"),
        ("study,Edema,Edema\na,1,1\n", "column 'Edema' stands twice"),
        ("study,Edema,edema\na,1,1\n", "columns 'Edema' and 'edema' of the labels are both Edema"),
        ("name,Edema\na,1\n", "no column StudyInstanceUID, study or file"),
        ("study,Oedema,Cardiomegalie\na,1,1\n", "no column of the labels is a finding.*rename 'Oedema' for Edema"),
        ("study\na\n", "there is no column beside the key"),
        ("", "empty"),
        ('study,Edema\n"a,1\n', "cannot be read beyond line"),
        ("study,Edema\na,1\0\n", "no text"),
    ],
)
def test_what_cannot_be_labels_is_refused_with_its_place(tmp_path, text, message):
    with pytest.raises(LabelsError, match=message) as error:
        labels(tmp_path, text)
    assert error.value.exit_code == 78
    assert "John" not in str(error.value)


def test_latin_1_is_refused(tmp_path):
    with pytest.raises(LabelsError, match="UTF-8"):
        labels(tmp_path, "study,Edema\né,1\n", "latin-1")


def test_a_damaged_parquet_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(LabelsError, match="damaged"):
        read_labels(tmp_path / "a.parquet", FINDINGS)


def test_a_missing_file_is_a_missing_input(tmp_path):
    with pytest.raises(InputMissing):
        read_labels(tmp_path / "none.csv", FINDINGS)


def test_columns_that_are_no_finding_are_listed_where_another_is(tmp_path):
    assert labels(tmp_path, "study,patient,Edema,Oedema,note\na,p,1,0,text\n").unknown == ("Oedema", "note")


def test_names_are_compared_as_people_read_them():
    assert plain_name(" Pleural_Effusion ") == plain_name("pleural  effusion")
    assert near_finding("Pleural Efusion", FINDINGS) == "Pleural Effusion"
    assert near_finding("Hernia", FINDINGS) is None


def frame(text):
    header, *rows = [line.split(",") for line in text.split()]
    return labels_of(pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row"), FINDINGS, folder=None)


def test_every_row_ends_in_one_place():
    read = frame("study,Edema a,1 a,1 b,0 b,1 b,1 x,1 c,1 d,0")
    joined = join([read], read.keys, {"a": "", "b": "", "c": "uid_conflict", "d": "", "e": ""})
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
    read = labels_of(
        pl.DataFrame({"study": ["a", "a"], "Edema": [None, "1"]}, schema={"study": pl.String, "Edema": pl.String}), FINDINGS, folder=None
    )
    joined = join([read], read.keys, {"a": ""})
    assert joined.labels == {"a": {"Edema": 1}}
    assert joined.account["disagreements"] == 0


def test_labels_of_several_tables_are_joined_as_one():
    first, second = frame("study,Edema a,1"), frame("study,No_Finding a,0 b,1")
    joined = join([first, second], ["a", "a", "b"], {"a": "", "b": ""})
    assert joined.frame(FINDINGS).rows() == [("a", 0, 1, None), ("b", 1, None, None)]


def test_no_labels_are_an_empty_typed_frame():
    empty = Joined({}, {}).frame(FINDINGS)
    assert empty.schema == pl.Schema({"study": pl.String, **dict.fromkeys(FINDINGS, pl.Int8)})
