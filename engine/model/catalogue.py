"""What a model folder says about itself, without loading it: no torch, no weights in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InputMissing, ModelError
from engine.model.folder import WEIGHTS, check_whole, content_hash, local_folder, read_manifest, read_preprocessing


@dataclass(frozen=True)
class Description:
    """A model on disk.

    Attributes:
        content_hash: sha256 over weights, configuration, tokenizer and preprocessing, the same as `Bundle.content_hash`.
        parameters: number of weights.
        megabytes: size of the weights file, in 10^6 bytes.
        image_size: side in pixels of the pictures it sees.
        text_tokens: length of the longest text it reads.
        provenance: how the model was made, as its maker wrote it down.
        card: the model card, "" where there is none.
    """

    name: str
    content_hash: str
    parameters: int
    megabytes: float
    image_size: int
    text_tokens: int
    preprocessing: Mapping[str, Any]
    provenance: Mapping[str, Any]
    card: str


def describe(name_or_path: str | Path) -> Description:
    """Describe a shipped model or a bundle folder, after its files were compared with the hashes it carries.

    Raises:
        InputMissing: nothing of that name on this machine.
        ModelError: a file that is missing, truncated or altered, or a configuration that is no CLIP's.
    """
    folder = local_folder(name_or_path)
    if folder is None:
        raise InputMissing(f"{name_or_path} is not on this machine", hint="a shipped name or the folder of a bundle")
    name = Path(name_or_path).name
    for needed in ("config.json", WEIGHTS):
        if not (folder / needed).is_file():
            raise ModelError(f"model {name} has no {needed}", hint="a complete bundle folder")
    manifest = read_manifest(folder, name)
    check_whole(folder, manifest, name)
    image_size, text_tokens = _sizes(folder / "config.json", name)
    preprocessing = read_preprocessing(folder, manifest, image_size, name)
    card = folder / "README.md"
    return Description(
        name=manifest.get("name", name),
        content_hash=content_hash(folder, manifest, preprocessing),
        parameters=_parameters(folder / WEIGHTS, name),
        megabytes=round((folder / WEIGHTS).stat().st_size / 1e6, 1),
        image_size=image_size,
        text_tokens=text_tokens,
        preprocessing=preprocessing.as_dict(),
        provenance=manifest.get("provenance", {}),
        card=card.read_text("utf-8", errors="replace") if card.is_file() else "",
    )


def _sizes(path: Path, name: str) -> tuple[int, int]:
    """Side of the picture and length of the text, from a CLIP configuration; transformers leaves out what equals its defaults."""
    try:
        config = json.loads(path.read_text("utf-8"))
        vision, text = config["vision_config"], config["text_config"]
        return int(vision.get("image_size", 224)), int(text.get("max_position_embeddings", 77))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"config.json of model {name} is no CLIP configuration", why=type(error).__name__) from None


def _parameters(path: Path, name: str) -> int:
    """Number of weights, from the header of a safetensors file: 8 bytes of length, then JSON with every shape."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), 100_000_000)))
        return sum(math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{WEIGHTS} of model {name} is not a whole safetensors file", hint="copy the model again") from None
