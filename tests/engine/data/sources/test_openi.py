from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.sources.openi import parse_report, read_openi
from engine.errors import ReadError
from engine.recipe.sources import OpeniSource

REPORTS = {
    "CXR1": ("Normal chest x-XXXX.", "Clear lungs.", ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"]),
    "CXR2": ("", "Large effusion.", ["CXR2_IM-0652-1001"]),
    "CXR10": ("", "", ["CXR10_IM-0002-1001"]),
    "CXR11": ("No disease.", "", []),
}


def source(keys: dict[str, Any], **more: Any) -> OpeniSource:
    return OpeniSource.model_validate(keys | more)


@pytest.fixture
def keys(make_openi: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return make_openi(REPORTS)


def test_the_first_picture_of_a_report_stands_for_it(keys: dict[str, Any]) -> None:
    table = read_openi(source(keys))
    assert table.frame["image"].to_list() == ["CXR1_1_IM-0001-3001", "CXR2_IM-0652-1001", "CXR10_IM-0002-1001"]
    assert table.frame["report"].to_list() == ["Normal chest x-.", "Large effusion.", ""]
    assert table.frame["paired"].to_list() == [True, True, False]
    assert table.dropped["reason"].to_list() == ["view_unknown"]
    assert table.facts["reports"] == {"with_text": 3, "empty": 1, "without_image": 1}
    assert table.facts["rows"] == table.facts["images"] + sum(table.facts["dropped"].values()) == 4


def test_every_picture_shares_its_report_where_the_recipe_asks_for_all(keys: dict[str, Any]) -> None:
    frame = read_openi(source(keys, views="all")).frame
    assert frame.filter(study="openi:CXR1")["report_key"].n_unique() == 1
    assert len(frame) == 4


def test_dicom_files_are_found_by_their_folder_too(keys: dict[str, Any]) -> None:
    png = Path(keys["root"]) / "NLMCXR_png" / "CXR2_IM-0652-1001.png"
    dicom = Path(keys["root"]) / "NLMCXR_dcm" / "CXR2" / "IM-0652-1001.dcm"
    dicom.parent.mkdir(parents=True)
    png.rename(dicom)
    assert str(dicom) in read_openi(source(keys)).frame["file"].to_list()


def test_missing_pictures_and_damaged_reports_are_rows_with_a_reason(keys: dict[str, Any]) -> None:
    (Path(keys["root"]) / "NLMCXR_png" / "CXR2_IM-0652-1001.png").unlink()
    (Path(keys["root"]) / "ecgen-radiology" / "10.xml").write_text("<eCitation><uId")
    table = read_openi(source(keys))
    assert table.dropped["reason"].to_list() == ["view_unknown", "file_missing", "report_damaged"]


def test_a_report_that_was_never_fetched_is_an_error(keys: dict[str, Any]) -> None:
    (Path(keys["root"]) / "ecgen-radiology" / "1.xml").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ReadError, match="Git-LFS pointer"):
        read_openi(source(keys))


@given(st.text("abc XX<>&.", max_size=30), st.text("abc XX<>&.", max_size=30))
def test_any_text_comes_out_clean_and_impressions_go_first(impression: str, findings: str) -> None:
    from xml.sax.saxutils import escape

    from engine.data.reports import clean, says_something

    xml = (
        f'<e><uId id="CXR7"/><AbstractText Label="FINDINGS">{escape(findings)}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">{escape(impression)}</AbstractText><parentImage id="a"/><parentImage id="a"/></e>'
    )
    assert parse_report(xml.encode()) == ("CXR7", ("a",), next(filter(says_something, (clean(impression), clean(findings))), ""))
