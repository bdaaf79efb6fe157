"""Text that is drawn into a chest is found wherever and however it stands; markers and what a chest holds are none."""

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from engine.dicom.burned_in_text import candidates, shows_text, steps

LINES = ("SMITH^JOHN", "12/03/1957 14:22", "ID: 4838291", "ST. MARY HOSPITAL")
FONT = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"


@pytest.fixture(scope="module")
def radiograph(make) -> np.ndarray:
    """uint8 (600, 512)."""
    return (make.chest(600, 512) >> 4).astype(np.uint8)


def written(image: np.ndarray, text: str, place: tuple[int, int], capital: float, shade: int = 255, box: int | None = None) -> np.ndarray:
    sheet = Image.fromarray(image)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(FONT, capital / 0.72)
    if box is not None:
        pen.rectangle(pen.textbbox(place, text, font=font), fill=box)
    pen.text(place, text, fill=shade, font=font)
    return np.asarray(sheet)


def test_a_plain_chest_shows_no_text(radiograph):
    assert not shows_text(radiograph)


def test_a_line_of_text_is_found_wherever_it_stands_and_in_the_negative(radiograph):
    """400 lines from a seed. Of those that stand out none is missed; of those that are white on a bright heart and spine, few."""
    rng = np.random.default_rng(0)
    found: dict[str, list[bool]] = {"plain": [], "faint": []}
    for _ in range(400):
        (x, y), capital = rng.integers(4, (301, 561)), rng.uniform(8, 18)
        with_text = written(radiograph, str(rng.choice(LINES)), (int(x), int(y)), capital)
        changed = with_text != radiograph
        contrast = (with_text[changed].astype(int) - radiograph[changed]).max()
        with_text = 255 - with_text if rng.random() < 0.5 else with_text
        with_text = with_text[:, ::-1] if rng.random() < 0.5 else with_text
        found["plain" if contrast >= 140 else "faint"].append(shows_text(with_text))
    assert len(found["plain"]) > 200 and all(found["plain"])
    assert len(found["faint"]) > 100 and np.mean(found["faint"]) > 0.9


@pytest.mark.parametrize(("shade", "box"), [(0, None), (255, 0), (0, 255), (130, None)])
def test_black_white_boxed_and_grey_text_is_found(radiograph, shade, box):
    assert shows_text(written(radiograph, "MUELLER, ANNA 1957-03-12", (10, 10), 10, shade, box))


def test_small_print_of_several_lines_is_found(radiograph):
    assert shows_text(written(radiograph, "SMITH JOHN\nID 4838291\n12/03/1957\nCITY HOSPITAL", (12, 12), 6))


@pytest.mark.parametrize("marker", ["L", "R", "AP", "(L)", "RM"])
@pytest.mark.parametrize("capital", [8, 16, 30])
def test_a_lone_marker_is_no_text(radiograph, marker, capital):
    assert not shows_text(written(radiograph, marker, (420, 40), capital))


def test_an_arrow_a_wire_a_frame_and_a_ruler_are_no_text(radiograph):
    sheet = Image.fromarray(radiograph)
    pen = ImageDraw.Draw(sheet)
    pen.polygon([(40, 60), (50, 40), (60, 60), (53, 60), (53, 90), (47, 90), (47, 60)], fill=255)
    pen.line([(100, 0), (140, 200), (300, 320), (320, 600)], fill=240, width=3)
    pen.rectangle([5, 5, 506, 594], outline=255, width=2)
    pen.line([(20, 580), (480, 580)], fill=255)
    for x in range(20, 480, 20):
        pen.line([(x, 572), (x, 580)], fill=255)
    assert not shows_text(np.asarray(sheet))


@pytest.mark.parametrize("grain", [0.5, 4, 20, 60])
def test_noise_is_no_text(grain):
    noise = np.random.default_rng(1).normal(128, grain, (512, 512))
    assert not shows_text(np.clip(noise, 0, 255).astype(np.uint8))


def test_sixteen_greys_are_no_text_and_do_not_hide_it(radiograph):
    few = (radiograph >> 4) * 17
    assert not shows_text(few)
    assert shows_text(written(few, "SMITH^JOHN 12/03/1957", (30, 40), 10))


def test_the_scale_of_the_values_does_not_matter(radiograph):
    with_text = written(radiograph, "SMITH^JOHN", (30, 30), 9)
    assert np.array_equal(candidates(with_text, 255.0)[1], candidates(with_text.astype(np.float32) * 16 - 1000, 255.0 * 16)[1])


@given(st.integers(1, 40), st.integers(1, 70))
@settings(deadline=None)
def test_a_image_of_any_size_has_an_answer(rows, columns):
    stripes = np.tile(np.array([0, 255], np.uint8), (rows, columns))[:, :columns]
    along, down = steps(stripes, 14.0)
    assert along.shape == down.shape
    assert shows_text(stripes) in (True, False)


def test_steps_count_the_rarer_direction_of_both_axes():
    bars = np.zeros((8, 16), np.uint8)
    bars[:, 4] = 255
    along, down = steps(bars, 14.0)
    assert along.tolist() == [[4, 0], [4, 0]]
    assert not down.any()


def test_text_in_a_file_raises_the_flag_in_every_encoding_and_at_every_size(make, read):
    """The tag says NO, and the image wins. Whole values are averaged over 3 x 3 pixels, reduced ones come averaged over 2 x 2."""
    large = make.chest(1400, 1344)
    with_text = large.copy()
    with_text[written(np.zeros(large.shape, np.uint8), "SMITH^JOHN 12/03/1957", (30, 40), 22) > 127] = 4095
    eight = (with_text >> 4).astype(np.uint8)
    jpeg = make.encapsulated(make.radiograph(eight, 8), "1.2.840.10008.1.2.4.50", imagecodecs.jpeg8_encode(eight, level=95))
    files = {name: make.LOSSLESS[name](with_text, 12) for name in ("explicit", "jpegls", "j2k", "htj2k", "rle")}
    for size in (64, 224):
        for name, file in {**files, "jpeg": jpeg}.items():
            assert "burned_in" in read(file, size=size).flags, (name, size)
        for name in ("explicit", "htj2k"):
            assert "burned_in" not in read(make.LOSSLESS[name](large, 12), size=size).flags, (name, size)


def test_text_in_a_plain_image_and_in_an_inverted_file_raises_the_flag(make, read, tmp_path):
    image = written((make.chest(600, 512) >> 4).astype(np.uint8), "SMITH^JOHN 12/03/1957", (30, 40), 12)
    Image.fromarray(image).save(tmp_path / "plain.png")
    assert "burned_in" in read((tmp_path / "plain.png").read_bytes(), "other.png", plain_images=True).flags
    assert "burned_in" in read(make.radiograph(255 - image, 8, PhotometricInterpretation="MONOCHROME1")).flags
