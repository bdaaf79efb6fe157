"""A torch checkpoint as it lies on disk: a zip of records, whose directory is checked before any record is read.

torch.save and torch.jit.save (since torch 1.6) both write

    NAME/data.pkl          what there is, as a pickle that names tensors       (engine/model/imports/pickled.py reads it)
    NAME/data/0, 1, ...    the bytes of each storage, never compressed
    NAME/constants.pkl, NAME/code/    in TorchScript archives alone; never read here
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Self

from engine.errors import ModelError, ReadError

MOST_RECORDS = 200_000
MOST_PICKLE_BYTES = 16_000_000
"""A checkpoint of 2.5 billion weights with its optimizer has a data.pkl below one million bytes."""

_BROKEN = (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, RuntimeError, ValueError, EOFError, OverflowError, LookupError)
"""What Python's zipfile runs into in a damaged directory; OSError is a seek to before the file's beginning."""


class Archive:
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
        """Whether this is a TorchScript archive, which carries code; none of it is read."""
        return f"{self._root}/constants.pkl" in self._zip.NameToInfo

    def record_size(self, record: str) -> int | None:
        """Bytes of a record, as in `data/0`; None where there is none."""
        info = self._records.get(f"{self._root}/{record}")
        return None if info is None else info.file_size

    def read(self, record: str) -> bytearray:
        """The bytes of a record, compared with their checksum."""
        try:
            with self._zip.open(self._records[f"{self._root}/{record}"]) as file:
                found = bytearray(file.read())
        except _BROKEN as error:
            raise self._broken(f"its record {record} is missing or damaged", error) from None
        return found

    def pickle(self) -> bytes:
        """data.pkl: small, or refused before it is read."""
        size = self.record_size("data.pkl") or 0
        if size > MOST_PICKLE_BYTES:
            raise self._broken(f"its data.pkl has {size:,} bytes, a checkpoint's at most {MOST_PICKLE_BYTES:,}")
        return bytes(self.read("data.pkl"))

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        """The records that torch stores, each inside the file and once; together no larger than it."""
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
    """The first bytes of a zip; what else it may be is said with a way on."""
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
            why="such a file cannot be looked at without running it, and no pickle is run here",
            hint="where you trust it: torch.save(torch.load(OLD, weights_only=True), NEW)",
        )
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path.name} is a Git-LFS pointer, not the weights", hint="git lfs pull")
    raise ModelError(f"{path.name} is no checkpoint", why="it is neither a zip of torch.save nor safetensors", hint="copy the file again")
