"""Heatmaps: the formula against a literal reading, and that a map lies on the picture where the model looked."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import NotFinite
from engine.model.bundle import Bundle, load_bundle
from engine.model.head import Head
from engine.model.preprocessing import GREY_MEAN, GREY_STD, Preprocessing, Resize, resized
from engine.model.towers import Towers
from engine.model.zero_shot import Words, zero_shot
from engine.recipe.pretraining import PretrainRecipe
from engine.scoring.heatmaps import head_margins, heatmaps, heatmaps_on, onto_picture, patch_features, word_margins

RESIZES: tuple[Resize, ...] = ("squash", "pad", "crop")
SIZE, PATCH = 64, 16  # of sees_brightness
BRIGHT = {"bright": Words(np.eye(32)[:1], np.eye(32)[1:2])}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def bundle(toy) -> Bundle:
    return load_bundle(toy)


@pytest.fixture(scope="module")
def words() -> dict[str, Words]:
    rng = np.random.default_rng(1)
    return {name: Words(unit(rng.normal(size=(3, 32))), unit(rng.normal(size=(2, 32)))) for name in ("a", "b", "c")}


RECIPE = PretrainRecipe.model_validate(
    {"version": 1, "steps": 1, "sources": [{"kind": "table", "file": "none"}], "tokenizer": {"vocab": 300}}
)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def test_patch_features_are_the_paper_s_e_img(bundle):
    pictures = [noise(40, 50), noise(32, 32, 1)]
    with torch.no_grad():
        tokens = Towers(bundle.clip, RECIPE).encode_images(bundle.pixels(pictures))
        expected = torch.nn.functional.normalize(bundle.clip.visual_projection(tokens), dim=-1)
    features = patch_features(bundle, pictures)
    assert features.shape == (2, 2, 2, 32)
    assert features.reshape(2, 4, 32) == pytest.approx(expected[:, 1:].numpy(), abs=1e-5)
    assert bundle.image_features(bundle.pixels(pictures)).numpy() == pytest.approx(expected[:, 0].numpy(), abs=1e-5)


@pytest.mark.parametrize("score", ["softmax_pair", "difference", "cosine"])
def test_a_map_is_half_the_difference_of_cosines_or_the_cosine_itself(bundle, words, score):
    pictures = [noise(40, 50), noise(32, 32, 1)]
    maps = heatmaps(bundle, pictures, word_margins(words, score=score, pool="mean_embed"))
    assert maps.shape == (2, 3, 2, 2)
    for picture, features in enumerate(patch_features(bundle, pictures)):
        for finding, each in enumerate(words.values()):
            a, b = (features @ unit(side.mean(0)) for side in (each.positive, each.negative))
            assert maps[picture, finding] == pytest.approx(a if score == "cosine" else (a - b) / 2, abs=1e-6)


@pytest.mark.parametrize("pool", ["mean_embed", "max"])
def test_a_map_above_0_is_a_score_above_one_half(bundle, words, pool):
    pictures = [noise(40, 40, seed) for seed in range(8)]
    maps = heatmaps(bundle, pictures, word_margins(words, score="softmax_pair", pool=pool))
    features = patch_features(bundle, pictures).reshape(-1, 32)
    scores = zero_shot(features, words, score="softmax_pair", pool=pool, scale=14).reshape(8, 2, 2, 3)
    assert ((maps > 0) == np.moveaxis(scores > 0.5, -1, 1)).all()
    assert np.moveaxis(maps, 1, -1) == pytest.approx(np.arctanh(2 * scores - 1) / 14, abs=1e-6)


def test_a_classifier_s_map_is_its_head_asked_of_each_patch(bundle):
    rng = np.random.default_rng(2)
    head = Head(("a", "b"), rng.normal(size=(2, 32)).astype(np.float32), rng.normal(size=2).astype(np.float32))
    pictures = [noise(40, 50), noise(32, 32, 1)]
    maps = heatmaps(bundle, pictures, head_margins(head))
    expected = 2 / (1 + np.exp(-(patch_features(bundle, pictures) @ head.weight.T + head.bias))) - 1
    assert np.moveaxis(maps, 1, -1) == pytest.approx(expected, abs=1e-5)


def test_pictures_and_findings_do_not_change_each_other(bundle, words):
    pictures = [noise(40, 50), noise(32, 32, 1)]
    both = heatmaps(bundle, pictures, word_margins(words, score="softmax_pair", pool="mean_prob"))
    alone = heatmaps(bundle, pictures[1:], word_margins({"c": words["c"]}, score="softmax_pair", pool="mean_prob"))
    assert alone[0, 0] == pytest.approx(both[1, 2], abs=1e-6)
    assert heatmaps(bundle, [], word_margins(words, score="softmax_pair", pool="max")).shape == (0, 3, 2, 2)


def test_a_model_that_gives_nan_is_refused(random_bundle, tmp_path, words):
    broken = random_bundle(tmp_path / "broken")
    with torch.no_grad():
        broken.clip.vision_model.post_layernorm.weight.fill_(float("nan"))
    with pytest.raises(NotFinite, match="patches"):
        heatmaps(broken, [noise(32, 32)], word_margins(words, score="softmax_pair", pool="max"))


@settings(derandomize=True, max_examples=60)
@given(st.integers(0, 10**6), st.integers(64, 160), st.integers(64, 160), st.sampled_from(RESIZES))
def test_a_bright_square_lies_under_the_map_s_maximum(sees_brightness, seed, height, width, resize):
    """A square of two patches' width, anywhere that the model sees: the map's maximum lies in it."""
    bundle = dataclasses.replace(sees_brightness, preprocessing=Preprocessing(SIZE, resize, GREY_MEAN, GREY_STD))
    rng = np.random.default_rng(seed)
    picture = np.full((height, width), 20, np.uint8)
    spans = []
    for each in (height, width):
        seen = {"squash": each, "pad": max(height, width), "crop": min(height, width)}[resize]
        margin, free = ((each - seen) // 2, seen) if resize == "crop" else (0, each)
        extent = round(2 * PATCH / SIZE * seen)
        start = margin + rng.integers(0, max(free - extent, 0) + 1)
        spans.append(slice(start, start + extent))
    picture[tuple(spans)] = 235
    (found,) = heatmaps_on(bundle, picture, list(BRIGHT), word_margins(BRIGHT, score="difference", pool="max")).values()
    assert found.shape == picture.shape
    assert picture.reshape(-1)[np.nanargmax(found)] == 235
    assert resize == "crop" or np.isfinite(found).all()


@settings(derandomize=True, max_examples=60)
@given(st.integers(20, 200), st.integers(20, 200), st.sampled_from(RESIZES), st.booleans())
def test_preprocessing_is_undone_exactly(height, width, resize, across):
    """The patch means of a resized ramp of greys, laid back over the picture, are the ramp; half a patch off is 32 of 255."""
    line = np.linspace(0, 255, width if across else height)
    ramp = np.broadcast_to(line if across else line[:, None], (height, width))
    picture = np.rint(ramp).astype(np.uint8)
    preprocessing = Preprocessing(SIZE, resize, GREY_MEAN, GREY_STD)

    def patch_means(values):
        return resized(values, SIZE, resize).astype(np.float32).reshape(4, PATCH, 4, PATCH).mean(axis=(1, 3))

    padding = 255 - patch_means(np.full_like(picture, 255))
    row, column = np.mgrid[:4, :4].astype(np.float32)
    laid, padding, row, column = onto_picture(np.stack([patch_means(picture), padding, row, column]), picture.shape, preprocessing, PATCH)
    # beyond the outermost centres a map is level, and patches with padding in them have another mean: the ramp is asked for elsewhere
    sure = (padding < 0.01) & (np.minimum(row, column) > 0) & (np.maximum(row, column) < 3)
    assert np.abs(laid - ramp)[sure].max(initial=0) < 4 + 255 / len(line)


@pytest.mark.parametrize(("shape", "unseen"), [((40, 80), "columns"), ((80, 40), "rows")])
def test_what_is_cropped_away_has_no_value(shape, unseen):
    maps = np.ones((1, 4, 4), np.float32)
    (laid,) = onto_picture(maps, shape, Preprocessing(SIZE, "crop", GREY_MEAN, GREY_STD), PATCH)
    if unseen == "rows":
        laid = laid.T
    assert np.isnan(laid[:, :20]).all()
    assert np.isnan(laid[:, 60:]).all()
    assert (laid[:, 20:60] == 1).all()


def test_a_map_of_a_square_picture_is_bilinear_and_level_at_the_rim():
    maps = np.array([[[0, 1], [2, 3]]], np.float32)
    (laid,) = onto_picture(maps, (4, 4), Preprocessing(4, "squash", GREY_MEAN, GREY_STD), 2)
    line = np.array([0, 0.25, 0.75, 1])
    assert laid == pytest.approx(2 * line[:, None] + line[None], abs=1e-6)
