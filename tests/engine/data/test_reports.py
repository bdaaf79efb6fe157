import csv
import lzma
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.reports import HEADERS, clean, report_text, says_something, section_counts, section_of, sections
from engine.errors import ReadError

REAL_REPORTS = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "reports" / "iu_reports.csv.xz"

FULL = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)
 
 INDICATION:  ___ year old woman with cough  // ?pneumonia
 
 TECHNIQUE:  Chest PA and lateral
 
 COMPARISON:  ___
 
 FINDINGS: 
 
 There is a small left pleural effusion.  The heart is
 mildly enlarged.
 
 HEART:  see above.
 
 IMPRESSION: 
 
 Small left pleural effusion, larger than on ___ , with adjacent
 atelectasis.
 
 RECOMMENDATION(S):  Repeat in six weeks.
 
 NOTIFICATION:  Dr. ___ was told.
"""  # noqa: W291, W293 - blank lines of MIMIC reports hold a space


def test_masks_line_breaks_and_spaces_are_cleaned():
    assert clean(" Compared with ___ , the heart\n is   unchanged .\t(XXXX )\r\n") == "Compared with, the heart is unchanged. ()"


def test_words_numbers_and_case_are_left_alone():
    text = "1. A 0.5 cm nodule, x_1 = .7; T2/N0 (RUL). No PNEUMOTHORAX: stable?"
    assert clean(text) == text


def test_half_characters_are_composed_and_broken_ones_replaced():
    assert clean("e\u0301tat \ud800 fe\u200bver") == "état ? fever"


@settings(max_examples=400)
@given(st.one_of(st.text(), st.text(alphabet="_X .,;:)1ae\u0301\n\u200b ")))
def test_cleaning_twice_is_cleaning_once(text):
    once = clean(text)
    assert clean(once) == once
    assert "\n" not in once and "  " not in once and "__" not in once and once == once.strip()


def test_the_impression_stands_for_the_report():
    assert report_text(FULL).text == "Small left pleural effusion, larger than on, with adjacent atelectasis."


def test_sections_are_named_and_cleaned_and_empty_ones_left_out():
    assert sections(FULL) == {
        "examination": "CHEST (PA AND LAT)",
        "indication": "year old woman with cough // ?pneumonia",
        "technique": "Chest PA and lateral",
        "findings": "There is a small left pleural effusion. The heart is mildly enlarged. HEART: see above.",
        "impression": "Small left pleural effusion, larger than on, with adjacent atelectasis.",
        "recommendations": "Repeat in six weeks.",
        "notification": "Dr. was told.",
    }


def test_findings_then_last_paragraph_then_comparison_follow_a_missing_impression():
    findings = " INDICATION:  Cough.\n \n FINDINGS:  Clear lungs.\n \n IMPRESSION:  ___\n"
    paragraph = " INDICATION:  Cough,\n fever.\n \n The lungs are clear.\n \n No effusion.\n"
    comparison = " COMPARISON:  Unchanged since ___.\n \n INDICATION:  Cough.\n"
    assert report_text(findings).text == "Clear lungs."
    assert report_text(paragraph).text == "The lungs are clear. No effusion."
    assert report_text(comparison).text == "Unchanged since."


@pytest.mark.parametrize(
    ("impression", "section"),
    [
        ("___", "findings"),
        ("___.", "findings"),
        ("As above.", "findings"),
        ("See above", "findings"),
        ("SEE FINDINGS ABOVE.", "findings"),
        ("Please see the body of the report.", "findings"),
        ("As described in the findings section", "findings"),
        ("1.", "findings"),
        ("N/A", "findings"),
        ("As above, no pneumonia.", "impression"),
        ("See above for a new nodule in the right upper lobe.", "impression"),
        ("Unchanged.", "impression"),
        ("No change.", "impression"),
    ],
)
def test_an_impression_that_says_nothing_itself_gives_way_to_the_findings(impression, section):
    found = report_text(f" FINDINGS:  Right lower lobe pneumonia.\n \n IMPRESSION:  {impression}\n")
    assert found.section == section
    assert ("pneumonia" in found.text) == (section == "findings" or "pneumonia" in impression)


def test_sections_are_counted_with_those_that_were_passed_over():
    reports = ["IMPRESSION: Clear.", "FINDINGS: Clear.\nIMPRESSION: As above.", "IMPRESSION: ___.", "FINDINGS: Clear. IMPRESSION: Normal."]
    assert section_counts(map(report_text, reports)) == {"findings": 1, "impression": 2, "none": 1, "passed over: impression": 2}


def test_spanish_headers_and_headers_within_a_line():
    found = sections("Informe: Derrame pleural izquierdo. IMPRESIÓN: Neumonía en LID.")
    assert found == {"findings": "Derrame pleural izquierdo.", "impression": "Neumonía en LID."}
    assert not says_something("ver informe")


def test_a_missing_section_is_no_text():
    assert report_text("").text == report_text(" FINAL REPORT\n \n ___\n").text == report_text(" INDICATION:  Cough.\n").text == ""
    assert sections(" IMPRESSION:\n \n") == {}


def test_a_text_without_headers_is_its_own_last_paragraph():
    assert report_text(" FINAL REPORT\n The lungs are clear.\n \n No effusion.\n").text == "The lungs are clear. No effusion."


@pytest.mark.parametrize("stop", ["RECOMMENDATION:", "RECOMMENDATIONS:", "RECOMMENDATION(S):", "NOTIFICATION:", "NOTIFICATION(S):"])
def test_a_section_ends_at_a_recommendation_even_inside_a_line(stop):
    assert report_text(f" IMPRESSION:  Nodule.  {stop}  CT of the chest.\n More of the same.\n").text == "Nodule."


def test_of_two_impressions_the_later_that_holds_text_stays():
    assert report_text(" IMPRESSION:  Old.\n \n FINAL ADDENDUM\n IMPRESSION:  New.\n \n IMPRESSION: \n").text == "New."


def test_the_wet_read_does_not_stand_for_the_report():
    text = " WET READ: ___ 9:40 PM\n  No pneumonia.\n WET READ VERSION #1 \n ______\n        FINAL REPORT\n INDICATION:  Cough.\n"
    assert report_text(text).text == ""
    assert report_text(text + " \n Right lower lobe pneumonia.\n").text == "Right lower lobe pneumonia."


@pytest.mark.parametrize(
    ("header", "section"),
    [
        ("IMPRESSOIN", "impression"),
        ("MPRESSION", "impression"),
        ("IMPESSION", "impression"),
        ("IMPRESSIONS", "impression"),
        ("CONCLUSION", "impression"),
        ("FINDINGS AND IMPRESSION", "impression"),
        ("FINDINGS/IMPRESSION", "impression"),
        ("FINDINGS/ IMPRESSION", "impression"),
        ("FINDNGS", "findings"),
        ("FINIDNGS", "findings"),
        ("FINDING", "findings"),
        ("CHEST, TWO VIEWS", "findings"),
        ("PA AND LATERAL VIEWS OF THE CHEST", "findings"),
        ("COMPARSION", "comparison"),
        ("NDICATION", "indication"),
        ("Impression", "impression"),
        ("COMPRESSION", None),
        ("HEART", None),
        ("Portable chest", None),
        ("Impresson", None),
    ],
)
def test_headers_are_known_by_their_names_and_their_typos(header, section):
    assert section_of(header) == section


def test_every_header_of_the_table_is_found_in_a_report():
    for section, headers in HEADERS.items():
        for header in headers:
            assert sections(f" {header.upper()}:  A word.\n")[section] == "A word."


def test_windows_line_ends_cut_the_same_sections():
    assert sections(FULL.replace("\n", "\r\n")) == sections(FULL)


def test_a_git_lfs_pointer_is_an_error_and_no_report():
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    with pytest.raises(ReadError, match="Git-LFS pointer"):
        report_text(pointer)


def real_reports():
    """(findings, impression) of real reports when the shared data are there, else of our own."""
    if not REAL_REPORTS.exists():
        return [("The heart is enlarged. Clear lungs.", "1. Cardiomegaly."), ("", "No acute disease."), ("Nodule: 5 mm.", ""), ("", "")]
    with lzma.open(REAL_REPORTS, "rt", encoding="utf-8", newline="") as file:
        return [(row["findings"], row["impression"]) for row in csv.DictReader(file)]


def test_real_texts_set_as_mimic_sets_them_come_back_whole():
    for findings, impression in real_reports():
        if any(word in f"{findings} {impression}" for word in ("RECOMMENDATION", "NOTIFICATION")):
            continue
        text = f" FINAL REPORT\n INDICATION:  ___F with cough.\n \n FINDINGS:\n \n {findings}\n \n IMPRESSION:\n \n {impression}\n"
        assert report_text(text).text == (clean(impression) or clean(findings))
        found = sections(text)
        assert (found.get("findings", ""), found.get("impression", "")) == (clean(findings), clean(impression))
