"""Images that are no plain frontal exposure of the chest, by their tags: flags that keep an image out of the score of its study.

`dual_energy`     Image Type (PS3.3 C.7.6.1.1.2), or what describes series, protocol, device processing or derivation.
`tomosynthesis`   the same.
`phantom`         Quality Control Image (0028,0300) is YES or BOTH, or the same texts, the patient's ID or name hold the word.
`rejected_image`  Image Type or the series says REJECTED or QC.
`rib_view`        the series, the protocol or the view names ribs, sternum, clavicle, scapula, shoulder or thoracic spine, or
                  AnatomicRegionSequence does by code; not where a text names the chest along with them ("Chest and ribs").
"""

from __future__ import annotations

from engine.dicom.header import Header
from engine.dicom.vocabulary import (
    DUAL_ENERGY,
    DUAL_ENERGY_TYPES,
    PHANTOM,
    REJECTED,
    RIBS,
    RIBS_WITH_CHEST,
    TOMOSYNTHESIS,
    names_chest,
    names_rib_cage,
    plain,
)

_BONE_CODES = frozenset(
    {
        "T-11300", "T-11210", "T-12310", "T-12280", "T-D2220", "T-15610", "T-15420", "T-11502", "T-D04FF", "T-11501", "T-11503",
        "113197003", "56873002", "51299004", "79601000", "16982005", "7844006", "85856004", "122495006", "421060004", "1217256009",
        "1217257000", "122494005", "122496007",
    }
)  # fmt: skip
"""Of CID 4009 'DX Anatomy Imaged' (SNOMED RT and CT): bones and joints around the chest, which BodyPartExamined may call CHEST."""


def exposure_flags(header: Header) -> tuple[str, ...]:
    """The flags of an image that is no plain frontal exposure, () for one that is, as far as its tags say."""
    kinds, series = plain(" / ".join(header.image_type)), plain(header.series)
    described = plain(" / ".join((header.series, header.device_processing, header.derivation)))
    flags = []
    if DUAL_ENERGY.search(described) or DUAL_ENERGY_TYPES.search(kinds):
        flags.append("dual_energy")
    if TOMOSYNTHESIS.search(f"{kinds} {described}"):
        flags.append("tomosynthesis")
    if header.quality_control in ("YES", "BOTH") or header.phantom or PHANTOM.search(f"{kinds} {described}"):
        flags.append("phantom")
    if REJECTED.search(f"{kinds} {series}"):
        flags.append("rejected_image")
    if "dual_energy" not in flags and _shows_ribs(header):
        flags.append("rib_view")
    return tuple(flags)


def _shows_ribs(header: Header) -> bool:
    codes = {region.value for region in header.regions}
    if codes and codes <= _BONE_CODES:
        return True
    for text in (header.view, *header.series.split(" / ")):
        words = plain(text)
        with_chest = names_chest(text) and RIBS_WITH_CHEST.search(f"{words}{' AND' if set('+&/') & set(text) else ''}")
        if RIBS.search(words) and not names_rib_cage(text) and not with_chest:
            return True
        if names_chest(text):
            return False
    return False
