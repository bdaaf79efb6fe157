"""Preprocessing of Hugging Face folders: the same pixels as transformers' own processor, or a refusal that names the key."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from engine.errors import ModelError
from engine.model.bundle import load_bundle
from engine.model.imports.source import import_model
from engine.model.preprocessing import Preprocessing
from engine.model.processor_config import processor_preprocessing, processor_settings, read_processor

SIZE = 32
SQUARE = {"height": SIZE, "width": SIZE}
CLIP = {"size": {"shortest_edge": SIZE}, "crop_size": SQUARE}


def radiograph(height, width):
    """A smooth uint8 image with noise and a bright edge: filters, crops and scales all show."""
    y, x = np.mgrid[0:height, 0:width]
    grey = 120 + 80 * np.sin(x / 9) * np.cos(y / 13) + np.random.default_rng(0).normal(0, 20, (height, width))
    grey[:, : width // 8] = 250
    return np.clip(grey, 0, 255).astype(np.uint8)


HONOURED = {
    "clip": CLIP,
    "older file": {"size": SIZE, "crop_size": SIZE},
    "margin": CLIP | {"size": {"shortest_edge": 41}},
    "squash": {"size": SQUARE, "do_center_crop": False},
    "squash, then crop": {"size": {"height": 40, "width": 40}, "crop_size": SQUARE},
    "bilinear": CLIP | {"resample": 2},
    "nearest": CLIP | {"resample": 0},
    "box": CLIP | {"resample": 4},
    "no normalisation": CLIP | {"do_normalize": False},
    "no rescaling": CLIP | {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [60.0] * 3},
    "neither": CLIP | {"do_rescale": False, "do_normalize": False},
    "another factor": CLIP | {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
    "one mean": CLIP | {"image_mean": 0.5, "image_std": 0.25},
    "no conversion": CLIP | {"do_convert_rgb": False},
}


@pytest.mark.parametrize("shape", [(90, 60), (61, 130), (32, 32)])
@pytest.mark.parametrize("settings", HONOURED.values(), ids=HONOURED)
def test_pixels_are_those_of_transformers(settings, shape):
    grey = radiograph(*shape)
    theirs = CLIPImageProcessorPil(**settings)(images=Image.fromarray(grey).convert("RGB"), return_tensors="np")["pixel_values"][0]
    ours = processor_preprocessing(settings, SIZE, "toy").pixels([grey])[0]
    assert ours.shape == theirs.shape
    distance = np.abs(ours - theirs).mean() / theirs.std()
    assert distance < 0.01


@pytest.mark.parametrize("settings", [HONOURED["margin"], HONOURED["squash"], HONOURED["no normalisation"], HONOURED["bilinear"]])
def test_features_are_those_of_transformers(random_bundle, tmp_path, settings):
    folder = tmp_path / "hub"
    random_bundle(folder)
    (folder / "mmclip.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "CLIPImageProcessor", **settings}))
    bundle, grey = load_bundle(folder), radiograph(90, 60)
    theirs = CLIPImageProcessorPil(**settings)(images=Image.fromarray(grey).convert("RGB"), return_tensors="pt")["pixel_values"]
    cosine = (bundle.image_features(bundle.pixels([grey])) * bundle.image_features(theirs)).sum()
    assert float(cosine) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"do_resize": False}, "do_resize"),
        ({"do_center_crop": False}, "do_center_crop"),
        ({"size": {"shortest_edge": 20}}, "size"),
        ({"size": {"height": 40, "width": 30}}, "size"),
        ({"size": {"longest_edge": 32}}, "size"),
        ({"size": {"shortest_edge": 32, "longest_edge": 50}}, "size"),
        ({"crop_size": {"height": 32, "width": 30}}, "crop_size"),
        ({"crop_size": 48}, "crop_size"),
        ({"size": {"height": 40, "width": 40}, "do_center_crop": False}, "size"),
        ({"resample": 9}, "resample"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"image_std": [0.0, 1.0, 1.0]}, "image_std"),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"image_mean": ["a", "b", "c"]}, "image_mean"),
        ({"do_pad": True}, "do_pad"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"image_processor_type": "SiglipImageProcessor"}, "image_processor_type"),
    ],
)
def test_what_cannot_be_reproduced_is_refused_by_its_key(settings, key):
    with pytest.raises(ModelError, match=rf"model toy cannot be reproduced: .*{key} .*--preprocessing clip"):
        processor_preprocessing(CLIP | settings, SIZE, "toy")


def test_another_processor_that_states_every_key_is_read():
    stated = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "size": SQUARE, "resample": 2, "do_center_crop": False}
    stated |= {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    assert processor_preprocessing(stated, SIZE, "toy") == Preprocessing(SIZE, "squash", (0.5,) * 3, (0.5,) * 3, "bilinear")


def test_settings_are_found_in_either_file_and_are_asked_for_without(random_bundle, tmp_path):
    folder = tmp_path / "hub"
    random_bundle(folder)
    for file in ("mmclip.json", "preprocessor_config.json"):
        (folder / file).unlink()
    assert read_processor(folder, "hub") is None
    with pytest.raises(ModelError, match=r"preprocessing of model hub is not known: .*preprocessor_config\.json"):
        load_bundle(folder)
    assert import_model(folder, preprocessing="chexzero").preprocessing.resize == "pad"
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": CLIP | {"image_mean": [0.1] * 3, "image_std": [1.0] * 3}}))
    assert load_bundle(folder).preprocessing == Preprocessing(SIZE, "crop", (0.1,) * 3, (1.0,) * 3, "bicubic")
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"preprocessor_config\.json of model hub cannot be read"):
        load_bundle(folder)


@pytest.mark.parametrize("settings", [HONOURED["margin"], HONOURED["squash, then crop"], HONOURED["bilinear"]])
def test_what_a_bundle_writes_for_transformers_reads_back_the_same(settings):
    found = processor_preprocessing(settings, SIZE, "toy")
    again = processor_preprocessing(json.loads(json.dumps(processor_settings(found))), SIZE, "toy")
    assert (again.size, again.resize, again.resample, again.resize_to) == (found.size, found.resize, found.resample, found.resize_to)
    assert torch.allclose(torch.tensor(again.mean), torch.tensor(found.mean))
