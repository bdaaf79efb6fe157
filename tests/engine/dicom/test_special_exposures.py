import numpy as np
import pytest

from engine.dicom.header import Code, Header
from engine.dicom.reasons import FLAGS, NOT_IN_MEAN
from engine.dicom.special_exposures import exposure_flags


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"image_type": ("DERIVED", "PRIMARY", "", "BONE")}, "dual_energy"),
        ({"image_type": ("DERIVED", "PRIMARY", "SOFT_TISSUE")}, "dual_energy"),
        ({"image_type": ("DERIVED", "PRIMARY", "DUAL_ENERGY")}, "dual_energy"),
        ({"series": "Chest PA DE Bone"}, "dual_energy"),
        ({"series": "CHEST / Dual-Energy soft tissue"}, "dual_energy"),
        ({"series": "Thorax Weichteilbild"}, "dual_energy"),
        ({"series": "Chest rib suppression"}, "dual_energy"),
        ({"derivation": "Dual energy subtraction"}, "dual_energy"),
        ({"image_type": ("DERIVED", "PRIMARY", "TOMOSYNTHESIS")}, "tomosynthesis"),
        ({"series": "CHEST VolumeRAD"}, "tomosynthesis"),
        ({"series": "Thorax Tomo"}, "tomosynthesis"),
        ({"device_processing": "TOMOSYNTHESIS CHEST"}, "tomosynthesis"),
        ({"quality_control": "YES"}, "phantom"),
        ({"quality_control": "BOTH"}, "phantom"),
        ({"series": "QA / Chest phantom"}, "phantom"),
        ({"phantom": True}, "phantom"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "REJECTED")}, "rejected_image"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "QC")}, "rejected_image"),
        ({"series": "Rejected"}, "rejected_image"),
        ({"series": "RIBS UPPER AP"}, "rib_view"),
        ({"series": "Rippen links"}, "rib_view"),
        ({"series": "Gril costal"}, "rib_view"),
        ({"series": "parrilla / costillas derechas"}, "rib_view"),
        ({"series": "рёбра слева"}, "rib_view"),
        ({"series": "肋骨"}, "rib_view"),
        ({"series": "Sternum"}, "rib_view"),
        ({"series": "T-Spine AP"}, "rib_view"),
        ({"series": "clavicle"}, "rib_view"),
        ({"view": "RIBS"}, "rib_view"),
        ({"regions": (Code("113197003", "SCT"),)}, "rib_view"),
        ({"regions": (Code("T-11210", "SRT"),)}, "rib_view"),
    ],
)
def test_what_is_no_plain_exposure_has_its_flag(changes: dict[str, object], flag: str) -> None:
    assert flag in exposure_flags(Header(body_part="CHEST", **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"series": "Chest PA"},
        {"series": "Radiographie des poumons"},
        {"series": "Chest and ribs"},
        {"series": "RIBS W/ CHEST"},
        {"series": "Chest PA / RIBS AND CHEST"},
        {"series": "Rib cage PA"},
        {"series": "Thorax côté gauche"},
        {"image_type": ("ORIGINAL", "PRIMARY")},
        {"image_type": ("DERIVED", "SECONDARY")},
        {"quality_control": "NO"},
        {"device_processing": "CHEST,STANDARD SOFT"},
        {"regions": (Code("51185008", "SCT"),)},
        {"regions": (Code("51185008", "SCT"), Code("113197003", "SCT"))},
    ],
)
def test_a_plain_exposure_has_none(changes: dict[str, object]) -> None:
    assert exposure_flags(Header(body_part="CHEST", **changes)) == ()  # type: ignore[arg-type]


def test_the_flags_leave_an_image_out_of_its_study() -> None:
    assert set(FLAGS) >= NOT_IN_MEAN == {"dual_energy", "tomosynthesis", "phantom", "rejected_image", "rib_view"}


@pytest.mark.parametrize(
    ("tags", "flag"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "", "BONE"], "SeriesDescription": "Chest PA DE Bone"}, "dual_energy"),
        ({"ProtocolName": "RIBS UPPER AP"}, "rib_view"),
        ({"QualityControlImage": "YES"}, "phantom"),
        ({"PatientName": "PHANTOM^QC"}, "phantom"),
        ({"PatientID": "phantom 7"}, "phantom"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "REJECTED"]}, "rejected_image"),
        ({"DerivationDescription": "tomosynthesis slice 3 of 40"}, "tomosynthesis"),
    ],
)
def test_such_an_image_is_scored_with_its_flag(make, read, tags: dict[str, object], flag: str) -> None:
    got = read(make.radiograph(**tags))
    assert got.outcome == "score" and got.flags == (flag,)
    assert np.array_equal(got.image, read(make.radiograph()).image)
