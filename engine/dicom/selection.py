"""Which images are scored: frontal chest radiographs for presentation, by SOP class, modality, body part, view and intent.

What tags decide, and what happens where they are blank:
  - SOP class: Computed Radiography, Digital X-Ray, Secondary Capture of any kind (flagged); no other. FOR PROCESSING is rejected, by the
    class or by the tag. Where the data set names no class the file meta group does.
  - Modality: CR, DX, RG or DR, or several of these. Blank passes for the first two classes, not for captures.
  - BodyPartExamined: the chest in the words of many languages (vocabulary.py), alone or with other parts (CHEST_ABDOMEN). Ribs, sternum,
    clavicle and thoracic spine are other parts, and so is a word that is not known. Blank, or words that say nothing (PORTABLE), pass;
    there AnatomicRegionSequence decides by its codes. Words that mean chest or breast (PECHO, BRYST, BRUST) are the chest unless the view
    is one of mammography; RIB CAGE is the chest where a tag says that the view is frontal.
  - What a de-identifier left (ANONYMIZED, REDACTED, XXX) counts as blank, in BodyPartExamined, ViewPosition, Modality and the patient's
    species, with the flag `bad_attribute`.
  - UIDs: where one is absent, or holds what a de-identifier left, the image is named by its content, and its study by the image table or by
    the image itself. Hashes, numbers and other harmless text name what they name, with the flag `invalid_uid`.
  - ViewPosition and ViewCodeSequence: lateral, oblique or lateral decubitus in either rejects the image. Where neither names a view,
    SeriesDescription, ProtocolName and BodyPartExamined do, unless they name both kinds ("Chest PA and lateral"); then PatientOrientation
    (rows that run to the front or the back are a lateral's). Where no tag says that the view is frontal the flag is `view_unknown`.
  - ImageType: localizers and images computed from something else than a radiograph are rejected.
  - Dual-energy bone and soft-tissue images, tomosynthesis, phantoms, rejected exposures and rib views (special_exposures.py) are flagged,
    scored image by image, and left out of the score of their study. A study that has no other image has no row in `scores.csv`.
  - Animals, by PatientSpeciesDescription or by what the device was set to process, are flagged `out_of_distribution`.
  - StudyDescription is not read: it names what was asked for. No text is passed on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.dicom import vocabulary
from engine.dicom.reasons import Refusal
from engine.dicom.vocabulary import SAYS_NOTHING, SIDEWAYS_TERMS, is_placeholder, names_frontal, names_sideways, words_of

if TYPE_CHECKING:
    from engine.dicom.header import Code, Header

CR = "1.2.840.10008.5.1.4.1.1.1"
DX_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MULTI_FRAME_CAPTURES = frozenset(f"{SECONDARY_CAPTURE}.{n}" for n in (1, 2, 3, 4))
DICOMDIR = "1.2.840.10008.1.3.10"

RADIOGRAPH_CLASSES = frozenset({CR, DX_PRESENTATION, DX_PROCESSING})
CAPTURE_CLASSES = frozenset({SECONDARY_CAPTURE}) | MULTI_FRAME_CAPTURES
SCORED_CLASSES = RADIOGRAPH_CLASSES | CAPTURE_CLASSES
RADIOGRAPH_MODALITIES = frozenset({"CR", "DX", "RG", "DR"})
"""RG is what film scanners write; DR was never a defined term but is common in the field."""
MIN_SIDE = 64
"""Pixels; thumbnails and remnants below this are not scored."""


# --- body part ------------------------------------------------------------------------------------------------------------------

_CHEST_CODES = frozenset(
    {
        "T-D3000", "T-D3050", "T-D3200", "T-28000", "T-280A0", "T-26000", "T-D3300", "T-32000",
        "R-FAB52", "R-FAB53", "R-FAB54", "R-FAB55", "R-FAB56",
        "51185008", "78904004", "43799004", "816094009", "39607008", "86598002", "955009", "72410000", "80891009",
        "417437006", "416152001", "416319003", "416550000", "416775004",
    }
)  # fmt: skip
"""CID 4009 'DX Anatomy Imaged' (SNOMED RT and CT): chest, its wall and cavity, lung, bronchus, mediastinum, heart, and what includes it."""
_NEUTRAL_CODES = frozenset({"T-D0010", "38266002", "T-D2000", "22943007"})
"""Entire body, trunk."""
_STANDARD_SCHEMES = frozenset({"SRT", "SNM3", "99SDM", "SCT"})


def is_chest(body_part: str) -> bool | None:
    """True or False where BodyPartExamined says so, None where it is blank or says nothing (PS3.3 C.8.11.1.1; free text in CR)."""
    return None if is_placeholder(body_part) else vocabulary.names_chest(body_part)


def _is_chest_region(region: Code) -> bool | None:
    """As `is_chest`, for one item of AnatomicRegionSequence (C.8.11.2.1): codes of SNOMED decide, of others what they mean in words."""
    if region.value in _CHEST_CODES or is_chest(region.meaning):
        return True
    return False if region.scheme in _STANDARD_SCHEMES and region.value and region.value not in _NEUTRAL_CODES else None


def shows_chest(header: Header) -> bool | None:
    """True or False where the tags say which part of the body was taken, None where they do not."""
    said = is_chest(header.body_part)
    if said and vocabulary.may_be_breast(header.body_part) and _is_mammogram(header):
        return False
    if said is False and vocabulary.names_rib_cage(header.body_part) and names_view(header):
        return True
    if said is not None or not header.regions:
        return said
    answers = [_is_chest_region(region) for region in header.regions]
    return True if True in answers else None if None in answers else False


_MAMMOGRAPHY_VIEWS = frozenset({"CC", "MLO", "LMO", "ML", "LM", "XCC", "XCCL", "XCCM", "FB", "SIO", "ISO", "AT", "CV", "CCID", "MLOID"})
"""Of ViewPosition in mammography: what CR plates of breasts say."""
_MAMMOGRAPHY_CODES = frozenset(
    {
        "R-102D0", "R-10224", "R-1024A", "R-10226", "R-10228", "R-10230", "R-10242", "R-40AAA", "R-10244", "R-1024B",
        "399188001", "399260004", "399192008", "399368009", "399352003", "399099002", "399162004", "441555000", "399196006", "399101009",
    }
)  # fmt: skip
"""CID 4014 'View for Mammography' (SNOMED RT and CT)."""


def _is_mammogram(header: Header) -> bool:
    """Whether a tag names a view of mammography."""
    words = {*words_of(header.view), *words_of(header.series)}
    return not _MAMMOGRAPHY_VIEWS.isdisjoint(words) or any(code.value in _MAMMOGRAPHY_CODES for code in header.views)


_HUMAN_CODES = frozenset({"337915000", "L-85B00"})
_HUMAN_WORDS = frozenset({"HUMAN", "HOMO", "SAPIENS", "MAN", "PERSON"})
_ANIMALS = frozenset({"CANINE", "FELINE", "EQUINE", "BOVINE", "OVINE", "PORCINE", "AVIAN", "VETERINARY", "DOG", "CAT", "HORSE", "PRIMATE"})


def is_animal(header: Header) -> bool:
    """Whether the header says that no human was taken: by species (CID 7454), or by what the device was set to process (0018,1400)."""
    for species in header.species:
        words = words_of(species.meaning)
        human = species.value in _HUMAN_CODES or not _HUMAN_WORDS.isdisjoint(words)
        if not human and (species.value or not SAYS_NOTHING.issuperset(words)) and not is_placeholder(species.meaning):
            return True
    return not _ANIMALS.isdisjoint(words_of(header.device_processing))


# --- view -----------------------------------------------------------------------------------------------------------------------

FRONTAL_VIEWS = frozenset({"PA", "AP", "", "APAX", "AXIAL", "ANTEROPOSTERIOR", "POSTEROANTERIOR", "FRONTAL", "AP_SUPINE", "AP_ERECT"})
LATERAL_VIEWS = SIDEWAYS_TERMS | {"LAT", "LATERAL", "LO", "RO", "OBLIQUE", "XTL"}
"""Laterals, obliques and lateral decubitus: terms of ViewPosition (C.8.7.1.1.1, C.8.11.5.1.1), and common words."""
_LATERAL_WORDS = LATERAL_VIEWS | {"SIDE"}
_FRONTAL_CODES = frozenset({"R-10214", "R-40888", "R-10206", "R-10202", "272479007", "399348003", "399033003"})
_LATERAL_CODES = frozenset(
    {
        "R-102CD", "R-10236", "R-10232", "R-10224", "R-10228", "G-A145",
        "399067008", "399173006", "399198007", "399260004", "399352003", "30730003",
        "R-102C1", "R-10234", "R-10238", "R-10204", "R-10208", "R-10216", "R-10210", "R-10212", "R-10220", "R-40985",
        "R-10226", "R-10230", "R-40782", "R-40783", "R-10246", "R-10248", "R-10250", "R-10252", "R-10254",
        "399182000", "399236003", "399184004", "399160007", "399312000", "399059000", "399038007", "399006002", "399135007", "399356000",
        "399368009", "399099002", "260426006", "260427002", "399004004", "399288005", "399225005", "399132005", "399325008",
    }
)  # fmt: skip
"""CID 4010 'DX View' (SNOMED RT and CT): sagittal, the laterals; then the obliques."""


def says_lateral(view: str) -> bool:
    """Whether words of ViewPosition name a lateral, oblique or lateral decubitus view, among any other words."""
    words = words_of(view)
    return not _LATERAL_WORDS.isdisjoint([*words, "".join(words)]) or names_sideways(view)


def names_view(header: Header) -> bool:
    """Whether a tag says that the view is frontal."""
    if names_frontal(header.view) or any(code.value in _FRONTAL_CODES or names_frontal(code.meaning) for code in header.views):
        return True
    described = _described(header)
    return names_frontal(described) and not names_sideways(described)


def what_says_lateral(header: Header) -> str:
    """The keyword of the attribute that says that the view is lateral, oblique or lateral decubitus; '' where none does."""
    if says_lateral(header.view):
        return "ViewPosition"
    if any(code.value in _LATERAL_CODES or (code.value not in _FRONTAL_CODES and says_lateral(code.meaning)) for code in header.views):
        return "ViewCodeSequence"
    if names_view(header):
        return ""
    described = _described(header)
    if names_sideways(described) and not names_frontal(described):
        return "SeriesDescription" if names_sideways(header.series) else "BodyPartExamined"
    return "PatientOrientation" if _directions(header.patient_orientation)[:1] in ("A", "P") else ""


def _described(header: Header) -> str:
    """What names a view where ViewPosition does not."""
    return f"{header.series} / {header.body_part}"


def is_turned(orientation: tuple[str, ...]) -> bool:
    """Whether PatientOrientation (C.7.6.1.1.1) says other than a frontal image as it hangs: rows to L, columns to F."""
    return _directions(orientation) not in ("", "LF")


def _directions(orientation: tuple[str, ...]) -> str:
    """The main directions of rows and columns, two letters of LRHFAP; '' where they are not given."""
    if len(orientation) != 2 or not all(orientation):
        return ""
    main = (orientation[0][0] + orientation[1][0]).upper()
    return main if set(main) <= set("LRHFAP") else ""


# --- what the header rules out --------------------------------------------------------------------------------------------------

_DERIVED = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "MPR", "MIP", "MINIP", "DRR", "REFORMATTED"})
"""Words of ImageType (C.7.6.1.1.2) that name images made of something else than a radiograph."""


def refuse_class(sop_class: str, modality: str, *, has_image: bool) -> None:
    """Reject what is no radiograph by modality and SOP class; both may be empty strings, the modality may have several values.

    Objects without pixel data (reports, plans, structure sets, headers alone) are named by their class, images by their modality.

    Raises:
        Refusal: `wrong_modality`, `unsupported_sop_class`, `dicomdir`.
    """
    if sop_class == DICOMDIR:
        raise Refusal("dicomdir")
    other_class = bool(sop_class) and sop_class not in SCORED_CLASSES
    other_modality = bool(modality) and not RADIOGRAPH_MODALITIES.issuperset(_values(modality))
    if other_modality and has_image:
        raise Refusal("wrong_modality", "Modality")
    if other_class or other_modality:
        raise Refusal("unsupported_sop_class", "SOPClassUID" if other_class else "Modality")


def refuse_selection(header: Header) -> None:
    """Only frontal chest images for presentation; blank tags pass.

    Raises:
        Refusal: `for_processing`, `wrong_body_part`, `lateral_view`, `derived_image`.
    """
    if header.sop_class == DX_PROCESSING or "PROCESSING" in "".join(words_of(header.presentation_intent)):
        raise Refusal("for_processing", "SOPClassUID" if header.sop_class == DX_PROCESSING else "PresentationIntentType")
    if shows_chest(header) is False:
        raise Refusal("wrong_body_part", "AnatomicRegionSequence" if is_chest(header.body_part) is None else "BodyPartExamined")
    sideways = what_says_lateral(header)
    if sideways:
        raise Refusal("lateral_view", sideways)
    if not _DERIVED.isdisjoint(word.upper() for word in header.image_type):
        raise Refusal("derived_image", "ImageType")


def _values(text: str) -> Iterable[str]:
    return (value.strip() for value in text.split("\\"))
