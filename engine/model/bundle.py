"""A model as a folder: weights, configuration, tokenizer, preprocessing and card, loaded and saved together or not at all.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  preprocessor_config.json      what transformers reads
    mmclip.json      preprocessing, provenance, and a sha256 of each file above: a flipped bit is refused
    head.safetensors  (a classifier's) what turns image features into one probability per finding
    README.md        the model card

`transformers.CLIPModel.from_pretrained(folder)` loads every bundle; and any CLIP folder or Hugging Face id of transformers loads here, with
the preprocessing of its own preprocessor_config.json. Weights are read from safetensors only: a pickle is never opened here
(engine/model/imports/ reads other checkpoints, and runs none).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.errors import InputMissing, ModelError, OutputError
from engine.model.bundle_folder import (
    HASHED,
    MANIFEST,
    PICKLED,
    WEIGHTS,
    check_complete,
    check_whole,
    content_hash,
    file_hash,
    local_folder,
    read_manifest,
    read_preprocessing,
)
from engine.model.bundle_folder import shipped_models as shipped_models
from engine.model.head import HEAD, SECTION, Head, read_head, write_head
from engine.model.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import CLIPModel, CLIPTextConfig, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Bundle:
    """A CLIP with its words and its eyes: everything that turns pictures and texts into comparable features.

    `content_hash` is a sha256 over weights, configuration, tokenizer, preprocessing and head: same hash, same features and scores.
    `head` makes it a classifier; None: words are its only classifier.
    """

    name: str
    content_hash: str
    clip: CLIPModel
    tokenizer: PreTrainedTokenizerFast
    preprocessing: Preprocessing
    card: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    head: Head | None = None

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

        if not len(pixels):
            return torch.zeros(0, self.clip.config.projection_dim, device=self.device)
        with torch.inference_mode():
            pooled = self.clip.visual_projection(self.clip.vision_model(pixels).pooler_output)
            return torch.nn.functional.normalize(pooled.float(), dim=-1)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """T texts -> (T, D) float32, L2-normalised: the token at EOT through CLIP's projection. A long text loses its end, not its EOT."""
        import torch

        from engine.model.tokenizer import tokenize

        if not texts:
            return torch.zeros(0, self.clip.config.projection_dim, device=self.device)
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
        folder = fetch(str(name_or_path))
    name = Path(name_or_path).name
    check_complete(folder, name)
    return load_folder(folder, name=name, device=device)


def fetch(model_id: str) -> Path:
    """The folder of a Hugging Face id, fetched once: safetensors, or else the pickled weights that `models import` reads without running.

    Raises:
        InputMissing: no such id, or no network.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model_id, allow_patterns=["*.json", "*.txt", "*.safetensors", "README.md"]))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(model_id, allow_patterns=[PICKLED, "open_clip_pytorch_model.bin"])
        return folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputMissing(
            f"cannot fetch {model_id}", why=type(error).__name__, hint="check the id and the network, or give a folder on disk"
        ) from None


def load_folder(folder: Path, *, name: str, device: str | torch.device, weights: dict[str, Tensor] | None = None) -> Bundle:
    """The model in a folder.

    Args:
        weights: in place of its model.safetensors, for a folder that has none.

    Raises:
        ModelError: as `load_bundle`.
    """
    import torch
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    from engine.model.weights import check_sizes, load_weights, read_weights

    manifest = read_manifest(folder, name)
    check_whole(folder, manifest, name)
    weights = read_weights(folder / WEIGHTS, name) if weights is None else weights
    try:
        stored = json.loads((folder / "config.json").read_text("utf-8"))
        if stored["model_type"] != "clip":
            raise ValueError("another architecture")
        config = CLIPConfig.from_dict(stored)
        check_sizes(config, weights, name)
        with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced below: the caller's generator stays as it was
            clip = CLIPModel(config).eval()
    except ModelError:
        raise
    except Exception as error:  # whatever a configuration with other types and sizes runs into
        raise ModelError(f"config.json of model {name} is no CLIP configuration", why=type(error).__name__) from None
    load_weights(clip, weights, name)
    try:
        # code that lies beside the weights is never run, nor asked about
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a broken tokenizer.json surfaces as a bare Exception of the Rust library
        raise ModelError(f"the tokenizer of model {name} cannot be read", why=type(error).__name__) from None
    _check_tokenizer(tokenizer, config.text_config, name)
    preprocessing = read_preprocessing(folder, manifest, config.vision_config.image_size, name)
    card = folder / "README.md"
    return Bundle(
        name=manifest.get("name", name),
        content_hash=content_hash(folder, manifest, preprocessing),
        clip=clip.to(device),
        tokenizer=tokenizer,
        preprocessing=preprocessing,
        card=card.read_text("utf-8", errors="replace") if card.is_file() else "",
        provenance=manifest.get("provenance", {}),
        head=read_head(folder, manifest, name, config.projection_dim),
    )


def _check_tokenizer(tokenizer: PreTrainedTokenizerFast, config: CLIPTextConfig, name: str) -> None:
    """Refuse tokens that the weights do not have, and an end of text that the text tower would not find (it would pool SOT instead)."""
    # token 2 as EOT marks OpenAI's converted weights, whose EOT is really the highest id
    eot = config.vocab_size - 1 if config.eos_token_id == 2 else config.eos_token_id
    if len(tokenizer) > config.vocab_size:
        why = f"it has {len(tokenizer)} tokens, the weights have {config.vocab_size}"
    elif tokenizer.eos_token_id != eot:
        why = f"its end of text is token {tokenizer.eos_token_id}, the weights expect {eot}"
    else:
        return
    raise ModelError(f"the tokenizer of model {name} does not fit its weights", why=why, hint="keep the files of one model together")


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
    head: Head | None = None,
) -> Path:
    """Write a bundle beside `folder`, then put it in its place at once; an older bundle there goes only when the new one is whole.

    Args:
        half: store float16, as shipped models do (they run in float32 all the same).
        head: makes it a classifier.

    Raises:
        OutputError: it cannot be written.
    """
    import torch
    from safetensors import SafetensorError
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
        _save_tokenizer(tokenizer, beside)
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
        if head is not None:
            write_head(head, beside)
        manifest = {
            "name": name,
            "preprocessing": preprocessing.as_dict(),
            "sha256": {file: file_hash(beside / file) for file in (*HASHED, HEAD) if (beside / file).is_file()},
            "provenance": dict(provenance or {}),
        }
        if head is not None:
            manifest[SECTION] = head.as_section()
        (beside / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
        (beside / "README.md").write_text(card, "utf-8")
        _publish(beside, folder)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise OutputError("cannot write the model", why=why, hint="another --out, or free space") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The same tokenizer is the same bytes, whatever it was used for and wherever it came from: both would be written down with it."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    stored = json.loads(path.read_text("utf-8"))
    for traces in ("is_local", "local_files_only", "trust_remote_code"):
        stored.pop(traces, None)
    path.write_text(json.dumps(stored, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _publish(beside: Path, folder: Path) -> None:
    """fsync every file, then swap the folder in by renames; where the second fails, the first is taken back."""
    for path in [*beside.rglob("*"), beside]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    replaces = folder.exists()
    if replaces:
        folder.rename(old)
    try:
        beside.rename(folder)
    except OSError:
        if replaces:
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def random_bundle(folder: Path, *, seed: int = 0, size: int = 32) -> Bundle:
    """A toy model with random weights (16-pixel patches, width 32, byte vocabulary), saved to `folder` and loaded: for tests and controls.

    Drawing the weights leaves torch's global generator as it was.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel

    from engine.model.preprocessing import GREY_MEAN, GREY_STD
    from engine.model.tokenizer import train_tokenizer

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
