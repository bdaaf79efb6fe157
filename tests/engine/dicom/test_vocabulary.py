import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dicom.vocabulary import (
    is_placeholder,
    may_be_breast,
    names_chest,
    names_frontal,
    names_rib_cage,
    names_sideways,
    plain,
    words_of,
)

CHEST = {
    "German": ["Thorax", "Brustkorb", "Brust", "Lunge", "Rö-Thorax p.a.", "Herz/Lunge"],
    "French": ["thorax", "poumons", "poitrine", "cage thoracique", "cœur"],
    "Spanish": ["tórax", "pecho", "pulmones", "corazón", "caja torácica"],
    "Portuguese": ["tórax", "peito", "pulmões", "pulmão"],
    "Italian": ["torace", "petto", "polmoni", "gabbia toracica"],
    "Catalan": ["tòrax", "pit", "pulmons"],
    "Dutch": ["thorax", "borstkas", "borst", "longen", "hart/long"],
    "Swedish": ["bröstkorg", "lungor", "BROESTKORG", "hjärta"],
    "Danish": ["brystkasse", "bryst", "lunger", "hjerte"],
    "Norwegian": ["brystkasse", "toraks", "lunger"],
    "Finnish": ["rintakehä", "keuhkot", "rinta"],
    "Icelandic": ["brjóstkassi", "lungu"],
    "Polish": ["klatka piersiowa", "płuca", "RTG kl. piersiowej", "KLP"],
    "Czech": ["hrudník", "plíce", "hrudní koš"],
    "Slovak": ["hrudník", "hrudný kôš", "pľúca"],
    "Hungarian": ["mellkas", "tüdő", "MELLKASI RTG"],
    "Romanian": ["torace", "piept", "plămâni", "PLAMANI", "cord-pulmon"],
    "Bulgarian": ["гръден кош", "бял дроб", "GRADEN KOSH"],
    "Russian": ["грудная клетка", "лёгкие", "ОГК", "О.Г.К.", "органы грудной клетки", "флюорография", "GRUDNAYA KLETKA", "LEGKIE"],
    "Ukrainian": ["грудна клітка", "легені", "ОГП"],
    "Serbian": ["grudni koš", "pluća", "грудни кош", "плућа"],
    "Croatian": ["prsni koš", "prsa", "pluća", "PRSNI KOS"],
    "Slovenian": ["prsni koš", "pljuča", "prsi"],
    "Greek": ["θώρακας", "πνεύμονες", "α/α θώρακος", "στήθος", "THORAKAS"],
    "Turkish": ["göğüs", "akciğer", "AKCIGER GRAFISI", "toraks", "PA AC", "PAAC", "P.A. AC GRAFİSİ"],
    "Arabic": ["صدر", "الصدر", "رئة", "الرئتين"],
    "Hebrew": ["חזה", "בית החזה", "ריאות"],
    "Persian": ["سینه", "ریه", "قفسه سینه", "قفسه صدری"],
    "Chinese": ["胸部", "肺", "胸片", "胸部正位", "XIONGBU"],
    "Japanese": ["胸部", "肺", "胸郭", "ｷｮｳﾌﾞ", "KYOBU"],
    "Korean": ["흉부", "폐", "가슴"],
    "Vietnamese": ["ngực", "lồng ngực", "phổi", "NGUC THANG"],
    "Thai": ["ทรวงอก", "ปอด", "หน้าอก"],
    "Indonesian": ["dada", "paru-paru", "FOTO TORAKS", "thorax pa"],
    "Estonian": ["rindkere", "kopsud"],
    "Latvian": ["krūškurvis", "plaušas", "KRUSKURVIS"],
    "Lithuanian": ["krūtinės ląsta", "plaučiai", "KRUTINES LASTA"],
    "Hindi": ["छाती", "फेफड़े"],
    "Albanian": ["kraharori", "mushkëri"],
}


def without_accents(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter))


@pytest.mark.parametrize("language", CHEST)
def test_the_chest_in_many_languages(language: str) -> None:
    for word in CHEST[language]:
        for spelt in (word, word.upper(), unicodedata.normalize("NFD", word), without_accents(word)):
            assert names_chest(spelt) is True, spelt


@pytest.mark.parametrize(
    "word",
    [
        *(
            "Brustwirbelsäule",
            "Brustbein",
            "rachis dorsal",
            "columna torácica",
            "colonna toracica",
            "borstwervelkolom",
            "bröstrygg",
            "rintaranka",
        ),
        *(
            "kręgosłup piersiowy",
            "hrudní páteř",
            "hrudná chrbtica",
            "coloana toracală",
            "грудной отдел позвоночника",
            "грудина",
            "prsna kost",
        ),
        *(
            "θωρακική μοίρα σπονδυλικής στήλης",
            "torakal vertebra",
            "العمود الفقري الصدري",
            "ستون فقرات سینه ای",
            "胸椎",
            "胸骨",
            "肋骨",
            "흉추",
        ),
        *(
            "cột sống ngực",
            "กระดูกสันหลังส่วนอก",
            "tulang rusuk",
            "RIBS",
            "Rippen",
            "côtes",
            "costillas",
            "żebra",
            "ребра",
            "LONG LEG",
            "AC JOINT",
        ),
        *("HAND", "abdomen", "breast", "mamma", "sein", "Becken", "腹部", "брюшная полость", "knie", "שדרה חזית"),
    ],
)
def test_other_parts_and_bones_around_the_chest_are_none(word: str) -> None:
    assert names_chest(word) is False


def test_words_that_also_mean_breast() -> None:
    assert all(may_be_breast(word) for word in ("PECHO", "BRYST", "Brust", "pierś", "krūtis", "göğüs"))
    assert not any(may_be_breast(word) for word in ("CHEST", "THORAX", "BRUSTKORB", "BRYSTKASSE"))
    assert names_rib_cage("Rib cage") and not names_rib_cage("RIBS")


SIDEWAYS = {
    "lateral": [
        *(
            "LAT",
            "Thorax seitl.",
            "Thorax seitlich",
            "de profil",
            "perfil",
            "Torace LL",
            "Torax L-L",
            "laterale",
            "dwars",
            "zijdelings",
            "sidobild",
        ),
        *(
            "sidebilde",
            "Thorax side",
            "sivukuva",
            "bočná",
            "bočni",
            "boczne",
            "bok",
            "oldalirányú",
            "bočný",
            "боковая",
            "ОГК бок",
            "бічна",
            "профил",
        ),
        *(
            "stranska",
            "πλάγια",
            "yan",
            "Akciğer yan",
            "جانبي",
            "نیمرخ",
            "צדדי",
            "側面",
            "侧位",
            "左侧位",
            "측면",
            "nghiêng",
            "ด้านข้าง",
            "külgülesvõte",
            "šoninė",
        ),
    ],
    "oblique": [
        *(
            "Chest RAO",
            "oblique",
            "oblicua",
            "obliqua",
            "schräg",
            "SCHRAEG",
            "schuin",
            "skrå",
            "skośne",
            "šikmá",
            "ferde",
            "косая",
            "oblik",
        ),
        *("λοξή", "مائل", "אלכסוני", "斜位", "사위", "เฉียง"),
    ],
    "decubitus": [
        "Chest LLD",
        "Chest Decub",
        "decubitus",
        "decúbito lateral",
        "Seitenlage",
        "側臥位",
        "侧卧位",
        "측와위",
        "cross table",
        "X-TABLE",
    ],
}


@pytest.mark.parametrize("kind", SIDEWAYS)
def test_views_from_the_side_in_many_languages(kind: str) -> None:
    for word in SIDEWAYS[kind]:
        for spelt in (word, word.upper(), unicodedata.normalize("NFD", word)):
            assert names_sideways(spelt), spelt
            assert not names_frontal(spelt), spelt


@pytest.mark.parametrize(
    "word",
    [
        *(
            "PA",
            "Thorax a.p.",
            "P. A.",
            "Thorax frontal",
            "de face",
            "frente",
            "przednio-tylne",
            "zadopřední",
            "прямая",
            "ΟΠΙΣΘΟΠΡΟΣΘΙΑ",
            "ön-arka PA",
        ),
        *("امامي خلفي", "رخ", "חזיתי", "正位", "后前位", "正面", "정면", "thẳng", "ด้านหน้า", "etukuva", "AP SUPINE"),
    ],
)
def test_frontal_views_in_many_languages(word: str) -> None:
    assert names_frontal(word) and not names_sideways(word)


@pytest.mark.parametrize(
    "word", ["", "CHEST", "bed side", "LEFT SIDE UP", "bilateral", "両側", "双侧", "supine decubitus", "décubitus dorsal", "Lunge bds."]
)
def test_what_names_no_view_from_the_side(word: str) -> None:
    assert not names_sideways(word)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Anonymous",
            "ANONYMIZED",
            "anonymisiert",
            "anonimizado",
            "De-identified",
            "REDACTED",
            "REMOVED",
            "XXX",
            "xxxx",
            "X",
            "000",
            "- - X X X",
        ),
        *("NO VALUE", "DEIDENTIFIED", "blank", "masked", "not available", "ZZZZ"),
    ],
)
def test_what_is_left_where_a_text_was_removed(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["", "CHEST", "PA", "AP", "1.2.3", "Smith", "0042", "LLX"])
def test_what_is_no_placeholder(text: str) -> None:
    assert not is_placeholder(text)


@given(st.text())
def test_any_text_has_words(text: str) -> None:
    assert all(word == word.upper() or not word.isascii() for word in words_of(text))
    assert plain(text) == " ".join(words_of(text))


def test_initials_are_one_word() -> None:
    assert words_of("Tórax (a.p.)") == ["TORAX", "AP"] and words_of("L-L") == ["LL"] and words_of("О.Г.К.") == ["ОГК"]
    assert words_of("PA/LAT") == ["PA", "LAT"]
