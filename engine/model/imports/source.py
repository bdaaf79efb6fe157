"""Weights from anywhere -> a CLIP with its tokenizer and preprocessing: what `mmclip models import` writes and `model.init` starts from.

    a Hugging Face CLIP, a bundle      id, name or folder: config.json beside model.safetensors or pytorch_model.bin
    OpenAI's .pt                       a TorchScript archive, or its state dict
    open_clip                          a folder with open_clip_config.json and its weights, or a file of weights
    CheXzero's .pt                     OpenAI's names, its own preprocessing

No pickle is executed and no code of an archive is run: engine/model/imports/pickled.py says how. What a file does not tell and what is not
on record (engine/model/imports/knowledge.py) is asked for, never guessed.
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
from engine.model.imports.layout import Sizes, fitted, renamed, settings, sizes_of, without_facts
from engine.model.imports.open_clip import Described, read_open_clip
from engine.model.imports.published import LOOKS, Activation, Known, Look, known_file
from engine.model.preprocessing import Preprocessing
from engine.model.weights import load_weights

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Imported:
    """A CLIP from elsewhere, ready to be saved or trained on.

    `provenance` says where it comes from: maker, format, file and its sha256, and what was decided about activation, preprocessing,
    picture size and context, each with the reason.
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
) -> Imported:
    """Read a model from a file, a folder, a shipped name or a Hugging Face id.

    Args:
        name: what the model is called from now on; None: as its source.
        preprocessing: a key of `LOOKS`; None: what the source says, or what is on record of it.
        activation: likewise; a transformers folder always says its own.
        image_size: pictures of another size: position embeddings are interpolated (engine/model/imports/positions.py). None: as trained.
        context: texts of another length, likewise.

    Raises:
        InputMissing: nothing of that name.
        ModelError: truncated, damaged, hostile, another architecture or tokenizer, NaN weights, or not enough is known of it.
        ConfigError: `image_size` or `context` does not fit the weights.
        UsageError: no such preprocessing, or an activation that the source already says.
    """
    if preprocessing is not None and preprocessing not in LOOKS:
        raise UsageError(f"no preprocessing is called {preprocessing}", hint=" or ".join(LOOKS))
    place = _place(source)
    if place.is_file():
        found = _from_checkpoint(place, name or place.stem, preprocessing, activation, read_open_clip(place.parent))
    elif (file := _open_clip_weights(place)) is not None:
        found = _from_checkpoint(file, name or Path(source).name, preprocessing, activation, read_open_clip(place))
    else:
        found = _from_transformers(place, name or Path(source).name, preprocessing, activation)
    return _fitted(found, image_size, context)


def save_imported(imported: Imported, folder: Path) -> Path:
    """Write a bundle with card and provenance. OutputError where it cannot be written, or where something else lies in `folder`."""
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
    """Refuse to write where something is: OutputError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder.name or 'the folder'} is not empty", why="nothing is overwritten", hint="another --out")


def card(imported: Imported) -> str:
    """The model card of an import: what is known of it, and what is not."""
    about = imported.provenance["imported"]
    look = imported.preprocessing
    changed = "".join(f"- {line}\n" for line in about.get("changed", ()))
    return (
        f"# {imported.name}\n\n"
        "RESEARCH USE ONLY - not for clinical use.\n\n"
        f"Imported by `mmclip models import` from {about['file']} ({about['maker']}, {about['format']}). "
        "The terms of that file go with it. It was not evaluated here.\n\n"
        f"- sha256 of the source: {about['sha256']}\n"
        f"- activation: {about['activation']['value']}, because {about['activation']['because']}\n"
        f"- preprocessing: {about['preprocessing']['value']}, because {about['preprocessing']['because']}\n"
        f"- pictures: {look.resize} to {look.size} pixels; mean {_numbers(look.mean)}, deviation {_numbers(look.std)} of grey in [0, 1]\n"
        f"- texts: {imported.context} tokens; tokenizer: {about['tokenizer']}\n"
        f"{changed}"
    )


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


# ---- what transformers wrote ------------------------------------------------------------------------------------------------------


def _from_transformers(folder: Path, name: str, preprocessing: str | None, activation: Activation | None) -> Imported:
    """A CLIP folder or one of our bundles; its configuration says everything but, sometimes, the preprocessing."""
    pickled = folder / PICKLED
    is_pickled = not (folder / WEIGHTS).is_file() and pickled.is_file() and (folder / "config.json").is_file()
    if not is_pickled:
        check_complete(folder, name)
    file = pickled if is_pickled else folder / WEIGHTS
    bundle = load_folder(folder, name=name, device="cpu", weights=dict(read_checkpoint(pickled).weights) if is_pickled else None)
    said = bundle.clip.config.vision_config.hidden_act
    if activation not in (None, said):
        raise UsageError(f"the weights of {name} were trained with {said}, as their config.json says", hint="leave --activation out")
    look = bundle.preprocessing
    because = "the source's own files say so"
    if preprocessing is not None:
        look = Preprocessing(look.size, LOOKS[preprocessing].resize, LOOKS[preprocessing].mean, LOOKS[preprocessing].std)
        because = "it was asked for"
    is_ours = (folder / "mmclip.json").is_file()
    about = {
        "maker": "mmclip" if is_ours else "transformers",
        "format": "bundle" if is_ours else "folder",
        "file": file.name,
        "sha256": file_hash(file),
        "activation": {"value": said, "because": "its config.json says so"},
        "preprocessing": {"value": preprocessing or "its own", "because": because},
        "tokenizer": "its own",
    }
    if bundle.provenance:
        about["provenance"] = dict(bundle.provenance)
    return Imported(name, bundle.clip, bundle.tokenizer, look, {"imported": about})


# ---- OpenAI's layout --------------------------------------------------------------------------------------------------------------


def _from_checkpoint(
    file: Path, name: str, preprocessing: str | None, activation: Activation | None, described: Described | None
) -> Imported:
    """OpenAI's, open_clip's or CheXzero's weights, with CLIP's own tokenizer."""
    checkpoint = read_checkpoint(file)
    weights, has_openai_facts = without_facts(checkpoint.weights, file.name)
    heads = (described.image_heads, described.text_heads) if described else (None, None)
    sizes = sizes_of(weights, file.name, image_heads=heads[0], text_heads=heads[1])
    _check_described(sizes, described, file.name)
    sha256 = file_hash(file)
    known = known_file(file.name, sha256, has_openai_facts=has_openai_facts)
    acts, acts_because = _activation(activation, preprocessing, described, known)
    look, look_name, look_because = _look(preprocessing, described, known)
    if acts is None or look is None:
        raise _unknown(file.name, acts is None, look is None)
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
        "preprocessing": {"value": look_name, "because": look_because},
        "tokenizer": "CLIP's, which ships with mmclip: the file carries none",
    }
    return Imported(name, clip, tokenizer, Preprocessing(sizes.image_size, look.resize, look.mean, look.std), {"imported": about})


def _clip(sizes: Sizes, activation: Activation, epsilon: float, tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    import torch
    from transformers import CLIPConfig, CLIPModel

    stored = settings(sizes, activation, sot=tokenizer.bos_token_id, eot=tokenizer.eos_token_id)
    for tower in ("vision_config", "text_config"):
        stored[tower]["layer_norm_eps"] = epsilon
    with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced by the caller
        return CLIPModel(CLIPConfig(**stored)).eval()


def _check_described(sizes: Sizes, described: Described | None, file: str) -> None:
    """Refuse another vocabulary than CLIP's, and a configuration of another model than the one beside it."""
    if sizes.vocabulary != VOCABULARY:
        raise ModelError(
            f"{file} cannot be imported: its tokenizer is not CLIP's",
            why=f"it has {sizes.vocabulary:,} tokens, CLIP's has {VOCABULARY:,}, and the file carries no vocabulary",
            hint="a model with CLIP's tokenizer",
        )
    if described and described.image_size not in (None, sizes.image_size):
        raise ModelError(
            f"{file} does not fit its {open_clip.CONFIG}",
            why=f"the weights see {sizes.image_size} pixels, the configuration says {described.image_size}",
            hint="keep the files of one model together",
        )


def _activation(
    asked: Activation | None, preprocessing: str | None, described: Described | None, known: Known | None
) -> tuple[Activation | None, str]:
    """The activation and why, in the order of trust: what is asked for, the digest or name on record, the configuration."""
    if asked:
        return asked, "it was asked for"
    if known:
        return known.activation, known.because
    if described:
        return described.activation, f"{open_clip.CONFIG} says so"
    if preprocessing == "chexzero":
        return "quick_gelu", "CheXzero goes on from OpenAI's weights"
    return None, ""


def _look(asked: str | None, described: Described | None, known: Known | None) -> tuple[Look | None, str, str]:
    """The preprocessing, its name and why."""
    if asked:
        return LOOKS[asked], asked, "it was asked for"
    if described:
        named = next((name for name, look in LOOKS.items() if look == described.look), "its own")
        return described.look, named, f"{open_clip.CONFIG} says so"
    if known:
        return LOOKS[known.look], known.look, known.because
    return None, "", ""


def _unknown(file: str, activation: bool, preprocessing: bool) -> ModelError:
    """What is not known of a file of weights alone, all at once, with the words that tell it."""
    missing = [word for word, lacks in (("its activation", activation), ("its preprocessing", preprocessing)) if lacks]
    options = (
        *(["--activation quick_gelu (OpenAI's weights, and what was tuned from them) or gelu (most of open_clip's)"] if activation else []),
        *(["--preprocessing clip or chexzero"] if preprocessing else []),
    )
    return ModelError(
        f"cannot tell {' and '.join(missing)} from {file}",
        why="it holds weights alone, and neither its sha256 nor its name is on record",
        hint=f"mmclip models import FILE --out FOLDER with {' and '.join(options)}",
    )


# ---- another size -----------------------------------------------------------------------------------------------------------------


def _fitted(found: Imported, image_size: int | None, context: int | None) -> Imported:
    """The same model for other pictures and texts, which its provenance then tells."""
    # each library interpolates its own way: open_clip's is OpenAI's and CheXzero's layout, transformers' its own and ours
    antialias = found.provenance["imported"]["maker"] not in ("transformers", "mmclip")
    clip = fitted(found.clip, image_size=image_size, context=context, antialias=antialias)
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
        preprocessing=replace(found.preprocessing, size=sizes[1]),
        provenance={"imported": {**found.provenance["imported"], "changed": changed}},
    )
