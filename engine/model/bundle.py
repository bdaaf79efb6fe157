"""Model bundles: folders of weights, configuration, tokenizer, preprocessing and card, loaded and saved as a whole.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  preprocessor_config.json      read by transformers
    mmclip.json      preprocessing, provenance, and the SHA-256 of each file above: a flipped bit is an error
    head.safetensors of a classifier: image features -> one probability per finding
    README.md        the model card

`transformers.CLIPModel.from_pretrained(folder)` loads every bundle, and any CLIP folder or Hugging Face id of transformers loads here, with
the preprocessing of its preprocessor_config.json. Weights are read from safetensors only; engine/model/imports/ reads other
checkpoints without running code.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
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
    model_sizes,
    read_manifest,
    read_preprocessing,
)
from engine.model.bundle_folder import shipped_models as shipped_models
from engine.model.head import HEAD, SECTION, Head, read_head, write_head
from engine.model.preprocessing import Preprocessing
from engine.model.processor_config import FILE as PROCESSOR
from engine.model.processor_config import processor_settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import CLIPModel, CLIPTextConfig, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Bundle:
    """A CLIP model with its tokenizer and image preprocessing.

    `content_hash` is a SHA-256 over weights, configuration, tokenizer, preprocessing and head: same hash, same features and scores.
    `head` makes it a classifier; None: findings are scored by prompts.
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
        """The device of the weights."""
        return self.clip.logit_scale.device  # type: ignore[no-any-return]

    @property
    def logit_scale(self) -> float:
        """The learned multiplier of cosines (already exponentiated, clamped at 100 as in training)."""
        return min(float(self.clip.logit_scale.detach().exp()), 100.0)

    @property
    def context(self) -> int:
        """The text tower's length in tokens."""
        return int(self.clip.config.text_config.max_position_embeddings)

    def pixels(self, images: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """(B, 3, S, S) float32 on the model's device from uint8 (H, W) images."""
        import torch

        return torch.from_numpy(self.preprocessing.pixels(images)).to(self.device)

    def image_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D) float32, L2-normalised: pooled CLS through CLIP's projection."""
        import torch

        if not len(pixels):
            return torch.zeros(0, self.clip.config.projection_dim, device=self.device)
        with torch.inference_mode():
            pooled = self.clip.visual_projection(self.clip.vision_model(pixels).pooler_output)
            return torch.nn.functional.normalize(pooled.float(), dim=-1)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """T texts -> (T, D) float32, L2-normalised: the token at EOT through CLIP's projection. Long texts are cut."""
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
        InputMissing: no such model.
        ModelError: truncated, altered, pickled, with missing, extra or misshapen weights, with NaN, or with a tokenizer that does not fit.
    """
    folder = local_folder(name_or_path)
    if folder is None:
        folder = fetch(str(name_or_path))
    name = Path(name_or_path).name
    check_complete(folder, name)
    return load_folder(folder, name=name, device=device)


def fetch(model_id: str) -> Path:
    """The local folder of a Hugging Face id, downloaded once: safetensors, else the pickled weights, which `models import` can read.

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


def load_folder(
    folder: Path,
    *,
    name: str,
    device: str | torch.device,
    weights: dict[str, Tensor] | None = None,
    preprocessing_of: Callable[[int], Preprocessing] | None = None,
) -> Bundle:
    """The model in a folder.

    Args:
        weights: used instead of model.safetensors, for a folder without it.
        preprocessing_of: image size of the tower -> the preprocessing, in place of the folder's own.

    Raises:
        ModelError: as `load_bundle`.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel

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
        with torch.random.fork_rng(devices=[]):  # random initial weights are replaced below; the caller's generator is not changed
            clip = CLIPModel(config).eval()
    except ModelError:
        raise
    except Exception as error:  # any error of transformers for a wrong configuration
        raise ModelError(f"config.json of model {name} is no CLIP configuration", why=type(error).__name__) from None
    load_weights(clip, weights, name)
    tokenizer = _read_tokenizer(folder, name)
    _check_tokenizer(tokenizer, config.text_config, name)
    image_size = config.vision_config.image_size
    preprocessing = preprocessing_of(image_size) if preprocessing_of else read_preprocessing(folder, manifest, image_size, name)
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


def load_tokenizer(name_or_path: str | Path) -> tuple[PreTrainedTokenizerFast, int]:
    """The tokenizer of a model and the length of its text tower in tokens, without its weights.

    Raises:
        InputMissing, ModelError: as `load_bundle`.
    """
    folder = local_folder(name_or_path) or fetch(str(name_or_path))
    name = Path(name_or_path).name
    check_complete(folder, name)
    return _read_tokenizer(folder, name), model_sizes(folder / "config.json", name)[1]


def _read_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    try:
        # code in the folder is never run
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a broken tokenizer.json surfaces as a bare Exception of the Rust library
        raise ModelError(f"the tokenizer of model {name} cannot be read", why=type(error).__name__) from None


def _check_tokenizer(tokenizer: PreTrainedTokenizerFast, config: CLIPTextConfig, name: str) -> None:
    """Raise ModelError for more tokens than the weights have, or another end of text than the text tower pools at."""
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
    """Write a bundle to a temporary folder, then rename it to `folder`; an older bundle there is replaced only when the new one is whole.

    Args:
        half: store float16, as shipped models do; they are loaded as float32.
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
        (beside / WEIGHTS).chmod(0o644)  # safetensors writes 0600, which other users could not read
        clip.config.architectures = ["CLIPModel"]
        clip.config.save_pretrained(beside)
        _save_tokenizer(tokenizer, beside)
        processor = processor_settings(preprocessing)
        (beside / PROCESSOR).write_text(json.dumps(processor, indent=2) + "\n", "utf-8")
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
    """Write the tokenizer without traces of its use and origin, so that equal tokenizers are equal bytes."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    stored = json.loads(path.read_text("utf-8"))
    for traces in ("is_local", "local_files_only", "trust_remote_code"):
        stored.pop(traces, None)
    path.write_text(json.dumps(stored, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _publish(beside: Path, folder: Path) -> None:
    """fsync every file, then replace the folder by two renames; the first is undone where the second fails."""
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
