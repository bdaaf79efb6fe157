"""Checkpoint files: tensors by name from safetensors, torch.save or a TorchScript archive, without running code.

A torch checkpoint is a zip of records; its directory is checked before any record is read.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

import torch
from torch import Tensor

from engine.errors import ModelError, ReadError
from engine.model.imports.pickle_reader import STORAGES, PickledObject, StoredTensor, read_pickle
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

MOST_RECORDS = 200_000
MOST_PICKLE_BYTES = 16_000_000
"""A checkpoint of 2.5 billion weights with its optimizer has a data.pkl below one million bytes."""

_BROKEN = (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, RuntimeError, ValueError, EOFError, OverflowError, LookupError)
"""Errors of Python's zipfile for a damaged directory; OSError is a seek to before the start of the file."""


class TorchArchive:
    """The records of one checkpoint file; a context manager.

    Raises:
        ModelError: the file is truncated, damaged, compressed, of torch's old format, or claims more bytes than it has.
        ReadError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        _check_start(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            raise self._broken("its directory cannot be read", error) from None
        try:
            self._records = self._checked()
        except _BROKEN as error:
            self._zip.close()
            raise self._broken("its directory cannot be read", error) from None
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @property
    def is_script(self) -> bool:
        """True for a TorchScript archive, which holds code; the code is not read."""
        return f"{self._root}/constants.pkl" in self._zip.NameToInfo

    def record_size(self, record: str) -> int | None:
        """Bytes of a record, as in `data/0`; None where there is none."""
        info = self._records.get(f"{self._root}/{record}")
        return None if info is None else info.file_size

    def read(self, record: str) -> bytearray:
        """The bytes of a record, checked against their checksum."""
        try:
            with self._zip.open(self._records[f"{self._root}/{record}"]) as file:
                found = bytearray(file.read())
        except _BROKEN as error:
            raise self._broken(f"its record {record} is missing or damaged", error) from None
        return found

    def pickle(self) -> bytes:
        """data.pkl; a large one is refused before it is read."""
        size = self.record_size("data.pkl") or 0
        if size > MOST_PICKLE_BYTES:
            raise self._broken(f"its data.pkl has {size:,} bytes, a checkpoint's at most {MOST_PICKLE_BYTES:,}")
        return bytes(self.read("data.pkl"))

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        """The records of torch, each once, inside the file and together no larger than it."""
        entries = self._zip.infolist()
        if len(entries) > MOST_RECORDS:
            raise self._broken(f"it has {len(entries):,} records")
        roots = [PurePosixPath(each.filename).parent for each in entries if each.filename.endswith("/data.pkl")]
        roots = [root for root in roots if len(root.parts) == 1]
        if len(roots) != 1:
            raise ModelError(
                f"{self.path.name} is a zip and no checkpoint of torch", why="it holds no data.pkl", hint="a file that torch.save wrote"
            )
        self._root = str(roots[0])
        plain = [each for each in entries if each.filename == f"{self._root}/data.pkl" or each.filename.startswith(f"{self._root}/data/")]
        records = {each.filename: each for each in plain}
        if len(records) != len(plain):
            raise self._broken("two records share a name")
        for each in plain:
            if each.compress_type != zipfile.ZIP_STORED or each.file_size != each.compress_size or each.flag_bits & 1:
                raise self._broken(f"{each.filename.removeprefix(self._root + '/')} is compressed, which torch never does with weights")
        if sum(each.file_size for each in plain) > self.size:
            raise self._broken("its records claim more bytes than the file has")
        byte_order = self._zip.NameToInfo.get(f"{self._root}/byteorder")
        if byte_order is not None and byte_order.file_size <= 8 and self._zip.read(byte_order) != b"little":
            raise ModelError(f"{self.path.name} was saved on a big-endian machine", hint="load and save it again on a little-endian one")
        return records

    def _broken(self, why: str, error: BaseException | None = None) -> ModelError:
        detail = f" ({type(error).__name__})" if error else ""
        return ModelError(f"{self.path.name} is truncated, damaged or no checkpoint of torch", why=why + detail, hint="copy the file again")


def _check_start(path: Path) -> None:
    """Check that the file starts as a zip; other known formats are named with a hint."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise ReadError(f"cannot read {path.name}", why=error.strerror or "") from None
    if start.startswith(b"PK\x03\x04"):
        return
    if start.startswith(b"\x80"):
        raise ModelError(
            f"{path.name} is a bare pickle: what torch before 1.6 saved",
            why="such a file cannot be read without running it, and no pickle is run here",
            hint="where you trust it: torch.save(torch.load(OLD, weights_only=True), NEW)",
        )
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path.name} is a Git-LFS pointer, not the weights", hint="git lfs pull")
    raise ModelError(f"{path.name} is no checkpoint", why="it is neither a zip of torch.save nor safetensors", hint="copy the file again")


@dataclass(frozen=True)
class Checkpoint:
    """Format and tensors of a file. `weights` are finite, float32 (integers stay), named as in the file without wrapper prefixes."""

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
    with TorchArchive(path) as archive:
        value = read_pickle(archive.pickle(), path.name)
        if archive.is_script and isinstance(value, PickledObject):
            kind: Format = "torchscript"
            named = dict(_attributes(value, path.name))
        else:
            kind = "state_dict"
            named = _state_dict(value, path.name)
        weights = _unwrapped(_read_tensors(archive, named))
    masks = {name: value for name, value in weights.items() if name.endswith("attn_mask")}  # infinite values are intended
    return Checkpoint(kind, checked_weights({name: value for name, value in weights.items() if name not in masks}, path.stem) | masks)


def _is_safetensors(path: Path) -> bool:
    """True where the content is 8 bytes of length, then JSON; the file's name is not used."""
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


def _attributes(module: PickledObject, file: str) -> Iterator[tuple[str, StoredTensor]]:
    """Every tensor of a TorchScript module and of the modules in it, with its dotted name."""
    waiting: list[tuple[tuple[str, ...], PickledObject]] = [((), module)]
    seen: set[int] = set()
    while waiting:
        path, each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if len(path) > DEEPEST:
            raise ModelError(f"{file} nests modules deeper than {DEEPEST}", hint="the archive of a CLIP model")
        for name, value in each.attributes.items():
            if isinstance(value, StoredTensor):
                yield ".".join((*path, str(name))), value
            elif isinstance(value, PickledObject):
                waiting.append(((*path, str(name)), value))


def _unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = dict(weights)
    for prefix in ("module.", "_orig_mod.") * 2:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _read_tensors(archive: TorchArchive, named: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Views of the storages, each read once; sizes are checked against the file before memory is allocated."""
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
        elif total > 2 * archive.size:  # a mask shared by all blocks of a TorchScript archive counts once per block
            why = f"its tensors claim more than twice the {archive.size:,} bytes of the file"
        else:
            continue
        raise ModelError(f"{archive.path.name} is damaged or claims wrong sizes", why=why, hint="copy the file again")
    storages: dict[str, Tensor] = {}
    weights = {}
    for name, stored in named.items():
        storage, key = stored.storage, stored.storage.key
        dtype = DTYPES[storage.kind]
        if key not in storages:
            storages[key] = torch.frombuffer(archive.read(f"data/{key}"), dtype=torch.uint8) if storage.numel else torch.empty(0).byte()
        weights[name] = storages[key].view(dtype).as_strided(stored.shape, stored.strides, stored.offset)
    return weights
