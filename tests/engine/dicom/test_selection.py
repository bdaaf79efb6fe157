import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from engine.dicom import selection
from engine.dicom.header import Code, Header
from engine.dicom.reasons import Refusal
from engine.dicom.selection import (
    is_chest,
    is_turned,
    names_view,
    refuse_class,
    refuse_selection,
    says_lateral,
    shows_chest,
    what_says_lateral,
)

CT = "1.2.840.10008.5.1.4.1.1.2"


def reason_of(header: Header) -> str:
    """The reason for which the header is turned away, '' where it is not."""
    try:
        refuse_selection(header)
    except Refusal as refusal:
        return refusal.code
    return ""


@pytest.mark.parametrize(
    ("sop_class", "modality", "has_image", "code"),
    [
        (selection.CR, "CR", True, None),
        (selection.CR, "CR\\DX", True, None),
        (selection.DX_PRESENTATION, "", True, None),
        (selection.SECONDARY_CAPTURE, "RG", True, None),
        (selection.SECONDARY_CAPTURE, "OT", True, "wrong_modality"),
        (CT, "CT", True, "wrong_modality"),
        (CT, "CT", False, "unsupported_sop_class"),
        (CT, "DX", True, "unsupported_sop_class"),
        (CT, "", True, "unsupported_sop_class"),
        (selection.CR, "CR\\CT", True, "wrong_modality"),
        ("1.2.840.10008.5.1.4.1.1.88.11", "SR", False, "unsupported_sop_class"),
        ("", "MR", True, "wrong_modality"),
        (selection.DICOMDIR, "", False, "dicomdir"),
    ],
)
def test_class_and_modality(sop_class: str, modality: str, has_image: bool, code: str | None) -> None:
    if code is None:
        refuse_class(sop_class, modality, has_image=has_image)
        return
    with pytest.raises(Refusal) as raised:
        refuse_class(sop_class, modality, has_image=has_image)
    assert raised.value.code == code


@pytest.mark.parametrize(
    "word",
    [
        *("CHEST", "Thorax pa", "CHESTPA", "CHEST_ABDOMEN", "CHEST\\ABDOMEN", "CHEST/TSPINE", "THORACIC CAGE", "TÓRAX", "torace", "LUNGE"),
        *("Poumons", "POITRINE", "BRUSTKORB", "Brust", "BORSTKAS", "Bröstkorg", "RTG klatki piersiowej", "HRUDNÍK", "TÜDŐ", "keuhkot"),
        *("pulmão", "THX", "CXR", "PORT CHEST", "胸部", "흉부", "грудная клетка", "ΘΏΡΑΚΑΣ", "HEART", "Herz", "BABYGRAM"),
    ],
)
def test_a_chest_is_one_in_any_language(word: str) -> None:
    assert is_chest(word) is True
    assert is_chest(word.lower()) is True


@pytest.mark.parametrize(
    "word",
    [
        *("HAND", "ABDOMEN", "Becken", "BREAST", "CSPINE", "T SPINE", "THORACIC SPINE", "THORACOLUMBAR", "Brustwirbelsäule", "BREASTS"),
        *("RACHIS THORACIQUE", "COLUMNA TORÁCICA", "胸椎", "грудной отдел позвоночника", "RIBS", "STERNUM", "CLAVICLE", "CANARY^JANE"),
    ],
)
def test_other_parts_and_the_bones_of_the_chest_are_none(word: str) -> None:
    assert is_chest(word) is False


@pytest.mark.parametrize(
    "word", ["", " ", "UNKNOWN", "Whole body", "N/A", "not specified", "PORTABLE", "1 VIEW", "PA", "adult", "-", "0", "?"]
)
def test_words_that_say_nothing_decide_nothing(word: str) -> None:
    assert is_chest(word) is None
    assert reason_of(Header(body_part=word, view="PA")) == ""


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    assert is_chest(text) in (True, False, None)
    assert says_lateral(text) in (True, False)


@pytest.mark.parametrize(
    ("body_part", "regions", "answer"),
    [
        ("", [("T-D3000", "SRT", "Chest")], True),
        ("", [("51185008", "SCT", "")], True),
        ("", [("85562004", "SCT", "Hand")], False),
        ("", [("T-D8700", "SRT", "")], False),
        ("", [("85562004", "SCT", "Hand"), ("816094009", "SCT", "Chest")], True),
        ("", [("38266002", "SCT", "Entire body")], None),
        ("", [("T1", "99LOCAL", "Thorax a.p.")], True),
        ("", [("T2", "99LOCAL", "Hand")], None),
        ("", [("", "", "")], None),
        ("PORTABLE", [("122496007", "SCT", "Lumbar spine")], False),
        ("CHEST", [("85562004", "SCT", "Hand")], True),
        ("HAND", [("T-D3000", "SRT", "Chest")], False),
        ("", [], None),
    ],
)
def test_a_region_code_speaks_where_the_body_part_does_not(
    body_part: str, regions: list[tuple[str, str, str]], answer: bool | None
) -> None:
    assert shows_chest(Header(body_part=body_part, regions=tuple(Code(*region) for region in regions))) is answer


@pytest.mark.parametrize(
    ("species", "processing", "animal"),
    [
        ([], "", False),
        ([], "CHEST PA", False),
        ([], "CANINE LATERAL THORAX 0-15cm", True),
        ([("", "", "Human")], "", False),
        ([("337915000", "SCT", "homo sapiens")], "", False),
        ([("", "", "unknown")], "", False),
        ([("448771007", "SCT", "Canis lupus subspecies familiaris")], "", True),
        ([("", "", "Felis catus")], "", True),
    ],
)
def test_animals_are_known_by_their_species(species: list[tuple[str, str, str]], processing: str, animal: bool) -> None:
    header = Header(species=tuple(Code(*one) for one in species), device_processing=processing)
    assert selection.is_animal(header) is animal


def standard_views() -> list[tuple[str, str]]:
    """(code, meaning) of CID 4010 'DX View', as pydicom has it from PS3.16."""
    named: list[str] = cid_concepts[4010]["SCT"]
    return [(code, meaning) for name in named for code, (meaning, lists) in concepts["SCT"][name].items() if 4010 in lists]


def test_the_codes_of_the_standard_are_sorted_by_what_they_mean() -> None:
    seen = set()
    for code, meaning in standard_views():
        sideways = any(word in meaning.lower() for word in ("lateral", "oblique", "sagittal"))
        assert bool(what_says_lateral(Header(views=(Code(code, "SCT"),)))) is sideways, meaning
        seen.add(meaning)
    assert {"left lateral", "antero-posterior", "postero-anterior"} <= seen


@pytest.mark.parametrize("code", ["R-10206", "R-10214", "399348003", "272479007"])
def test_a_frontal_view_code_is_enough(code: str) -> None:
    header = Header(body_part="CHEST", views=(Code(code, "SCT"),))
    assert names_view(header) and reason_of(header) == ""


@pytest.mark.parametrize(
    "view",
    [
        *("LL", "lat", "LATERAL", "CHEST LAT ERECT", "L-L", "LLAT", "X-TABLE", "OBL", "RT OBLIQUE", "oblicua", "PA\\LL", "Profil gauche"),
        *("PERFIL", "SEITLICH", "DECUBITUS", "LEFT DECUB", "latero-lateral", "側面"),
    ],
)
def test_laterals_by_word(view: str) -> None:
    assert says_lateral(view) and reason_of(Header(view=view)) == "lateral_view"


@pytest.mark.parametrize(
    "view", ["PA", "AP", "ap supine", "P-A", "P.A.", "Thorax a.p.", "Postero-anterior", "PA/AP", "AP DECUBITO SUPINO", "CHEST AP PORTABLE"]
)
def test_frontal_views_by_word(view: str) -> None:
    header = Header(view=view)
    assert not says_lateral(view) and names_view(header) and reason_of(header) == ""


@pytest.mark.parametrize(
    ("series", "frontal", "lateral"),
    [
        ("Thorax lat.", False, True),
        ("W034 Chest Oblique", False, True),
        ("Thorax seitlich / CHEST", False, True),
        ("Thorax p.a.", True, False),
        ("Chest PA and LAT", False, False),
        ("Ribs bilateral", False, False),
        ("CHEST RO LL RAO", False, True),
        ("", False, False),
    ],
)
def test_a_series_names_the_view_where_nothing_else_does(series: str, frontal: bool, lateral: bool) -> None:
    assert (names_view(Header(series=series)), bool(what_says_lateral(Header(series=series)))) == (frontal, lateral)
    assert what_says_lateral(Header(view="AP", series=series)) == ""
    assert what_says_lateral(Header(view="LL", series=series)) == "ViewPosition"


def test_words_that_name_no_view_are_said_to_name_none() -> None:
    assert not any(names_view(Header(view=view)) for view in ("", "YL", "CANARY", "SUPINE", "LL"))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"views": (Code("X", "99L", "left lateral"),)}, "lateral_view"),
        ({"view": "PA", "views": (Code("R-10236", "SRT"),)}, "lateral_view"),
        ({"patient_orientation": ("A", "F")}, "lateral_view"),
        ({"patient_orientation": ("P", "FL")}, "lateral_view"),
        ({"body_part": "HAND"}, "wrong_body_part"),
        ({"presentation_intent": "FOR PROCESSING"}, "for_processing"),
        ({"presentation_intent": "FOR_PROCESSING"}, "for_processing"),
        ({"sop_class": selection.DX_PROCESSING}, "for_processing"),
        ({"image_type": ("DERIVED", "SECONDARY", "LOCALIZER")}, "derived_image"),
        ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, "derived_image"),
        ({}, ""),
        ({"body_part": "CHEST", "view": "PA"}, ""),
        ({"view": "PA", "patient_orientation": ("A", "F")}, ""),
        ({"image_type": ("DERIVED", "SECONDARY")}, ""),
    ],
)
def test_selection(changes: dict[str, object], code: str) -> None:
    assert reason_of(Header(**changes)) == code  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (("L", "F"), False),
        (("LP", "FA"), False),
        (("R", "F"), True),
        (("F", "R"), True),
        (("A", "F"), True),
        ((), False),
        (("L",), False),
        (("X", "Y"), False),
    ],
)
def test_patient_orientation_tells_turned_images(orientation: tuple[str, ...], turned: bool) -> None:
    assert is_turned(orientation) is turned


@pytest.mark.parametrize("word", ["PECHO", "BRYST", "Brust", "PIERŚ"])
def test_a_word_for_breast_or_chest_is_the_chest_unless_the_view_is_a_mammogram_s(word: str) -> None:
    assert reason_of(Header(body_part=word)) == reason_of(Header(body_part=word, view="PA")) == ""
    for header in (Header(body_part=word, view="MLO"), Header(body_part=word, view="CC"), Header(body_part=word, series="L CC")):
        assert reason_of(header) == "wrong_body_part"
    for code, _ in mammography_views():
        assert reason_of(Header(body_part=word, views=(Code(code, "SCT"),))) == "wrong_body_part"
    assert reason_of(Header(body_part="CHEST", view="CC")) == ""


def mammography_views() -> list[tuple[str, str]]:
    """(code, meaning) of CID 4014 'View for Mammography'."""
    named: list[str] = cid_concepts[4014]["SCT"]
    listed = [(code, meaning) for name in named for code, (meaning, lists) in concepts["SCT"][name].items() if 4014 in lists]
    return [(code, meaning) for code, meaning in listed if "specimen" not in meaning]


def test_a_rib_cage_is_the_chest_where_the_view_is_frontal() -> None:
    assert reason_of(Header(body_part="RIB CAGE", view="PA")) == "" == reason_of(Header(body_part="RIBCAGE", series="Chest AP"))
    assert reason_of(Header(body_part="RIB CAGE")) == "wrong_body_part"


@pytest.mark.parametrize("text", ["Anonymous", "REDACTED", "XXX"])
def test_what_a_de_identifier_left_is_blank(text: str) -> None:
    header = Header(body_part=text, view=text, species=(Code("", "", text),))
    assert is_chest(text) is None and reason_of(header) == "" and not selection.is_animal(header)


@pytest.mark.parametrize("body_part", ["TORACE LL", "CHEST LAT", "ОГК бок"])
def test_a_body_part_may_name_the_view(body_part: str) -> None:
    assert reason_of(Header(body_part=body_part)) == "lateral_view" and reason_of(Header(body_part=body_part, view="PA")) == ""
