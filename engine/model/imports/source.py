"""CLIP models of other libraries with tokenizer and preprocessing, for `mmclip models import` and `model.init`.

    a Hugging Face CLIP, a bundle      id, name or folder: config.json next to model.safetensors or pytorch_model.bin
    OpenAI's .pt                       a TorchScript archive, or its state dict
    open_clip                          a folder with open_clip_config.json and its weights, or a file of weights
    CheXzero's .pt                     OpenAI's names, its own preprocessing

No pickle is executed and no code of an archive is run (pickle_reader.py). Settings that are neither in the file nor known of it
(published.py) are asked for, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InputMissing, ModelError, OutputError, UsageError
from engine.model.bundle import fetch, load_folder, save_bundle
from engine.model.bundle_folder import PICKLED, WEIGHTS, check_complete, file_hash, local_folder, shipped_models
from engine.model.clip_tokenizer import VOCABULARY, clip_tokenizer
from engine.model.imports import open_clip
from engine.model.imports.checkpoint import read_checkpoint
from engine.model.imports.layout import ClipSizes, renamed, resized_clip, settings, sizes_of, without_facts
from engine.model.imports.open_clip import OpenClipConfig, read_open_clip
from engine.model.imports.published import PUBLISHED_PREPROCESSING, Activation, KnownCheckpoint, PublishedPreprocessing, known_file
from engine.model.preprocessing import Preprocessing
from engine.model.weights import load_weights

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class ImportedModel:
    """A CLIP model of another library, ready to be saved or trained on.

    `provenance` records maker, format, file and its SHA-256, and the activation, preprocessing, image size and text length that were
    chosen, each with the reason.
    """

    name: str
    clip: CLIPModel
    tokenizer: PreTrainedTokenizerFast
    preprocessing: Preprocessing
    provenance: Mapping[str, Any]

    @property
    def context(self) -> int:
        """The text tower's length in tokens."""
        return int(self.clip.config.text_config.max_position_embeddings)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.clip.parameters())


def import_model(
    source: str | Path,
    *,
    name: str | None = None,
    preprocessing: str | None = None,
    activation: Activation | None = None,
    image_size: int | None = None,
    context: int | None = None,
) -> ImportedModel:
    """Read a model from a file, a folder, a shipped name or a Hugging Face id.

    Args:
        name: of the imported model; None: as its source.
        preprocessing: a key of `PUBLISHED_PREPROCESSING`; None: that of the source, or of a known file.
        activation: likewise; a transformers folder always has its own.
        image_size: another image size; position embeddings are interpolated (engine/model/imports/layout.py). None: as trained.
        context: another text length, likewise.

    Raises:
        InputMissing: nothing of that name.
        ModelError: truncated, damaged, hostile, another architecture or tokenizer, NaN weights, or unknown settings.
        ConfigError: `image_size` or `context` does not fit the weights.
        UsageError: no such preprocessing, or an activation that the source already says.
    """
    if preprocessing is not None and preprocessing not in PUBLISHED_PREPROCESSING:
        raise UsageError(f"no preprocessing is called {preprocessing}", hint=" or ".join(PUBLISHED_PREPROCESSING))
    place = _place(source)
    if place.is_file():
        found = _from_checkpoint(place, name or place.stem, preprocessing, activation, read_open_clip(place.parent))
    elif (file := _open_clip_weights(place)) is not None:
        found = _from_checkpoint(file, name or Path(source).name, preprocessing, activation, read_open_clip(place))
    else:
        found = _from_transformers(place, name or Path(source).name, preprocessing, activation)
    return _resized(found, image_size, context)


def save_imported(imported: ImportedModel, folder: Path) -> Path:
    """Write a bundle with card and provenance. OutputError where it cannot be written, or `folder` is not empty."""
    check_free(folder)
    return save_bundle(
        folder,
        imported.clip,
        imported.tokenizer,
        imported.preprocessing,
        name=imported.name,
        card=card(imported),
        provenance=imported.provenance,
    )


def check_free(folder: Path) -> None:
    """Raise OutputError where `folder` exists and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder.name or 'the folder'} is not empty", why="nothing is overwritten", hint="another --out")


def card(imported: ImportedModel) -> str:
    """The model card of an import."""
    about = imported.provenance["imported"]
    images = imported.preprocessing
    changed = "".join(f"- {line}\n" for line in about.get("changed", ()))
    return (
        f"# {imported.name}\n\n"
        "RESEARCH USE ONLY - not for clinical use.\n\n"
        f"ImportedModel by `mmclip models import` from {about['file']} ({about['maker']}, {about['format']}). "
        "The terms of that file go with it. It was not evaluated here.\n\n"
        f"- sha256 of the source: {about['sha256']}\n"
        f"- activation: {about['activation']['value']}, because {about['activation']['because']}\n"
        f"- preprocessing: {about['preprocessing']['value']}, because {about['preprocessing']['because']}\n"
        f"- images: {_resize(images)}, {images.resample}; mean {_numbers(images.mean)}, deviation {_numbers(images.std)} (grey 0-1)\n"
        f"- texts: {imported.context} tokens; tokenizer: {about['tokenizer']}\n"
        f"{changed}"
    )


def _resize(images: Preprocessing) -> str:
    crop = f", the centre cropped to {images.size}" if images.read_size != images.size else ""
    return f"{images.resize} to {images.read_size} pixels{crop}"


def _numbers(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.6g}" if len(set(values)) == 1 else ", ".join(f"{value:.6g}" for value in values)


def _place(source: str | Path) -> Path:
    """The file or folder of a source; a Hugging Face id is fetched."""
    if Path(source).is_file():
        return Path(source)
    try:
        folder = local_folder(source)
    except InputMissing as error:
        hint = f"one of {', '.join(shipped_models())}, a checkpoint file, a folder or a Hugging Face id"
        raise InputMissing(error.what, why=error.why, hint=hint) from None
    return folder or fetch(str(source))


def _open_clip_weights(folder: Path) -> Path | None:
    """The weights of an open_clip folder; None for one that transformers reads as it is."""
    if not (folder / open_clip.CONFIG).is_file() or ((folder / "config.json").is_file() and (folder / WEIGHTS).is_file()):
        return None
    for file in open_clip.WEIGHTS:
        if (folder / file).is_file():
            return folder / file
    raise ModelError(f"{folder.name} has {open_clip.CONFIG} and no weights", hint=f"{open_clip.WEIGHTS[0]} beside it")


# ---- folders of transformers ------------------------------------------------------------------------------------------------------


def _from_transformers(folder: Path, name: str, preprocessing: str | None, activation: Activation | None) -> ImportedModel:
    """A CLIP folder or an mmclip bundle."""
    pickled = folder / PICKLED
    is_pickled = not (folder / WEIGHTS).is_file() and pickled.is_file() and (folder / "config.json").is_file()
    if not is_pickled:
        check_complete(folder, name)
    file = pickled if is_pickled else folder / WEIGHTS
    weights = dict(read_checkpoint(pickled).weights) if is_pickled else None
    published = PUBLISHED_PREPROCESSING[preprocessing].at if preprocessing else None
    bundle = load_folder(folder, name=name, device="cpu", weights=weights, preprocessing_of=published)
    stored = bundle.clip.config.vision_config.hidden_act
    if activation not in (None, stored):
        raise UsageError(f"the weights of {name} were trained with {stored}, as their config.json says", hint="leave --activation out")
    is_ours = (folder / "mmclip.json").is_file()
    about = {
        "maker": "mmclip" if is_ours else "transformers",
        "format": "bundle" if is_ours else "folder",
        "file": file.name,
        "sha256": file_hash(file),
        "activation": {"value": stored, "because": "its config.json says so"},
        "preprocessing": {
            "value": preprocessing or "its own",
            "because": "given by --preprocessing" if preprocessing else "as in the source's own files",
        },
        "tokenizer": "its own",
    }
    if bundle.provenance:
        about["provenance"] = dict(bundle.provenance)
    return ImportedModel(name, bundle.clip, bundle.tokenizer, bundle.preprocessing, {"imported": about})


# ---- weights in OpenAI's layout ---------------------------------------------------------------------------------------------------


def _from_checkpoint(
    file: Path, name: str, preprocessing: str | None, activation: Activation | None, described: OpenClipConfig | None
) -> ImportedModel:
    """OpenAI's, open_clip's or CheXzero's weights, with CLIP's own tokenizer."""
    checkpoint = read_checkpoint(file)
    weights, has_openai_facts = without_facts(checkpoint.weights, file.name)
    heads = (described.image_heads, described.text_heads) if described else (None, None)
    sizes = sizes_of(weights, file.name, image_heads=heads[0], text_heads=heads[1])
    _check_described(sizes, described, file.name)
    sha256 = file_hash(file)
    known = known_file(file.name, sha256, has_openai_facts=has_openai_facts)
    acts, acts_because = _activation(activation, preprocessing, described, known)
    images, images_name, images_because = _preprocessing(preprocessing, described, known)
    if acts is None or images is None:
        raise _unknown(file.name, acts is None, images is None)
    tokenizer = clip_tokenizer(sizes.context)
    clip = _clip(sizes, acts, described.epsilon if described else 1e-5, tokenizer)
    load_weights(clip, renamed(weights, sizes), name)
    maker = known.maker if known else "open_clip" if described else "chexzero" if preprocessing == "chexzero" else "unknown"
    about = {
        "maker": maker,
        "format": checkpoint.format,
        "file": file.name,
        "sha256": sha256,
        "activation": {"value": acts, "because": acts_because},
        "preprocessing": {"value": images_name, "because": images_because},
        "tokenizer": "CLIP's, which ships with mmclip: the file has none",
    }
    return ImportedModel(name, clip, tokenizer, images.at(sizes.image_size), {"imported": about})


def _clip(sizes: ClipSizes, activation: Activation, epsilon: float, tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    import torch
    from transformers import CLIPConfig, CLIPModel

    stored = settings(sizes, activation, sot=tokenizer.bos_token_id, eot=tokenizer.eos_token_id)
    for tower in ("vision_config", "text_config"):
        stored[tower]["layer_norm_eps"] = epsilon
    with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced by the caller
        return CLIPModel(CLIPConfig(**stored)).eval()


def _check_described(sizes: ClipSizes, described: OpenClipConfig | None, file: str) -> None:
    """Raise ModelError for another vocabulary than CLIP's, or a configuration that does not fit the weights."""
    if sizes.vocabulary != VOCABULARY:
        raise ModelError(
            f"{file} cannot be imported: its tokenizer is not CLIP's",
            why=f"it has {sizes.vocabulary:,} tokens, CLIP's has {VOCABULARY:,}, and the file has no vocabulary",
            hint="a model with CLIP's tokenizer",
        )
    if described and described.image_size not in (None, sizes.image_size):
        raise ModelError(
            f"{file} does not fit its {open_clip.CONFIG}",
            why=f"the weights see {sizes.image_size} pixels, the configuration says {described.image_size}",
            hint="keep the files of one model together",
        )


def _activation(
    asked: Activation | None, preprocessing: str | None, described: OpenClipConfig | None, known: KnownCheckpoint | None
) -> tuple[Activation | None, str]:
    """The activation and its reason: the option, else the known file, else the configuration."""
    if asked:
        return asked, "given by --activation"
    if known:
        return known.activation, known.because
    if described:
        return described.activation, f"{open_clip.CONFIG} says so"
    if preprocessing == "chexzero":
        return "quick_gelu", "CheXzero starts from OpenAI's weights"
    return None, ""


def _preprocessing(
    asked: str | None, described: OpenClipConfig | None, known: KnownCheckpoint | None
) -> tuple[PublishedPreprocessing | None, str, str]:
    """The preprocessing, its name and its reason."""
    if asked:
        return PUBLISHED_PREPROCESSING[asked], asked, "given by --preprocessing"
    if described:
        known_as = (name for name, each in PUBLISHED_PREPROCESSING.items() if each == described.preprocessing)
        named = next(known_as, "its own")
        return described.preprocessing, named, f"{open_clip.CONFIG} says so"
    if known:
        return PUBLISHED_PREPROCESSING[known.preprocessing], known.preprocessing, known.because
    return None, "", ""


def _unknown(file: str, activation: bool, preprocessing: bool) -> ModelError:
    """The error for a file whose settings are unknown, with the options that give them."""
    missing = [word for word, lacks in (("the activation", activation), ("the preprocessing", preprocessing)) if lacks]
    options = (
        *(["--activation quick_gelu (OpenAI's weights, and what was tuned from them) or gelu (most of open_clip's)"] if activation else []),
        *(["--preprocessing clip or chexzero"] if preprocessing else []),
    )
    return ModelError(
        f"{file} does not name {' and '.join(missing)}",
        why="it holds weights alone, and neither its sha256 nor its name is known",
        hint=f"mmclip models import FILE --out FOLDER with {' and '.join(options)}",
    )


# ---- another image size or text length --------------------------------------------------------------------------------------------


def _resized(found: ImportedModel, image_size: int | None, context: int | None) -> ImportedModel:
    """The same model for another image size or text length, which its provenance records."""
    # open_clip interpolates with antialiasing (OpenAI's and CheXzero's layout), transformers without (its own layout and ours)
    antialias = found.provenance["imported"]["maker"] not in ("transformers", "mmclip")
    clip = resized_clip(found.clip, image_size=image_size, context=context, antialias=antialias)
    if clip is found.clip:
        return found
    old, new = found.clip.config, clip.config
    sizes = (old.vision_config.image_size, new.vision_config.image_size)
    lengths = (old.text_config.max_position_embeddings, new.text_config.max_position_embeddings)
    changed = []
    if sizes[0] != sizes[1]:
        changed.append(f"positions of {sizes[0]} pixels interpolated to {sizes[1]}, bicubic{', antialiased' if antialias else ''}")
    if lengths[0] != lengths[1]:
        changed.append(f"positions of {lengths[0]} tokens {'cut' if lengths[1] < lengths[0] else 'extended by the last'} to {lengths[1]}")
    found.tokenizer.model_max_length = lengths[1]
    return replace(
        found,
        clip=clip,
        preprocessing=_at_size(found.preprocessing, sizes[1]),
        provenance={"imported": {**found.provenance["imported"], "changed": changed}},
    )


def _at_size(images: Preprocessing, size: int) -> Preprocessing:
    """The same preprocessing for another image size; the share that the centre crop keeps stays."""
    resize_to = None if images.resize_to is None else round(images.resize_to * size / images.size)
    return replace(images, size=size, resize_to=resize_to)
