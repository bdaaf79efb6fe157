"""Words of radiographs in many languages: chest, frontal, lateral, ribs, and what is found where a text was removed.

Texts are compared in capital letters without accents (`words_of`), so each word is listed once, as it is spelt. `parts` match anywhere in
a text and so take compounds and endings with them (THORAX in CHESTTHORAX, KLATK in KLATKI); `words` match whole words or phrases. Sources:
RadLex, SNOMED CT, CID 4009 and 4010 of PS3.16, radiology dictionaries; where people write without the letters of their language (SCHRAEG)
that spelling is listed too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_LONGEST = 1000
"""Letters of a tag that are read; a code string has 16."""

_LETTERS = str.maketrans(
    {"Ł": "L", "Ø": "O", "Đ": "D", "Ð": "D", "Þ": "TH", "Æ": "AE", "Œ": "OE", "Ə": "A", "ی": "ي", "ى": "ي", "ک": "ك", "ہ": "ه", "ە": "ه"}
)
"""Letters that have no accent to lose, and letters of Persian and Urdu that Arabic writes otherwise."""


def words_of(text: str) -> list[str]:
    """The words of a tag in capital letters without accents, whatever is between them: "Tórax (a.p.)" -> TORAX, AP."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text[:_LONGEST]).upper())
    plain = unicodedata.normalize("NFC", "".join(letter for letter in decomposed if unicodedata.category(letter)[0] != "M"))
    plain = re.sub(r"\b([^\W\d_])(?:\.\s?|-)(?=[^\W\d_]\b)", r"\1", plain.translate(_LETTERS))
    return re.findall(r"[^\W\d_]+", plain)


def _listed(text: str) -> set[str]:
    """The entries of a text with commas between them, each as `plain` gives it."""
    return {plain(entry) for entry in text.split(",") if entry.strip()}


def _pattern(parts: str = "", words: str = "", more: Iterable[str] = ()) -> re.Pattern[str]:
    """One pattern for texts of `plain`: parts match anywhere, words as whole words or phrases."""
    anywhere, whole = sorted(_listed(parts)), sorted({*_listed(words), *more})
    choices = [*map(re.escape, anywhere), *(rf"\b{re.escape(word)}\b" for word in whole)]
    return re.compile("|".join(choices))


def plain(text: str) -> str:
    """`words_of` as one text, a space between words."""
    return " ".join(words_of(text))


# --- what says nothing ----------------------------------------------------------------------------------------------------------

SAYS_NOTHING = frozenset(
    _listed(
        """
        UNKNOWN, UNK, OTHER, OTHERS, BODY, WHOLEBODY, WHOLE, ENTIRE, TRUNK, TORSO, UNDEFINED, UNSPECIFIED, NOT, SPECIFIED,
        APPLICABLE, NONE, NULL, NIL, NA, N, A, MISC, MISCELLANEOUS, VARIOUS, GENERAL, DEFAULT, PART, PORT, PORTABLE, BEDSIDE,
        MOBILE, VIEW, VIEWS, FRONTAL, PA, AP, ERECT, SUPINE, STANDING, SITTING, ADULT, CHILD, PEDIATRIC, PAEDIATRIC, INFANT,
        NEONATE, STANDARD, ROUTINE, SINGLE, PLAIN, IMAGE, AND, OR, XR, RX, RTG, XRAY, X, RAY, RO, ROE, CR, DX, DR, FILM, FOTO,
        GRAFI, GRAFISI, RENTGEN, RONTGEN, ROENTGEN, RADIOGRAPH, RADIOGRAPHY, RADIOGRAPHIE, RADIOGRAFIA, RADIOGRAFIE, SNIMAK,
        SNIMKA, SNIMEK, STEHEND
        """
    )
)
"""Words that name no part of the body."""

_REMOVED = _pattern(
    parts="""
    ANONYM, ANONIM, PSEUDONYM, IDENTIFIED, REDACT, REMOVED, DELETED, CLEARED, CLEANED, SCRUBBED, MASKED, HIDDEN, АНОНИМ
    """,
    words="""
    ANON, DEID, DEIDENT, BLANK, BLANKED, EMPTY, WITHHELD, SUPPRESSED, CONFIDENTIAL, PRIVATE, PROTECTED, DUMMY, NO VALUE, NOVALUE,
    NOT PROVIDED, NOT AVAILABLE, UNAVAILABLE, MISSING, ENTFERNT, GELOESCHT, SUPPRIME, OBFUSCATED, ELIMINADO, REMOVIDO, RIMOSSO,
    VERWIJDERD, USUNIETO, REPLACED, STRIPPED, SANITIZED, ENCRYPTED, CENSORED
    """,
)


def is_placeholder(text: str) -> bool:
    """Whether a text is found where another was removed: `ANONYMIZED`, `REDACTED`, `XXX`, `000`."""
    letters = re.sub(r"[\W_]+", "", text[:_LONGEST])
    if len(letters) > 1 and len(set(letters.upper())) == 1:
        return True
    return letters.upper() in ("X", "0") or _REMOVED.search(plain(text)) is not None


# --- chest ----------------------------------------------------------------------------------------------------------------------

_CHEST = _pattern(
    parts="""
    CHEST, CHST, THORAX, TORAX, TORACE, THORAKS, TORAKS, PULM, LUNG, MEDIASTIN, HEART, CARDIOPULM, BABYGRAM, BRUSTKORB, BRUSTRAUM,
    BORSTKAS, BRYSTKASS, BRYSTKASSE, BRÖSTKORG, BROESTKORG, BRJÓSTKASS, BRJÓSTHOL, HJÄRTA, POUMON, POITRINE, POLMON, PULMÃO,
    PULMÕES, CORAÇÃO, CORAZÓN, GABBIA TORAC, PLĂMÂN, PIEPT, PLAMAN, TELECARDIO, KLATK, PŁUC, HRUDNÍK, HRUDNÝ KOŠ, PLÍCE, PĽÚC,
    PLÚC, PLUĆ, PLJUČ, PRSNI KOŠ, GRUDNI KOŠ, ОГК, ЛЕГКИ, ЛЕГКІ, ЛЕГОЧН, ЛЕГЕН, ПЛУЋ, ПЛУЧ, ГРУДНИ КОШ, ПРСНИ КОШ, ГРЪДЕН КОШ,
    ГРАДЕН КОШ, БЯЛ ДРОБ, БЕЛИ ДРОБ, ФЛЮОРОГР, GRADEN KOSH, GRUDEN KOSH, BYAL DROB, BELI DROB, LEGKIE, LEGKIYE, LEGKIKH, LEHENI,
    LEGENI, GRUDNAYA KLET, KRŪTINĖS LĄST, PLAUČI, PLAUŠ, KRŪŠKURV, KRŪŠU KURV, KRŪTINĖS LĄSTA, RINTAKEHÄ, KEUHKO, RINDKERE,
    RINNAKORV, KOPSU, KOPSUD, MELLKAS, GÖĞÜS, AKCİĞER, AĞCİYƏR, PAAC, APAC, PA AC, AP AC, AC GRAF, AC PA, AC AP, KRAHAROR,
    MUSHKËRI, GJOKS, ΠΝΕΥΜ, ΘΩΡΑΚΑΣ, ΣΤΗΘΟΣ, PNEVMON, PNEUMON, STITHOS, გულმკერდ, ფილტვ, ԿՐԾՔԱՎԱՆԴԱԿ, ԹՈՔ, КЕУДЕ, ӨКПЕ, УУШГИ,
    ЦЭЭЖ, رئة, رئتين, الرئت, ريه, قفسه, سينه, سینہ, پھیپھڑ, چھاتی, ריאה, ריאות, בית החזה, छाती, सीना, फेफड़, বুক, ফুসফুস, 肺, 胸部,
    胸片, 胸廓, 胸郭, 胸腔, 心肺, 흉부, 폐, 가슴, 흉곽, キョウブ, きょうぶ, XIONGBU, XIONGPIAN, KYOUBU, KYOBU, HYUNGBU, ทรวงอก,
    ปอด, หน้าอก, LỒNG NGỰC, PHỔI, PARU, DIBDIB, KIFUA, MAPAFU
    """,
    words="""
    THX, CXR, THOR, TORSE, CARDIAC, HERZ, COEUR, CUORE, HART, HJERTE, SRCE, SERCE, SRDCE, SYDÄN, SZÍV, KALP, TÜDŐ, PLUCA, PLICE,
    LONGEN, LONG, HART LONG, LUNGE, KLP, KL PIERSIOWA, OGK, OGP, ОГП, FLG, ФЛГ, КАРДИО, СЕРДЦЕ, RINTA, RIND, KRAHËROR, ΚΑΡΔΙΑ, חזה,
    DADA, NGỰC, อก, XIONG, FEI, MUNE, HAI, ムネ, ハイ, PIT, BULARRA, BIRIKA, BRUST, BORST, BRYST, BRÖST, BROEST, PECHO, PEITO,
    PETTO, PIERŚ, PRSA, PRSI, HRUĎ, KRŪTIS, KRŪTINĖ, KRŪTINES, GRUD, ГРУДЬ, ГРУДИ, ГРУД, MELL, BRJÓST
    """,
)
"""The chest and what is in it. LONG and PIT are lung and chest in Dutch and Catalan: see `names_chest`."""

_OF_THE_CHEST = _pattern(
    parts="""
    THORAC, THORAK, TORAC, TORAK, GRUDN, HRUDN, PRSN, PIERSIOW, ГРУД, ГРЪД, ГРАДН, ПРСН, ΘΩΡΑ, 胸, 흉, صدر, חזה, سينه, อก
    """,
    words="KRŪTINĖS, KRŪŠU, NGUC, BRUST, BORST",
)
"""THORACIC, THORACAL, TORACICA: of the chest, or of the spine, sternum and ribs around it."""

_BONES = _pattern(
    parts="""
    SPIN, VERTEBR, WIRBEL, RACHI, COLUMN, COLONN, COLUNA, COLOAN, LUMB, CERVIC, DORSAL, POZVON, ПОЗВОН, ΣΠΟΝΔ, SPONDYL, KRĘGOSŁ,
    CHRBT, HRBTEN, KRALJEŽN, KIČM, GERINC, WERVEL, HVIRVEL, RYGG, SELKÄRANKA, STUBUR, SKRIEMEL, MUGURKAUL, ХРЕБ, ПРЕШЛЕН, ПРШЉЕН,
    КИЧМ, ГРУДИН, OMURGA, BONE, KEMIK, TULANG, XƯƠNG, CỘT SỐNG, กระดูก, 椎, 骨, 鎖, 锁, 흉추, 흉골, فقر, عظم, مهره, استخوان, שדרה,
    חוליות, עצם, STERN, COSTAL, COSTILL, LÜLI, SELGROO, THORACOLUMB
    """,
    words="""
    PÁTEŘ, KOST, KOSTI, RIB, RIBS, RIPPEN, COTES, MOSTEK, BWS, OSSO, HUESO, REBRA, ŻEBRA, РЕБРА
    """,
)
"""Bones around the chest, which are taken with exposures of their own."""

_BREAST_OR_CHEST = _pattern(
    words="""
    BRUST, BORST, BRYST, BRÖST, BROEST, PECHO, PEITO, PETTO, PIERŚ, PRSA, PRSI, KRŪTIS, RIND, MELL, GÖĞÜS, BRJÓST
    """,
)
_RIB_CAGE = _pattern(
    words="RIB CAGE, RIBCAGE",
)
_ALONE = frozenset({"LONG", "PIT", "HART", "HAI", "FEI", "RIND", "MELL", "MUNE"})
"""Words of the chest that mean something else in other company: LONG LEG."""


def names_chest(text: str) -> bool | None:
    """True or False where a text names a part of the body that is the chest or is not, None where it names none.

    What includes the chest is one (CHEST_ABDOMEN, two values); its bones alone are none (RIBS, STERNUM, CLAVICLE, TSPINE): they are
    taken with another exposure, often obliquely. A word of no meaning to us is another part.
    """
    words = words_of(text)
    if not words or SAYS_NOTHING.issuperset(words):
        return None
    found, joined = {match.group() for match in _CHEST.finditer(" ".join(words))}, " ".join(words)
    if found and not (_ALONE.issuperset(found) and not SAYS_NOTHING.union(_ALONE).issuperset(words)):
        weak = all(_OF_THE_CHEST.fullmatch(each) or _BREAST_OR_CHEST.fullmatch(each) for each in found)
        return not (weak and _BONES.search(joined))
    return _OF_THE_CHEST.search(joined) is not None and _BONES.search(joined) is None


def may_be_breast(text: str) -> bool:
    """Whether a text that names the chest may mean a breast: BRUST, PECHO, BRYST."""
    return _BREAST_OR_CHEST.search(plain(text)) is not None


def names_rib_cage(text: str) -> bool:
    """RIB CAGE: the chest where the view is frontal, else ribs."""
    return _RIB_CAGE.search(plain(text)) is not None


# --- views ----------------------------------------------------------------------------------------------------------------------

SIDEWAYS_TERMS = frozenset({"LL", "RL", "LLD", "RLD", "LLO", "RLO", "RAO", "LAO", "RPO", "LPO"})
"""Laterals, obliques and lateral decubitus: terms of ViewPosition (PS3.3 C.8.7.1.1.1, C.8.11.5.1.1) that no text means otherwise."""

_SIDEWAYS = _pattern(
    parts="""
    LATER, PROFIL, PERFIL, SEITL, ZIJDEL, ZIJAANZ, SIDEBILD, SIDOBILD, SIDOPROJ, SIDEOPTAG, SIVUKUVA, SIVUSUUN, HLIÐAR, BOCZN,
    BOČN, BOKOV, STRANSK, STRANIČ, БОКОВ, БОЧН, БІЧН, СТРАНИЧ, СТРАНИЧН, ПРОФИЛ, ПРОФІЛ, ПРОФИЛН, ŠONIN, SĀNSK, KÜLGÜL, KÜLJELT,
    OLDALIR, OLDALFELV, OLDALNÉZ, ΠΛΑΓΙ, ΠΡΟΦΙΛ, PLAGIA, جانب, نيمرخ, پهلو, צדדי, צידי, לטרל, 側, 侧, 측면, 옆면, 측와, ด้านข้าง,
    NGHIÊNG, SAMPING, ソクメン, そくめん, OBLIQ, OBLIC, OBLIK, SCHRÄG, SCHRAEG, SCHUIN, SKOŚN, ŠIKM, POŠEVN, ĮSTRIŽ, SLĪP, ОБЛИК,
    КОСАЯ, КОСОЙ, КОСА ПРОЕК, ΛΟΞ, مائل, אלכסונ, 斜, 사위, เฉียง, CHẾCH, SERONG, VIISTO, VINOKUVA, SEITENLAGE, SIDELEJ, SIDELEIE,
    SIDOLÄGE, ZIJLIG, KYLKIASEN, 側臥, 侧卧, XTABLE, CROSSTABLE, CROSS TABLE, X TABLE
    """,
    words="""
    LAT, LLAT, RLAT, LATS, OBL, OBLI, SEIT, SEITE, DWARS, SIDA, SIVU, VINO, SKRÅ, SKRAA, SNED, KALDU, HLIÐ, BOK, БОК, КОСО, KOSI,
    KOSA, ŠONAS, ŠONU, SĀNU, KÜLG, OLDAL, FERDE, YAN, צד, ข้าง, ヨコ, MIRING, SISI
    """,
    more=SIDEWAYS_TERMS,
)
_SIDE = _pattern(
    words="SIDE",
)
_OTHER_SIDE = _pattern(
    words="BED SIDE, LEFT SIDE, RIGHT SIDE, BOTH SIDE, EACH SIDE, ONE SIDE, SIDE UP, SIDE DOWN",
)
"""SIDE is a lateral in Danish and Norwegian, not in English."""
_OF_SIDES = re.compile(r"\b(BI|UNI|IPSI|CONTRA)LAT\w*|[両兩双雙左右]側(?!位)|[两双左右]侧(?!位)")
"""Of sides, not of views."""
_LYING = _pattern(
    parts="DECUB, DECÚB, DEKUB, ДЕКУБ",
)
_ON_THE_BACK = _pattern(
    parts="SUPIN, DORSAL, VENTRAL, PRONE, PRONO",
)

_FRONTAL = _pattern(
    parts="""
    POSTEROANT, POSTERO ANT, POSTERIOR ANT, ANTEROPOST, ANTERO POST, ANTERIOR POST, FRONTAL, ВПЕРЕД, ПРЯМАЯ, ПРЯМА, ПЕРЕДНЕ, ЗАДНЕ,
    ПЕРЕДНЬО, ФАС, PRZEDNIO, TYLNO, PREDOZAD, ZADOPŘED, ZADOPRED, ETUKUVA, FORFRA, ΟΠΙΣΘΟΠΡ, ΠΡΟΣΘΙΟΠ, امامي, خلفي, روبرو, קדמי,
    חזיתי, 正位, 正面, 后前, 後前, 前后, 前後, 정면, 후전, 전후, ด้านหน้า, ท่าตรง
    """,
    words="""
    PA, AP, APAX, AXIAL, FRONT, FACE, FRENTE, ETU, SZEMBŐL, OTSE, TIESINĖ, TIEŠĀ, FATA, ФАС, رخ, THẲNG, DEPAN, AP SUPINE, AP ERECT,
    ПП, ΠΑ
    """,
)


def names_frontal(text: str) -> bool:
    """Whether words name a frontal view."""
    words = words_of(text)
    return _FRONTAL.search(" ".join(words)) is not None or "".join(words) in ("PA", "AP")


def names_sideways(text: str) -> bool:
    """Whether words name a lateral, oblique or lateral decubitus view, among any other words ("CHEST LAT ERECT", "L-L", "Profil gauche").

    Decubitus alone is taken for lateral decubitus; lying on the back (supine, dorsal) is a frontal image.
    """
    joined = _OF_SIDES.sub(" ", plain(text))
    if _SIDEWAYS.search(joined) or (_SIDE.search(joined) and not _OTHER_SIDE.search(joined)):
        return True
    return _LYING.search(joined) is not None and _ON_THE_BACK.search(joined) is None


# --- other exposures ------------------------------------------------------------------------------------------------------------

RIBS = _pattern(
    parts="""
    RIPPE, COSTILL, COSTEL, GRIL COSTAL, COASTE, RIBBEN, REVBEN, RIBBEIN, KYLKILU, ŻEBR, ŽEBR, ŽEBER, REBRA, REBER, РЕБР, РЕБЕР,
    KABURGA, ŠONKAUL, BORDÁ, 肋, 늑골, 갈비, اضلاع, ضلوع, دنده, צלע, XƯƠNG SƯỜN, ซี่โครง, ΠΛΕΥΡΕΣ, ΠΛΕΥΡΩΝ, STERNUM, STERNAL,
    BRUSTBEIN, CLAVIC, CLAVÍC, SCHLÜSSELBEIN, SCHLUESSELBEIN, SCAPUL, SKAPUL, SHOULDER, SCHULTER, HEMITHORAX RIB, THORACIC SPINE,
    DORSAL SPINE, WIRBELS, RACHIS, COLUMNA, COLONNA, ПОЗВОН, 胸骨, 胸椎, 锁骨, 鎖骨
    """,
    words="RIB, RIBS, CÔTES, COSTE, RIBAS, ROIDED, BORDA, RUSUK, IGA, T SPINE, TSPINE, BWS",
)
"""Ribs, sternum, clavicle, scapula, shoulder and thoracic spine, taken with exposures of their own."""

RIBS_WITH_CHEST = _pattern(
    words="AND, WITH, W, ET, UND, Y, E, I, EN, MIT, OG, OCH, AVEC, CON",
)

DUAL_ENERGY = _pattern(
    parts="""
    DUAL ENERGY, DUALENERGY, DUAL EXPOSURE, ENERGY SUBTR, SUBTRACT, SOFT TISSUE, SOFTTISSUE, SOFT ONLY, BONE ONLY, BONE SUPPR,
    RIB SUPPR, CLEARREAD, DE SOFT, DE BONE, WEICHTEIL, KNOCHENBILD, DOPPELENERGIE, TISSUS MOUS, TISSU MOU, ДВУХЭНЕРГ,
    TEJIDO BLANDO, TEJIDOS BLANDOS, PARTES MOLES, TESSUTI MOLLI, DOPPIA ENERGIA, DOBLE ENERGIA, DUPLA ENERGIA, DOUBLE ENERGIE,
    双能, 雙能, 骨像, 软组织, 軟部, エネルギー, 이중에너지
    """,
    words="BONE, DUAL E, KNOCHEN",
)
DUAL_ENERGY_TYPES = _pattern(
    parts="SOFT, TISSUE, DUAL, ENERGY, SUBTRACT",
    words="BONE, DES",
)
"""Of values of Image Type, where these words mean nothing else."""
TOMOSYNTHESIS = _pattern(
    parts="TOMOSYN, TOMOSÍNT, TOMOGR, VOLUMERAD, ТОМОСИНТ, ТОМОГР, 断層, 断层, 斷層, トモシン",
    words="TOMO, DTS",
)
PHANTOM = _pattern(
    parts="PHANTOM, FANTOM, ФАНТОМ, 模体, 模體, ファントム, 팬텀",
)
REJECTED = _pattern(
    parts="REJECT, CALIBRAT, FLATFIELD, FLAT FIELD, QUALITY CONTROL",
    words="QC, QA, REJ, DISCARDED",
)
