"""A model as a folder: weights, configuration, tokenizer, preprocessing and card, loaded and saved together or not at all.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  preprocessor_config.json      what transformers reads
    mmclip.json      preprocessing, provenance, and a sha256 of each file above: a flipped bit is refused
    README.md        the model card

`transformers.CLIPModel.from_pretrained(folder)` loads every bundle; and any CLIP folder or Hugging Face id of transformers loads here, with
the preprocessing of its own preprocessor_config.json. Weights are read from safetensors only: a pickle is never opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.errors import InputMissing, ModelError, OutputError
from engine.model.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import CLIPModel, PreTrainedTokenizerFast

SHIPPED = Path(__file__).parent / "shipped"
WEIGHTS = "model.safetensors"
HASHED = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json")


def shipped_models() -> list[str]:
    """Names of the models in this package, sorted."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/mmclip.json"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A CLIP with its words and its eyes: everything that turns pictures and texts into comparable features.

    `content_hash` is a sha256 over weights, configuration, tokenizer and preprocessing: same hash, same features.
    """

    name: str
    content_hash: str
    clip: CLIPModel
    tokenizer: PreTrainedTokenizerFast
    preprocessing: Preprocessing
    card: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.clip.logit_scale.device  # type: ignore[no-any-return]

    @property
    def logit_scale(self) -> float:
        """The learned multiplier of cosines (already exponentiated, clamped at 100 as in training)."""
        return min(float(self.clip.logit_scale.detach().exp()), 100.0)

    @property
    def context(self) -> int:
        """The text tower's length in tokens."""
        return int(self.clip.config.text_config.max_position_embeddings)

    def pixels(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """(B, 3, S, S) float32 on the model's device from uint8 (H, W) pictures."""
        import torch

        return torch.from_numpy(self.preprocessing.pixels(pictures)).to(self.device)

    def image_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D) float32, L2-normalised: pooled CLS through CLIP's projection."""
        import torch

        with torch.inference_mode():
            pooled = self.clip.visual_projection(self.clip.vision_model(pixels).pooler_output)
            return torch.nn.functional.normalize(pooled.float(), dim=-1)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """T texts -> (T, D) float32, L2-normalised: the token at EOT through CLIP's projection. A long text loses its end, not its EOT."""
        import torch

        from engine.model.vocabulary import tokenize

        tokens = tokenize(self.tokenizer, texts, self.context)
        with torch.inference_mode():
            input_ids = torch.from_numpy(tokens.input_ids).to(self.device)
            pooled = self.clip.text_projection(self.clip.text_model(input_ids).pooler_output)
            return torch.nn.functional.normalize(pooled.float(), dim=-1)


def load_bundle(name_or_path: str | Path, device: str | torch.device = "cpu") -> Bundle:
    """A shipped model by name, a bundle or CLIP folder by path, or a Hugging Face id.

    Raises:
        InputMissing: nothing of that name.
        ModelError: truncated, altered, pickled, with missing, extra or misshapen weights, with NaN, or with a tokenizer that does not fit.
    """
    folder = local_folder(name_or_path)
    if folder is None:
        folder = _download(str(name_or_path))
    return _load_folder(folder, name=Path(name_or_path).name, device=device)


def local_folder(name_or_path: str | Path) -> Path | None:
    """The folder of a shipped model or of a bundle on disk; None for what may be a Hugging Face id. Imports no torch.

    Raises:
        InputMissing: nothing of that name.
        ModelError: a file, where a folder should be.
    """
    shipped = SHIPPED / str(name_or_path)
    if re.fullmatch(r"[\w.-]+", str(name_or_path)) and (shipped / "mmclip.json").is_file():
        return shipped
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if Path(name_or_path).is_file():
        raise ModelError(
            f"{Path(name_or_path).name} is one file, not a bundle folder", hint="the folder that holds config.json and model.safetensors"
        )
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(name_or_path)):
        return None
    raise InputMissing(
        f"no model named {name_or_path}",
        hint=f"one of {', '.join(shipped_models()) or '(none shipped)'}, a bundle folder or a Hugging Face id",
    )


def check_whole(folder: Path, manifest: Mapping[str, Any], name: str) -> None:
    """Compare every file with the sha256 that the manifest holds; raises ModelError for the first that differs."""
    for file, expected in manifest.get("sha256", {}).items():
        if not (folder / file).is_file() or _sha256(folder / file) != expected:
            raise ModelError(
                f"{file} of model {name} is missing, truncated or altered",
                why=f"its sha256 is not {expected[:12]}... as mmclip.json says",
                hint="copy the model again",
            )


def content_hash(folder: Path, manifest: Mapping[str, Any], preprocessing: Preprocessing) -> str:
    """sha256 over weights, configuration, tokenizer and preprocessing; trusts the file hashes that the manifest holds."""
    digest = hashlib.sha256(json.dumps(preprocessing.as_dict(), sort_keys=True).encode())
    for file in HASHED:
        digest.update((manifest.get("sha256", {}).get(file) or (_sha256(folder / file) if (folder / file).is_file() else "-")).encode())
    return digest.hexdigest()


def _download(model_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model_id, allow_patterns=["*.json", "*.txt", "*.safetensors", "README.md"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputMissing(
            f"cannot fetch {model_id}", why=type(error).__name__, hint="check the id and the network, or give a folder on disk"
        ) from None


def _load_folder(folder: Path, *, name: str, device: str | torch.device) -> Bundle:
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    for needed in ("config.json", WEIGHTS):
        if not (folder / needed).is_file():
            pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
            raise ModelError(
                f"model {name} has no {needed}",
                why=f"it holds {pickled[0]}, and pickled weights are never opened" if pickled and needed == WEIGHTS else "",
                hint="convert it to safetensors with the tool it came from" if pickled else "a complete bundle folder",
            )
    manifest = read_manifest(folder, name)
    check_whole(folder, manifest, name)
    weights = _read_weights(folder / WEIGHTS, name)
    try:
        config = CLIPConfig.from_pretrained(folder)
        clip = CLIPModel(config).eval()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"config.json of model {name} is no CLIP configuration", why=type(error).__name__) from None
    _check_weights(clip, weights, name)
    clip.load_state_dict(weights, strict=False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # a broken tokenizer.json surfaces as a bare Exception of the Rust library
        raise ModelError(f"the tokenizer of model {name} cannot be read", why=type(error).__name__) from None
    if len(tokenizer) > config.text_config.vocab_size or tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of model {name} does not fit its weights",
            why=f"it has {len(tokenizer)} tokens, the weights have {config.text_config.vocab_size}",
            hint="keep the files of one model together",
        )
    preprocessing = read_preprocessing(folder, manifest, config.vision_config.image_size)
    card = folder / "README.md"
    return Bundle(
        name=manifest.get("name", name),
        content_hash=content_hash(folder, manifest, preprocessing),
        clip=clip.to(device),
        tokenizer=tokenizer,
        preprocessing=preprocessing,
        card=card.read_text("utf-8") if card.is_file() else "",
        provenance=manifest.get("provenance", {}),
    )


def read_manifest(folder: Path, name: str) -> dict[str, Any]:
    """mmclip.json of a bundle; empty for a folder that mmclip did not write. Raises ModelError."""
    path = folder / "mmclip.json"
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise ModelError(f"mmclip.json of model {name} is not a JSON object", hint="copy the model again")
    return manifest


def _read_weights(path: Path, name: str) -> dict[str, Tensor]:
    """The state dict as float32.

    Raises:
        ModelError: not a whole safetensors file, or a value that is no finite number.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError):
        raise ModelError(f"{WEIGHTS} of model {name} is truncated or no safetensors file", hint="copy the model again") from None
    for key, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"model {name} holds NaN or infinite weights", why=f"in {key}")
    return {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}


def _check_weights(clip: CLIPModel, weights: dict[str, Tensor], name: str) -> None:
    """Refuse weights whose names or shapes are not exactly the configuration's. Position ids of old checkpoints are dropped."""
    for key in [key for key in weights if key.endswith("position_ids")]:
        del weights[key]
    wanted = clip.state_dict()
    missing, extra = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    shapes = [
        f"{key} is {list(weights[key].shape)}, not {list(value.shape)}"
        for key, value in wanted.items()
        if key in weights and weights[key].shape != value.shape
    ]
    faults = [
        f"{len(group)} {word}, first {'; '.join(group[:3])}"
        for word, group in (("missing", missing), ("unknown", extra), ("of another shape", shapes))
        if group
    ]
    if faults:
        raise ModelError(f"the weights of model {name} do not fit its config.json", why=", and ".join(faults))


def read_preprocessing(folder: Path, manifest: dict[str, Any], image_size: int) -> Preprocessing:
    """What pictures go through before the image tower: as mmclip.json says, else as CLIP's own processor does."""
    if "preprocessing" in manifest:
        stored = manifest["preprocessing"]
        return Preprocessing(stored["size"], stored["resize"], tuple(stored["mean"]), tuple(stored["std"]))
    processor = folder / "preprocessor_config.json"
    stored = json.loads(processor.read_text("utf-8")) if processor.is_file() else {}
    # CLIP's own processor takes the middle of the longer side
    return Preprocessing(image_size, "crop", tuple(stored.get("image_mean", CLIP_MEAN)), tuple(stored.get("image_std", CLIP_STD)))


def save_bundle(
    folder: Path,
    clip: CLIPModel,
    tokenizer: PreTrainedTokenizerFast,
    preprocessing: Preprocessing,
    *,
    name: str,
    card: str = "",
    provenance: Mapping[str, Any] | None = None,
    half: bool = False,
) -> Path:
    """Write a bundle beside `folder`, then put it in its place at once; an older bundle there goes only when the new one is whole.

    Args:
        half: store float16, as shipped models do (they run in float32 all the same).

    Raises:
        OutputError: it cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        state = {
            key: value.detach().to("cpu", torch.float16 if half and value.is_floating_point() else value.dtype).contiguous()
            for key, value in clip.state_dict().items()
        }
        save_file(state, beside / WEIGHTS, metadata={"format": "pt"})
        (beside / WEIGHTS).chmod(0o644)  # safetensors writes 0600, which would keep a shared model to one user
        clip.config.architectures = ["CLIPModel"]
        clip.config.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        size = {"height": preprocessing.size, "width": preprocessing.size}
        processor = {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": size if preprocessing.resize == "squash" else {"shortest_edge": preprocessing.size},
            "do_center_crop": preprocessing.resize == "crop",
            "crop_size": size,
            "resample": 1,  # Pillow's LANCZOS
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(preprocessing.mean),
            "image_std": list(preprocessing.std),
        }
        (beside / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", "utf-8")
        manifest = {
            "name": name,
            "preprocessing": preprocessing.as_dict(),
            "sha256": {file: _sha256(beside / file) for file in HASHED if (beside / file).is_file()},
            "provenance": dict(provenance or {}),
        }
        (beside / "mmclip.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
        (beside / "README.md").write_text(card, "utf-8")
        _publish(beside, folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise OutputError(
            "cannot write the model", why=error.strerror or type(error).__name__, hint="another --out, or free space"
        ) from None
    return folder


def _publish(beside: Path, folder: Path) -> None:
    """fsync every file, then swap the folder in by renames."""
    for path in [*beside.rglob("*"), beside]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def random_bundle(folder: Path, *, seed: int = 0, size: int = 32) -> Bundle:
    """A toy model with random weights (16-pixel patches, width 32, byte vocabulary), saved to `folder` and loaded: for tests and controls.

    Drawing the weights leaves torch's global generator as it was.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel

    from engine.model.preprocessing import GREY_MEAN, GREY_STD
    from engine.model.vocabulary import train_tokenizer

    tokenizer = train_tokenizer(["no pneumonia", "pleural effusion"], 320, 32)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 32}
    config = CLIPConfig(
        projection_dim=32,
        vision_config={**tower, "image_size": size, "patch_size": 16},
        text_config={
            **tower,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 32,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = CLIPModel(config)
    save_bundle(folder, clip, tokenizer, Preprocessing(size, "squash", GREY_MEAN, GREY_STD), name=folder.name)
    return load_bundle(folder)
