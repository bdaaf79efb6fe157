import io
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from engine.dicom.reading import Reading

Read = Callable[..., Reading]


def saved(values: np.ndarray, kind: str = "PNG", **options: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def grey(make: SimpleNamespace) -> np.ndarray:
    return (make.chest() >> 4).astype(np.uint8)


def test_pictures_are_read_only_where_they_are_asked_for(read: Read, grey: np.ndarray) -> None:
    assert read(saved(grey), "a.png").outcome == "skip"
    got = read(saved(grey), "a.png", pictures=True)
    assert (got.outcome, got.rows, got.columns, got.modality, got.flags) == ("score", 300, 256, None, ())
    assert got.picture is not None and got.picture.shape == (75, 64) and got.pixel_hash is not None


def test_png_and_jpeg_of_one_picture_agree(read: Read, grey: np.ndarray) -> None:
    png, jpeg = read(saved(grey), "a.png", pictures=True), read(saved(grey, "JPEG", quality=95), "misnamed.dcm", pictures=True)
    assert np.abs(png.picture.astype(float) - jpeg.picture).mean() < 0.6


def test_sixteen_bits_are_scaled_by_the_range_they_use(make: SimpleNamespace, read: Read) -> None:
    twelve = make.chest()
    got = read(saved(twelve), "a.png", pictures=True)
    assert got.picture.min() < 10 and got.picture.max() > 245, "an 8-bit conversion would clip or blacken it"
    louder = read(saved((twelve * 15).astype(np.uint16)), "a.png", pictures=True)
    assert np.abs(got.picture.astype(float) - louder.picture).mean() < 0.6


def test_grey_in_colour_is_read_and_colour_is_not(read: Read, grey: np.ndarray) -> None:
    three = np.repeat(grey[..., None], 3, -1)
    got = read(saved(three), "a.png", pictures=True)
    assert got.flags == ("color_as_grey",) and got.outcome == "score"
    assert read(saved(np.stack([grey, 255 - grey, grey], -1)), "a.png", pictures=True).reason == "color_image"


def test_pictures_that_cannot_be_used(read: Read, grey: np.ndarray) -> None:
    from engine.dicom.limits import Limits

    noise = np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)
    assert read(saved(noise)[:-20000], "a.png", pictures=True).reason == "truncated"
    assert read(saved(noise, "JPEG")[:-9000], "a.jpg", pictures=True).reason == "truncated"
    assert read(saved(grey[:40]), "a.png", pictures=True).reason == "too_small"
    assert read(saved(np.full((100, 100), 7, np.uint8)), "a.png", pictures=True).reason == "degenerate_image"
    assert read(saved(grey), "a.png", pictures=True, limits=Limits(pixels=1000)).reason == "resource_limit"


def test_our_limit_of_pixels_counts_and_not_pillow_s(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (100, 100), dtype=np.uint8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # it refuses twice as many
    assert read(saved(grey), "a.png", pictures=True).outcome == "score"
    assert Image.MAX_IMAGE_PIXELS == 100
    assert read(b"GIF89a" + b"\0" * 100, "a.gif", pictures=True).reason == "not_dicom"
