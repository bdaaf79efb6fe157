"""Figures show what they say they show, and only to their owner."""

import dataclasses
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.errors import OutputError
from engine.model.losses import patchify
from engine.model.mask_diagnostics import GAP, HEAD, TITLES, MaskSnapshot, figure, write_figures

MEAN, STD = (0.48, 0.45, 0.40), (0.27, 0.26, 0.28)
SIDE, PATCH = 112, 28  # 16 patches, drawn at their own size


@pytest.fixture
def grey() -> torch.Tensor:
    return torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def seen(grey: torch.Tensor) -> MaskSnapshot:
    images = (grey[:, None] - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    scores = torch.arange(16.0).expand(2, 16)
    maps = {"prompt": scores, "self": -scores}
    hidden = (torch.arange(16) < 4).expand(2, 16)
    union = (torch.arange(16) < 8).expand(2, 16)
    return MaskSnapshot(images, maps, dict.fromkeys(maps, union), union, hidden, patchify(images, PATCH))


def cell(sheet: Image.Image, column: str, row: int = 0) -> np.ndarray:
    left, top = GAP + TITLES.index(column) * (SIDE + GAP), HEAD + row * (SIDE + GAP)
    return np.asarray(sheet.crop((left, top, left + SIDE, top + SIDE)))


def test_the_image_comes_back_from_its_normalised_pixels(seen: MaskSnapshot, grey: torch.Tensor) -> None:
    sheet = figure(seen, MEAN, STD, norm_pix=False)
    for row in range(2):
        expected = np.rint(grey[row].numpy() * 255)
        assert np.abs(cell(sheet, "image", row)[..., 0].astype(int) - expected).max() <= 1


def test_a_perfect_prediction_rebuilds_the_image(seen: MaskSnapshot) -> None:
    sheet = figure(seen, MEAN, STD, norm_pix=False)
    assert np.abs(cell(sheet, "reconstruction").astype(int) - cell(sheet, "image")).max() <= 1


def test_a_perfect_prediction_of_normalised_patches_rebuilds_it_as_well(seen: MaskSnapshot) -> None:
    patches = patchify(seen.images, PATCH)
    normalised = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    sheet = figure(dataclasses.replace(seen, predicted=normalised), MEAN, STD, norm_pix=True)
    assert np.abs(cell(sheet, "reconstruction").astype(int) - cell(sheet, "image")).max() <= 1


def test_only_hidden_patches_show_the_prediction(seen: MaskSnapshot) -> None:
    sheet = figure(dataclasses.replace(seen, predicted=torch.full((2, 16, PATCH * PATCH), -9.0)), MEAN, STD, norm_pix=False)
    rebuilt, image = cell(sheet, "reconstruction"), cell(sheet, "image")
    assert (rebuilt[:PATCH] == 0).all()  # the four patches of the first row are hidden
    assert np.array_equal(rebuilt[PATCH:], image[PATCH:])


def test_hidden_patches_are_dark_spared_ones_blue_and_the_rest_as_they_were(seen: MaskSnapshot) -> None:
    sheet = figure(seen, MEAN, STD, norm_pix=False)
    hidden, image = cell(sheet, "hidden").astype(int), cell(sheet, "image").astype(int)
    assert hidden[:PATCH].max() < 50
    assert (hidden[PATCH : 2 * PATCH, :, 2] > hidden[PATCH : 2 * PATCH, :, 0]).all()
    assert np.array_equal(hidden[2 * PATCH :], image[2 * PATCH :])


def test_a_map_is_brightest_where_its_score_is_highest(seen: MaskSnapshot) -> None:
    sheet = figure(seen, MEAN, STD, norm_pix=False)
    prompts, itself = (cell(sheet, title).mean((1, 2)) for title in ("prompts", "image itself"))
    assert prompts[-PATCH:].mean() > prompts[:PATCH].mean()
    assert itself[-PATCH:].mean() < itself[:PATCH].mean()
    assert (cell(sheet, "report") == 255).all()  # images without one


def test_small_pictures_are_enlarged(seen: MaskSnapshot) -> None:
    small = dataclasses.replace(seen, images=seen.images[..., :32, :32], predicted=None)
    assert figure(small, MEAN, STD, norm_pix=True).width == GAP + len(TITLES) * (128 + GAP)


def test_only_the_owner_may_look(seen: MaskSnapshot, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir(mode=0o755)
    first = figure(seen, MEAN, STD, norm_pix=False)
    write_figures([first, first], folder / "step-7.png")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with Image.open(folder / "step-7.png") as sheet:
        assert sheet.size == (first.width, 2 * first.height)
        assert not sheet.info  # no words about where it came from


def test_a_folder_that_cannot_be_made_is_an_output_error(seen: MaskSnapshot, tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("a file")
    with pytest.raises(OutputError, match="folder of figures cannot be made"):
        write_figures([figure(seen, MEAN, STD, norm_pix=False)], tmp_path / "pictures" / "step-7.png")
