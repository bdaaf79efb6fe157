from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data.sources.mimic_cxr import mimic_table, read_mimic_cxr
from engine.errors import ReadError
from engine.recipe.sources import CHEXPERT_FINDINGS, MimicSource

CLEAR = "                 FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n\n IMPRESSION: \n \n No acute process ___.\n"
EDEMA = " FINDINGS:  Mild edema.\n The heart is\n enlarged.\n\n RECOMMENDATION(S):  Follow up.\n"

Make = Callable[..., dict[str, Any]]


def source(keys: dict[str, Any], **more: Any) -> MimicSource:
    return MimicSource.model_validate(keys | more)


def row(image: str, patient: str = "10000032", study: str = "50414267", **more: Any) -> dict[str, Any]:
    return {"image": image, "patient": patient, "study": study, "report": CLEAR, **more}


@pytest.mark.parametrize("layout", ["jpg", "dicom"])
@pytest.mark.parametrize("zipped", [False, True])
def test_every_published_layout_gives_the_same_table(make_mimic: Make, layout: str, zipped: bool) -> None:
    keys = make_mimic([row("a"), row("b", "11000001", "51000001", report=EDEMA)], layout=layout, zipped=zipped)
    table = read_mimic_cxr(source(keys))
    assert table.frame["image"].to_list() == ["a", "b"]
    assert table.frame["report"].to_list() == ["No acute process.", "Mild edema. The heart is enlarged."]
    suffix = {"jpg": ".jpg", "dicom": ".dcm"}[layout]
    assert [Path(file).suffix for file in table.frame["file"]] == [suffix] * 2
    assert all(Path(file).is_file() for file in table.frame["file"])
    assert table.frame["paired"].all() and not table.frame["held_out"].any()
    assert sorted(text for texts in table.texts.values() for text in texts) == ["Mild edema. The heart is enlarged.", "No acute process."]


@pytest.mark.parametrize(
    ("view", "code", "kept"),
    [
        ("PA", "", "PA"),
        ("AP", "lateral", "AP"),  # the position says frontal, whatever else is said
        ("", "postero-anterior", "PA"),
        ("", "antero-posterior", "AP"),
        ("", "left lateral", "lateral_view"),
        ("LL", "", "lateral_view"),
        ("LATERAL", "postero-anterior", "lateral_view"),
        ("LAO", "", "other_view"),
        ("", "", "view_unknown"),
    ],
)
def test_the_view_code_decides_where_the_position_is_blank(make_mimic: Make, view: str, code: str, kept: str) -> None:
    table = mimic_table(Path(make_mimic([row("a", view=view, code=code)])["jpg_root"]))
    assert kept in (table["view"][0], table["reason"][0])
    assert (table["reason"][0] is None) == (kept in ("AP", "PA"))


def test_what_is_dropped_has_its_reason_and_the_counts_add_up(make_mimic: Make) -> None:
    rows = [row("a"), row("a"), row("lateral", view="LL"), row("gone"), row("", view="AP"), row("nowhere", patient="12000001")]
    keys = make_mimic(rows, absent=["gone", "", "nowhere"])
    splits = Path(keys["jpg_root"]) / "mimic-cxr-2.0.0-split.csv.gz"
    lines = [line for line in gzip.decompress(splits.read_bytes()).decode().splitlines() if not line.startswith("nowhere")]
    splits.write_bytes(gzip.compress("\n".join(lines).encode()))
    table = read_mimic_cxr(source(keys))
    assert table.dropped["reason"].to_list() == ["duplicate_image", "lateral_view", "file_missing", "no_study", "no_split"]
    assert table.facts["rows"] == len(rows) == table.facts["images"] + sum(table.facts["dropped"].values())


def test_patients_of_the_other_splits_are_held_out(make_mimic: Make) -> None:
    rows = [row("a"), row("b", "11000001", "51", split="validate"), row("c", "11000001", "52"), row("d", "12000001", "53", split="test")]
    table = read_mimic_cxr(source(make_mimic(rows)))
    assert table.frame["split"].to_list() == ["train", "valid", "train", "test"]
    assert table.frame["held_out"].to_list() == [False, True, True, True]


def test_images_without_words_are_kept_and_counted(make_mimic: Make) -> None:
    rows = [
        row("words", study="1"),
        row("none", study="2", report=None),
        row("empty", study="3", report=""),
        row("banner", study="4", report="                 FINAL REPORT\n IMPRESSION: \n\n ___\n"),
    ]
    table = read_mimic_cxr(source(make_mimic(rows)))
    assert table.frame["paired"].to_list() == [True, False, False, False]
    assert not table.frame["report"].str.contains("(?i)no impression|nan").any()
    assert table.facts["reports"] == {"with_text": 1, "missing": 1, "empty": 2, "impression": 1, "none": 2}
    assert table.facts["studies"] == 4


def test_a_report_beside_the_study_goes_before_the_zip(make_mimic: Make) -> None:
    keys = make_mimic([row("a"), row("b", "11000001", "51000001")], zipped=True)
    beside = Path(keys["root"]) / "files/p10/p10000032/s50414267.txt"
    beside.parent.mkdir(parents=True)
    beside.write_text(EDEMA)
    texts = read_mimic_cxr(source(keys)).frame["report"].to_list()
    assert texts == ["Mild edema. The heart is enlarged.", "No acute process."]


def test_reports_that_were_never_fetched_are_an_error(make_mimic: Make) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 900\n"
    with pytest.raises(ReadError, match="Git-LFS pointer"):
        read_mimic_cxr(source(make_mimic([row("a", report=pointer)])))


def test_a_cut_off_zip_of_reports_is_an_error(make_mimic: Make) -> None:
    keys = make_mimic([row("a")], zipped=True)
    archive = Path(keys["root"]) / "mimic-cxr-reports.zip"
    archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(ReadError, match=r"mimic-cxr-reports\.zip cannot be read"):
        read_mimic_cxr(source(keys))


def test_labels_are_columns_where_their_table_is_there(make_mimic: Make) -> None:
    cells = {"Edema": "1.0", "Pneumonia": "0.0", "Atelectasis": "-1.0"}
    header = ["subject_id", "study_id", *CHEXPERT_FINDINGS]
    keys = make_mimic(
        [row("a"), row("b", study="7")],
        chexpert=[header, ["10000032", "50414267", *(cells.get(name, "") for name in CHEXPERT_FINDINGS)]],
    )
    table = read_mimic_cxr(source(keys))
    assert table.findings == CHEXPERT_FINDINGS
    first, second = table.frame.select("Edema", "Pneumonia", "Atelectasis", "Fracture").rows()
    assert first == (1, 0, None, None)
    assert second == (None,) * 4
    assert table.facts["present"]["Edema"] == 1
    assert read_mimic_cxr(source(keys, labels="none")).findings == ()
    assert read_mimic_cxr(source(keys, labels="negbio")).findings == ()
