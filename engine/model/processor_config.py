"""preprocessor_config.json of transformers: read into a `Preprocessing` where it can be honoured exactly, refused by key where not.

transformers resizes (`do_resize`, `size`, `resample`), crops the centre (`do_center_crop`, `crop_size`), multiplies by `rescale_factor`
(`do_rescale`), and normalises (`do_normalize`, `image_mean`, `image_std`). Rescaling and normalisation are one affine map, so that every
combination of them is a mean and a deviation of grey in [0, 1]. `do_convert_rgb` has no effect: grey images have three equal channels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.model.preprocessing import CLIP_MEAN, CLIP_STD, FILTERS, Preprocessing, Resample, Resize

FILE = "preprocessor_config.json"
COMBINED = "processor_config.json"
"""Newer versions of transformers may store the same settings under `image_processor` of this file."""
CLIP_DEFAULTS: Mapping[str, Any] = {
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
"""Values of CLIPImageProcessor for keys that the file leaves out."""
CLIP_PROCESSORS = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor")
WITHOUT_EFFECT = {
    *("image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "_processor_class", "_valid_processor_keys"),
    *("data_format", "input_data_format", "return_tensors", "device", "disable_grouping", "default_to_square", "size_divisor"),
}
"""Keys that change no pixel of one image."""
HINT = "mmclip models import with --preprocessing clip or chexzero, if you know how the weights were trained"


def read_processor(folder: Path, name: str) -> Mapping[str, Any] | None:
    """The image processor settings of a folder; None where it has no file for them. ModelError where it cannot be read."""
    for file, section in ((FILE, None), (COMBINED, "image_processor")):
        if not (folder / file).is_file():
            continue
        try:
            stored = json.loads((folder / file).read_text("utf-8"))
            settings = stored if section is None else stored.get(section)
        except (OSError, ValueError, AttributeError):
            settings = ()
        if isinstance(settings, dict):
            return settings
        if settings is not None:
            raise ModelError(f"{file} of model {name} cannot be read", hint="copy the model again")
    return None


def processor_preprocessing(stored: Mapping[str, Any], image_size: int, name: str) -> Preprocessing:
    """The preprocessing that the settings describe.

    Args:
        image_size: side in pixels of the image tower's input.

    Raises:
        ModelError: settings that this class cannot reproduce; names every such key.
    """
    faults: list[str] = []
    settings = _complete(stored, faults)
    resize, side = _resize(settings, image_size, faults)
    resample = _resample(settings["resample"], faults)
    mean, std = _normalisation(settings, faults)
    faults += [
        f"{key} is not supported" for key, value in stored.items() if key not in {*CLIP_DEFAULTS, *WITHOUT_EFFECT} and _is_set(value)
    ]
    if faults:
        raise ModelError(f"the preprocessing of model {name} cannot be reproduced", why="; ".join(faults), hint=HINT)
    return Preprocessing(image_size, resize, mean, std, resample, None if side == image_size else side)


def processor_settings(preprocessing: Preprocessing) -> dict[str, Any]:
    """The settings by which transformers prepares images alike; its processors cannot pad to a square (`resize: pad`)."""
    side, size = preprocessing.read_size, preprocessing.size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side} if preprocessing.resize == "squash" else {"shortest_edge": side},
        "do_center_crop": preprocessing.resize == "crop" or side != size,
        "crop_size": {"height": size, "width": size},
        "resample": int(FILTERS[preprocessing.resample]),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }


def _complete(stored: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """The settings with CLIP's defaults; other processors must state every key, since their defaults are other ones."""
    kind = stored.get("image_processor_type") or stored.get("feature_extractor_type") or CLIP_PROCESSORS[0]
    missing = [key for key in CLIP_DEFAULTS if key not in stored and key != "do_convert_rgb"]
    if not stored.get("do_center_crop", True):
        missing = [key for key in missing if key != "crop_size"]
    if kind not in CLIP_PROCESSORS and missing:
        faults.append(f"image_processor_type is {str(kind)[:40]}, whose defaults of {', '.join(missing)} are not known")
    return {**CLIP_DEFAULTS, **{key: value for key, value in stored.items() if value is not None}}


def _resize(settings: Mapping[str, Any], image_size: int, faults: list[str]) -> tuple[Resize, int]:
    """How an image is resized, and the side in pixels before the centre crop."""
    size, crop = _size(settings["size"]), _size(settings["crop_size"], is_square=True)
    if not settings["do_resize"]:
        faults.append("do_resize is false: images must have the size of the image tower")
        return "crop", image_size
    keys = {"squash": ("height", "width"), "crop": ("shortest_edge",)}
    resize: Resize = "squash" if set(size) == {"height", "width"} else "crop"
    sides = {size.get(key) for key in keys[resize]}
    if set(size) != set(keys[resize]) or len(sides) != 1 or not all(isinstance(side, int) and side > 0 for side in sides):
        faults.append(f"size is {_brief(settings['size'])}: neither a shortest_edge nor an equal height and width")
        return resize, image_size
    side = int(next(iter(sides)) or 0)
    if settings["do_center_crop"]:
        if set(crop.values()) != {image_size}:
            faults.append(f"crop_size is {_brief(settings['crop_size'])}: the image tower takes {image_size} x {image_size} pixels")
        elif side < image_size:
            faults.append(f"size is {_brief(settings['size'])}: less than the crop_size {image_size}")
    elif resize == "crop":
        faults.append("do_center_crop is false with a shortest_edge: images stay oblong, and the image tower takes squares")
    elif side != image_size:
        faults.append(f"size is {_brief(settings['size'])}: the image tower takes {image_size} x {image_size} pixels")
    return resize, side


def _size(value: Any, *, is_square: bool = False) -> dict[str, Any]:
    """A size in the keys of transformers; older files give one number: the shortest edge, or the side of a square crop."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"height": value, "width": value} if is_square else {"shortest_edge": value}
    if isinstance(value, list | tuple) and len(value) == 2:
        return {"height": value[0], "width": value[1]}
    return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else {}


def _resample(value: Any, faults: list[str]) -> Resample:
    for name, each in FILTERS.items():
        if (isinstance(value, int) and not isinstance(value, bool) and value == int(each)) or value == name:
            return name
    faults.append(f"resample is {_brief(value)}: no filter of Pillow")
    return "bicubic"


def _normalisation(settings: Mapping[str, Any], faults: list[str]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of grey in [0, 1] that give the same values as the rescaling and normalisation of transformers."""
    factor = settings["rescale_factor"] if settings["do_rescale"] else 1
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not math.isfinite(factor) or factor <= 0:
        faults.append(f"rescale_factor is {_brief(factor)}")
        factor = 1 / 255
    values = []
    for key, neutral in (("image_mean", 0.0), ("image_std", 1.0)):
        value = settings[key] if settings["do_normalize"] else neutral
        channels = [value] * 3 if isinstance(value, int | float) else list(value) if isinstance(value, list | tuple) else []
        is_number = all(isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in channels)
        if len(channels) != 3 or not is_number or (key == "image_std" and min(channels) <= 0):
            faults.append(f"{key} is {_brief(value)}: not three {'numbers' if key == 'image_mean' else 'positive numbers'}")
            channels = [neutral] * 3
        values.append(channels)
    # (255 g f - mean) / std = (g - mean / (255 f)) / (std / (255 f)) for grey g in [0, 1]
    scale = 255 * factor
    mean, std = (tuple(float(each) if math.isclose(scale, 1.0) else each / scale for each in channels) for channels in values)
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _is_set(value: Any) -> bool:
    """Whether an unknown key switches anything on."""
    return value not in (None, False, 0, "", [], {})


def _brief(value: Any) -> str:
    return json.dumps(value, default=str)[:60]
