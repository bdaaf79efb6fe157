"""Leakage that the patient column does not show: names of public data sets, and near copies."""

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from engine.data.leak_check import difference_hash, leak_by_copies, leaks_by_name, near_copies, patient_in_name


@pytest.mark.parametrize(
    ("path", "patient"),
    [
        ("files/p10/p10000032/s50414267/02aa804e.jpg", "p10000032"),
        ("CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg", "patient00001"),
        ("images/00000001_000.png", "00000001"),
        ("images\\00000001_001.png", "00000001"),
        ("PNEUMONIA/person1000_bacteria_2931.jpeg", "person1000"),
        ("NORMAL/NORMAL2-IM-0117-0001.jpeg", "NORMAL2-IM-0117"),
        ("a/Patient_007-2.png", "Patient_007"),
        ("0/20536686640136348236148679891455886468_k6ga29.png", None),
        ("1.2.840.113619.2.1.dcm", None),
        ("impatient.png", None),
        ("20200101_123.png", "20200101"),
    ],
)
def test_the_patient_in_the_name(path, patient):
    found = patient_in_name(path)
    assert (found and found[1]) == patient


def test_names_that_put_a_patient_into_two_splits_are_reported_with_counts():
    names = [f"{patient:08}_{number:03}.png" for patient in range(10) for number in range(2)]
    by_image = pl.DataFrame({"file": names, "part": ["train", "test"] * 10})
    (leak,) = leaks_by_name(by_image)
    assert (leak.layout, leak.patients, leak.images, leak.of) == ("ChestX-ray14", 10, 10, 10)
    assert "leakage by file names: named as in ChestX-ray14, 10 patients" in str(leak)
    by_patient = pl.DataFrame({"file": names, "part": ["train"] * 10 + ["test"] * 10})
    assert leaks_by_name(by_patient) == []
    assert leaks_by_name(by_image.with_columns(part=pl.lit(""))) == []


def smooth(seed, side=120):
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def test_near_copies_are_found_and_other_images_are_not():
    stream = io.BytesIO()
    Image.fromarray(smooth(0)).save(stream, "JPEG", quality=60)
    copies = [np.asarray(Image.open(stream)), np.asarray(Image.fromarray(smooth(1)).resize((60, 60))), (smooth(2) // 2).astype(np.uint8)]
    hashes = np.stack([difference_hash(smooth(seed)) for seed in range(30)])
    assert near_copies(np.stack([difference_hash(copy) for copy in copies]), hashes).all()
    assert not near_copies(hashes[:10], hashes[10:]).any()
    assert near_copies(hashes[:0], hashes).size == 0
    assert not near_copies(hashes[:3], hashes[:0]).any()
    assert "1 of the 2 test images are near copies" in leak_by_copies([copies[0], smooth(40)], [smooth(seed) for seed in range(5)])
    assert leak_by_copies([smooth(40)], [smooth(0)]) is None
    assert leak_by_copies([], [smooth(0)]) is None
