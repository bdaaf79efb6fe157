"""`MMCLIPModel.encode`: arrays, pictures and DICOM files with words, as in the README."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from engine import MMCLIPModel
from engine.errors import InputMissing, ReadError, UsageError

TEXTS = ["pneumonia", "no pneumonia"]


@pytest.fixture(scope="module")
def model(random_bundle, tmp_path_factory: pytest.TempPathFactory) -> MMCLIPModel:
    return MMCLIPModel(random_bundle(tmp_path_factory.mktemp("models") / "toy"))


def picture(seed: int = 0, shape: tuple[int, int] = (240, 288)) -> npt.NDArray[np.uint8]:
    """Soft shapes, 0 to 255 both reached."""
    coarse = np.random.default_rng(seed).random((5, 6))
    smooth = np.asarray(Image.fromarray(coarse.astype(np.float32)).resize(shape[::-1], Image.Resampling.BICUBIC))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.rint(smooth * 255).astype(np.uint8)


def write_dicom(path: Path, pixels: npt.NDArray[np.uint8], **changes: Any) -> Path:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "CR", "CHEST", "PA"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_one_picture_and_two_texts(model: MMCLIPModel) -> None:
    image_features, text_features = model.encode(picture(), TEXTS)
    assert image_features.shape == (1, 32)
    assert text_features.shape == (2, 32)
    cosines = image_features @ text_features.T
    assert (cosines.abs() <= 1).all()


def test_features_are_those_of_the_bundle(model: MMCLIPModel) -> None:
    image_features, text_features = model.encode([picture(1), picture(2, (64, 30))], TEXTS)
    assert torch.equal(image_features, model.bundle.image_features(model.bundle.pixels([picture(1), picture(2, (64, 30))])))
    assert torch.equal(text_features, model.bundle.text_features(TEXTS))


def test_one_text_is_one_row(model: MMCLIPModel) -> None:
    _, alone = model.encode(picture(), "pneumonia")
    _, both = model.encode(picture(), tuple(TEXTS))
    torch.testing.assert_close(alone, both[:1])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_other_types_are_scaled_from_their_lowest_to_their_highest(model: MMCLIPModel, dtype: type) -> None:
    expected, _ = model.encode(picture(), TEXTS)
    found, _ = model.encode(picture().astype(dtype) * 16 + 7, TEXTS)
    torch.testing.assert_close(found, expected)


def test_an_array_of_one_value_is_black(model: MMCLIPModel) -> None:
    found, _ = model.encode(np.full((240, 288), 7.5), TEXTS)
    expected, _ = model.encode(np.zeros((240, 288), np.uint8), TEXTS)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"this array is \(4, 4, 3\)"),
        (np.zeros(4), r"this array is \(4,\)"),
        (np.zeros((0, 4)), r"this array is \(0, 4\)"),
        (np.array([[1.0, np.nan]]), "NaN or infinite"),
        (np.array([[1.0, np.inf]]), "NaN or infinite"),
        (np.zeros((4, 4), complex), "an array of real numbers"),
        (np.array([["a"]]), "an array of real numbers"),
        (3, "this is int"),
        (b"bytes", "this is int"),
    ],
)
def test_what_is_no_picture_is_refused(model: MMCLIPModel, array: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model.encode(array, TEXTS)


def test_files_and_arrays_may_stand_together(model: MMCLIPModel, tmp_path: Path) -> None:
    """PNG and DICOM of the same pixels have the features of the array, in the order given."""
    png, dicom = tmp_path / "a.png", write_dicom(tmp_path / "b", picture(1))
    Image.fromarray(picture(1)).save(png)
    found, _ = model.encode([picture(2), png, picture(3), str(dicom)], TEXTS)
    expected, _ = model.encode([picture(2), picture(1), picture(3), picture(1)], TEXTS)
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]])
    assert (found[[1, 3]] * expected[[1, 3]]).sum(-1).min() > 0.99, "read at the model's own size first"
    assert (found[1] * found[3]).sum() > 0.999


def test_bone_is_bright_whatever_the_photometric_interpretation(model: MMCLIPModel, tmp_path: Path) -> None:
    usual = write_dicom(tmp_path / "a", picture(1))
    inverted = write_dicom(tmp_path / "b", 255 - picture(1), PhotometricInterpretation="MONOCHROME1")
    found, _ = model.encode([usual, inverted], TEXTS)
    torch.testing.assert_close(found[0], found[1])


def test_a_missing_file_is_missing(model: MMCLIPModel, tmp_path: Path) -> None:
    for path in (tmp_path / "none.dcm", tmp_path):
        with pytest.raises(InputMissing, match="no such image") as caught:
            model.encode([picture(), path], TEXTS)
        assert path.name not in str(caught.value), "a file name may name a patient"


def test_a_file_that_is_no_picture_says_why(model: MMCLIPModel, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture at all")
    with pytest.raises(ReadError, match="not_dicom"):
        model.encode(tmp_path / "notes.txt", TEXTS)


def test_a_dicom_file_that_is_no_chest_says_why(model: MMCLIPModel, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="wrong_body_part"):
        model.encode(write_dicom(tmp_path / "hand", picture(), BodyPartExamined="HAND"), TEXTS)


def test_no_pictures_or_no_texts_give_no_rows(model: MMCLIPModel) -> None:
    image_features, text_features = model.encode([], [])
    assert image_features.shape == text_features.shape == (0, 32)


def test_a_model_is_loaded_by_folder(random_bundle, model: MMCLIPModel, tmp_path: Path) -> None:
    bundle = random_bundle(tmp_path / "toy")
    loaded = MMCLIPModel.from_pretrained(tmp_path / "toy")
    assert loaded.bundle.content_hash == bundle.content_hash
    assert torch.equal(loaded.encode(picture(), TEXTS)[0], model.encode(picture(), TEXTS)[0])
    with pytest.raises(InputMissing, match="no model named"):
        MMCLIPModel.from_pretrained("no_such_model")


def test_a_text_that_is_cut_is_warned_of(model: MMCLIPModel) -> None:
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than the 32 tokens"):
        model.encode(picture(), ["edema", "x" * 40])
