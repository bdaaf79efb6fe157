"""Model folders on disk: location, manifest, integrity and description, without loading the model. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from engine.errors import InputMissing, ModelError
from engine.model.preprocessing import FILTERS, Preprocessing, Resize
from engine.model.processor_config import FILE as PROCESSOR
from engine.model.processor_config import HINT, processor_preprocessing, read_processor

SHIPPED = Path(__file__).parent / "shipped"
MANIFEST = "mmclip.json"
WEIGHTS = "model.safetensors"
PICKLED = "pytorch_model.bin"
"""Weights of older folders of transformers."""
HASHED = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json")


def shipped_models() -> list[str]:
    """Names of the models in this package, sorted."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST}"))


def local_folder(name_or_path: str | Path) -> Path | None:
    """The folder of a shipped model or of a bundle on disk; None for what may be a Hugging Face id.

    Raises:
        InputMissing: no such model.
        ModelError: a file instead of a folder.
    """
    shipped = SHIPPED / str(name_or_path)
    if re.fullmatch(r"[\w.-]+", str(name_or_path)) and (shipped / MANIFEST).is_file():
        return shipped
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if Path(name_or_path).is_file():
        raise ModelError(
            f"{Path(name_or_path).name} is one file, not a bundle folder",
            hint="the folder that holds config.json, or mmclip models import FILE --out FOLDER, which makes one of a checkpoint",
        )
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(name_or_path)):
        return None
    raise InputMissing(
        f"no model named {name_or_path}",
        hint=f"one of {', '.join(shipped_models()) or '(none shipped)'}, a bundle folder or a Hugging Face id",
    )


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_complete(folder: Path, name: str) -> None:
    """Raise ModelError for a folder without configuration or safetensors weights; names pickled weights that it holds instead."""
    for needed in ("config.json", WEIGHTS):
        if not (folder / needed).is_file():
            pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
            raise ModelError(
                f"model {name} has no {needed}",
                why=f"it holds {pickled[0]}, and pickled weights are not opened here" if pickled and needed == WEIGHTS else "",
                hint="mmclip models import, which reads it without running code" if pickled else "a complete bundle folder",
            )


def read_manifest(folder: Path, name: str) -> dict[str, Any]:
    """mmclip.json of a bundle; empty for a folder that mmclip did not write. Raises ModelError."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except ValueError:
        manifest = None
    sections = ("sha256", "preprocessing", "provenance")
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(key, {}), dict) for key in sections):
        raise ModelError(f"{MANIFEST} of model {name} is not what mmclip writes", hint="copy the model again")
    return manifest


def check_whole(folder: Path, manifest: Mapping[str, Any], name: str) -> None:
    """Compare every file with its SHA-256 in the manifest; raises ModelError for the first that differs."""
    for file, expected in manifest.get("sha256", {}).items():
        if not (folder / file).is_file() or file_hash(folder / file) != expected:
            raise ModelError(
                f"{file} of model {name} is missing, truncated or altered",
                why=f"its sha256 is not {str(expected)[:12]}... as {MANIFEST} says",
                hint="copy the model again",
            )


def content_hash(folder: Path, manifest: Mapping[str, Any], preprocessing: Preprocessing) -> str:
    """sha256 over weights, configuration, tokenizer, preprocessing and a classifier's head; trusts the hashes that the manifest holds."""
    digest = hashlib.sha256(json.dumps(preprocessing.as_dict(), sort_keys=True).encode())
    for file in HASHED:
        known = manifest.get("sha256", {}).get(file)
        digest.update((known or (file_hash(folder / file) if (folder / file).is_file() else "-")).encode())
    if "classifier" in manifest:  # a model without a head has the hash of the files alone
        digest.update(json.dumps([manifest["classifier"], manifest.get("sha256", {}).get("head.safetensors")], sort_keys=True).encode())
    return digest.hexdigest()


def read_preprocessing(folder: Path, manifest: Mapping[str, Any], image_size: int, name: str) -> Preprocessing:
    """The preprocessing of mmclip.json, else of transformers' preprocessor_config.json.

    Raises:
        ModelError: there is neither, or it does not fit images of `image_size` or cannot be reproduced.
    """
    if "preprocessing" not in manifest:
        if (stored := read_processor(folder, name)) is None:
            why = f"the folder has no {PROCESSOR}"
            raise ModelError(f"the preprocessing of model {name} is not known", why=why, hint=f"that file of the source, or {HINT}")
        return processor_preprocessing(stored, image_size, name)
    try:
        stored = manifest["preprocessing"]
        mean, std = _three(stored["mean"]), _three(stored["std"])
        resample, resize_to = stored.get("resample", "lanczos"), stored.get("resize_to")
        preprocessing = Preprocessing(stored["size"], stored["resize"], mean, std, resample, resize_to)
        fits = stored["resize"] in get_args(Resize) and stored["size"] == image_size and min(std) > 0
        fits = fits and resample in FILTERS and (resize_to is None or (isinstance(resize_to, int) and resize_to > image_size))
    except (KeyError, TypeError, ValueError, AttributeError):
        fits = False
    if not fits:
        raise ModelError(
            f"the preprocessing in {MANIFEST} of model {name} does not fit it",
            why=f"it needs size {image_size}, a known resize, and mean and deviation of three channels",
            hint="copy the model again",
        )
    return preprocessing


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    if not all(map(math.isfinite, (first, second, third))):
        raise ValueError("not finite")
    return first, second, third


@dataclass(frozen=True)
class Description:
    """Description of a model on disk.

    Attributes:
        content_hash: sha256 over weights, configuration, tokenizer and preprocessing, the same as `Bundle.content_hash`.
        parameters: number of weights.
        megabytes: size of the weights file, in 10^6 bytes.
        image_size: side of the input image in pixels.
        text_tokens: longest text in tokens.
        provenance: how the model was made.
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
    """Description of a shipped model or a bundle folder, after a check of its files against their hashes.

    Raises:
        InputMissing: no such model on this machine.
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
    image_size, text_tokens = model_sizes(folder / "config.json", name)
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


def card_summary(card: str) -> str:
    """The first paragraph of a model card below its title, as plain text; "" where there is none."""
    paragraphs = [" ".join(each.split()) for each in card.split("\n\n")]
    first = next((each for each in paragraphs if each and not each.startswith(("#", "|", "---"))), "")
    return first.replace("**", "").replace("`", "")


def model_sizes(path: Path, name: str) -> tuple[int, int]:
    """Image size and text length of a CLIP configuration; transformers omits values that equal its defaults."""
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
