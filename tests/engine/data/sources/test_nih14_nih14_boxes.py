"""Where findings were seen in ChestX-ray14."""

import gzip
from collections import Counter
from pathlib import Path

import pytest

from engine.data.sources.nih14 import Box, read_boxes
from engine.errors import InputMissing, ReadError

PUBLISHED = Path(__file__).parents[5] / "shared/data/labels/BBox_List_2017.csv.gz"
HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
ROWS = """\
00013118_008.png,Atelectasis,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661
00014716_007.png,Infiltrate,686.1,131.5,185.4,313.4
00013118_008.png,Effusion,10,20,30,40
"""


@pytest.fixture
def table(tmp_path):
    def write(rows, name="BBox_List_2017.csv"):
        path = tmp_path / name
        path.write_text(HEADER + rows)
        return path

    return write


def test_boxes_go_by_image_and_findings_by_the_names_of_prompts(table):
    boxes = read_boxes(table(ROWS))
    assert [box.finding for box in boxes["00013118_008.png"]] == ["Atelectasis", "Pleural Effusion"]
    assert boxes["00013118_008.png"][1] == Box("Pleural Effusion", 10.0, 20.0, 30.0, 40.0)
    assert boxes["00014716_007.png"][0].finding == "Infiltration"


def test_a_gzipped_table_with_blank_cells_at_the_end_of_its_rows_is_the_same(table, tmp_path):
    (tmp_path / "boxes.csv.gz").write_bytes(gzip.compress((HEADER + ROWS.replace("\n", ",,,\n")).encode()))
    assert read_boxes(tmp_path / "boxes.csv.gz") == read_boxes(table(ROWS))


@pytest.mark.parametrize(
    "row",
    [
        "a.png,Atelectasis,1,2,3",
        "a.png,Atelectasis,1,2,3,4,5",
        "a.png,Atelectasi,1,2,3,4",
        "a.png,Atelectasis,1,2,3,wide",
        "a.png,Atelectasis,1,2,3,nan",
        "a.png,Atelectasis,-1,2,3,4",
        "a.png,Atelectasis,1,2,0,4",
        "a.png,Atelectasis,1000,2,26,4",
    ],
)
def test_a_row_that_is_no_box_is_named_by_its_line_and_not_quoted(table, row):
    with pytest.raises(ReadError, match=r"line 3 of BBox_List_2017\.csv is no box") as caught:
        read_boxes(table(ROWS.splitlines()[0] + "\n" + row + "\n"))
    assert "a.png" not in str(caught.value)


def test_a_table_without_boxes_and_no_table_are_told_apart(table, tmp_path):
    with pytest.raises(ReadError, match="holds no box"):
        read_boxes(table(""))
    with pytest.raises(InputMissing):
        read_boxes(tmp_path / "absent.csv")


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="needs the published label tables in ../shared")
def test_the_published_table_has_984_boxes_in_880_images():
    boxes = read_boxes(PUBLISHED)
    assert len(boxes) == 880
    assert Counter(box.finding for drawn in boxes.values() for box in drawn) == {
        "Atelectasis": 180, "Cardiomegaly": 146, "Pleural Effusion": 153, "Infiltration": 123,
        "Mass": 85, "Nodule": 79, "Pneumonia": 120, "Pneumothorax": 98,
    }  # fmt: skip
