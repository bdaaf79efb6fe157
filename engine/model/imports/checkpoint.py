"""A checkpoint file -> its tensors by name, whatever wrote it: safetensors, torch.save, or a TorchScript archive."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from engine.errors import ModelError, ReadError
from engine.model.imports.archive import Archive
from engine.model.imports.pickled import STORAGES, StoredTensor, Thing, read_pickle
from engine.model.weights import checked_weights, read_weights

Format = Literal["safetensors", "state_dict", "torchscript"]
DEEPEST = 16
"""Modules inside modules of a TorchScript archive; CLIP has six."""
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds. `weights` are float32 (whole numbers stay), finite, and named as in the file, without the prefixes of wrappers."""

    format: Format
    weights: Mapping[str, Tensor]


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors of a checkpoint; nothing in it is executed.

    Of a training checkpoint, the table under `state_dict`, `model_state_dict` or `model` is taken; `module.` (DDP) and `_orig_mod.`
    (torch.compile) before every name are dropped.

    Raises:
        ModelError: truncated, damaged, hostile, without tensors, or with NaN or infinite ones.
        ReadError: it cannot be opened.
    """
    if _is_safetensors(path):
        return Checkpoint("safetensors", _unwrapped(read_weights(path, path.stem)))
    with Archive(path) as archive:
        value = read_pickle(archive.pickle(), path.name)
        if archive.is_script and isinstance(value, Thing):
            kind: Format = "torchscript"
            named = dict(_attributes(value, path.name))
        else:
            kind = "state_dict"
            named = _state_dict(value, path.name)
        weights = _unwrapped(_read_tensors(archive, named))
    masks = {name: value for name, value in weights.items() if name.endswith("attn_mask")}  # infinite by design
    return Checkpoint(kind, checked_weights({name: value for name, value in weights.items() if name not in masks}, path.stem) | masks)


def _is_safetensors(path: Path) -> bool:
    """8 bytes of length, then JSON; by content, since a name says little."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError as error:
        raise ReadError(f"cannot read {path.name}", why=error.strerror or "") from None


def _state_dict(value: Any, file: str) -> dict[str, StoredTensor]:
    for wrapped in ("state_dict", "model_state_dict", "model"):
        if isinstance(value, dict) and isinstance(value.get(wrapped), dict):
            value = value[wrapped]
            break
    named = {key: each for key, each in value.items() if isinstance(each, StoredTensor)} if isinstance(value, dict) else {}
    if not named or not all(isinstance(key, str) for key in named):
        raise ModelError(f"{file} holds no weights by name", hint="a state dict, as torch.save(model.state_dict(), FILE) writes it")
    return named


def _attributes(module: Thing, file: str) -> Iterator[tuple[str, StoredTensor]]:
    """Every tensor of a TorchScript module and of the modules in it, with its dotted name."""
    waiting: list[tuple[tuple[str, ...], Thing]] = [((), module)]
    seen: set[int] = set()
    while waiting:
        path, each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if len(path) > DEEPEST:
            raise ModelError(f"{file} nests modules deeper than {DEEPEST}", hint="the archive of a CLIP")
        for name, value in each.attributes.items():
            if isinstance(value, StoredTensor):
                yield ".".join((*path, str(name))), value
            elif isinstance(value, Thing):
                waiting.append(((*path, str(name)), value))


def _unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = dict(weights)
    for prefix in ("module.", "_orig_mod.") * 2:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _read_tensors(archive: Archive, named: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Views of the storages, each read once; sizes are compared with the file before any memory is taken."""
    total = 0
    for name, stored in named.items():
        storage = stored.storage
        size = STORAGES[storage.kind]
        numel = math.prod(stored.shape)
        last = stored.offset + sum((length - 1) * stride for length, stride in zip(stored.shape, stored.strides, strict=True))
        total += numel * size
        if archive.record_size(f"data/{storage.key}") != storage.numel * size:
            why = f"{name} claims {storage.numel:,} numbers, which its record does not hold"
        elif numel > storage.numel or (numel and last >= storage.numel):
            why = f"{name} claims to be {list(stored.shape)} in a storage of {storage.numel:,} numbers"
        elif total > 2 * archive.size:  # a mask that all blocks of a TorchScript archive share counts once a block
            why = f"its tensors claim more than twice the {archive.size:,} bytes of the file"
        else:
            continue
        raise ModelError(f"{archive.path.name} is damaged or lies about its sizes", why=why, hint="copy the file again")
    storages: dict[str, Tensor] = {}
    weights = {}
    for name, stored in named.items():
        storage, key = stored.storage, stored.storage.key
        dtype = DTYPES[storage.kind]
        if key not in storages:
            storages[key] = torch.frombuffer(archive.read(f"data/{key}"), dtype=torch.uint8) if storage.numel else torch.empty(0).byte()
        weights[name] = storages[key].view(dtype).as_strided(stored.shape, stored.strides, stored.offset)
    return weights
