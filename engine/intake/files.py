"""Files of the inputs, in a stable order: folders are walked, image tables are read row by row."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.dicom.reasons import Outcome
from engine.dicom.selection import says_lateral
from engine.errors import InputMissing
from engine.tables.image_table import TableRow, UserImageTable

# Which files of the inputs are worth opening: a sorted walk that opens nothing and follows no link.

_JUNK = frozenset(
    (
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "autorun.inf", ".ds_store", ".localized", ".apdisk", "icon\r"),
        *(".volumeicon.icns", ".com.apple.timemachine.supported", ".keep", ".gitkeep", ".directory"),
    )
)
_LEFT_OVER = re.compile(r"\._|\.nfs[0-9a-f]{8}|\.fuse_hidden|~\$|\.~lock\.", re.IGNORECASE)
"""Prefixes of names of files that macOS, NFS, FUSE and office programs leave behind."""
_JUNK_FOLDERS = frozenset(
    (
        *("__macosx", ".trash", ".trashes", ".spotlight-v100", ".fseventsd", ".temporaryitems", ".documentrevisions-v100", ".appledouble"),
        *("network trash folder", "$recycle.bin", "recycler", "system volume information", "lost+found", "@eadir", "#recycle"),
        *(".git", ".svn", ".snapshot", ".zfs"),
    )
)
_TRASH = re.compile(r"\.trash-\d+", re.IGNORECASE)
_UNFINISHED = re.compile(
    r"\.(part|te?mp|filepart|crdownload|(op)?download|partial|incomplete|aria2|!ut|!qb|sw[op])$|^\.goutputstream-|^\..+\.[A-Za-z0-9]{6}$",
    re.IGNORECASE,
)
"""Names of files that are still being written; rsync uses .NAME.Xa81Qz."""


@dataclass(frozen=True)
class WalkedFile:
    """One file of a walk. outcome None: to be opened; else decided by its name and kind, with its reason code."""

    path: Path
    outcome: Literal["skip", "reject"] | None = None
    reason: str | None = None


def find_files(inputs: Sequence[Path], *, min_age: float = 0.0) -> Iterator[WalkedFile]:
    """Every file below the inputs once per input, folders sorted by the bytes of their names, so that the order is the same in every run.

    Args:
        inputs: folders (walked) or files (treated alike). Names need not be UTF-8.
        min_age: files that were modified in the last so many seconds are `in_progress`, and left for the next run.

    Raises:
        InputMissing: an input is absent.
    """
    for given in inputs:
        try:
            kind = given.stat()  # an input itself may be a link
        except OSError as error:
            hint = "check the path and its mount" if error.errno in (errno.ENOENT, errno.ENOTDIR) else "check the rights on it"
            raise InputMissing("an input cannot be opened", why=os.strerror(error.errno or errno.ENOENT), hint=hint) from None
        if stat.S_ISDIR(kind.st_mode):
            yield from _walk(given, min_age)
        else:
            yield _judge(given, kind, min_age)


def _walk(folder: Path, min_age: float) -> Iterator[WalkedFile]:
    pending: list[Path] = [folder]
    while pending:
        current = pending.pop()
        try:
            names = sorted(os.listdir(os.fsencode(current)))  # noqa: PTH208 - names alone: a folder may hold a hundred thousand
        except OSError:
            yield WalkedFile(current, "reject", "unreadable")
            continue
        folders: list[Path] = []
        for name in map(os.fsdecode, names):
            path = current / name
            try:
                status = path.lstat()
            except FileNotFoundError:
                yield WalkedFile(path, "reject", "vanished")
                continue
            except OSError:
                yield WalkedFile(path, "reject", "unreadable")
                continue
            if stat.S_ISDIR(status.st_mode):
                if name.lower() in _JUNK_FOLDERS or _TRASH.fullmatch(name):
                    yield WalkedFile(path, "skip", "os_junk")
                else:
                    folders.append(path)
            else:
                yield _judge(path, status, min_age)
        pending.extend(reversed(folders))


def _judge(path: Path, status: os.stat_result, min_age: float) -> WalkedFile:
    name = path.name
    if stat.S_ISLNK(status.st_mode):
        return WalkedFile(path, "skip", "symlink")
    if not stat.S_ISREG(status.st_mode):
        return WalkedFile(path, "skip", "not_regular")
    bare = name.lower()
    if bare in _JUNK or _LEFT_OVER.match(name):
        return WalkedFile(path, "skip", "os_junk")
    if bare == "dicomdir":
        return WalkedFile(path, "skip", "dicomdir")
    if _UNFINISHED.search(name) or (min_age > 0 and 0 <= time.time() - max(status.st_mtime, status.st_ctime) < min_age):
        return WalkedFile(path, "skip", "in_progress")
    return WalkedFile(path)


@dataclass(frozen=True)
class InputFile:
    """One input file, with what an image table says about it.

    Attributes:
        given: the name in the image table.
        decided: outcome and reason of a file that need not be opened.
        study, patient, view: from the image table; None where it has none.
        plain_image: PNG and JPEG are read too, as a table names the file.
    """

    path: Path
    given: str | None = None
    decided: tuple[Outcome, str] | None = None
    study: str | None = None
    patient: str | None = None
    view: str | None = None
    plain_image: bool = False


def check_inputs(inputs: Sequence[Path]) -> None:
    """Raise for an input that is missing, named by its number, as a path may name a patient.

    Raises:
        InputMissing: the first of them.
    """
    for number, path in enumerate(inputs, 1):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise InputMissing(f"input {number} of {len(inputs)} does not exist", hint="check the path and its mount") from None
        except (OSError, ValueError):
            raise InputMissing(f"input {number} of {len(inputs)} cannot be opened", hint="check the rights on it") from None


def input_files(
    inputs: Sequence[Path], tables: Mapping[Path, UserImageTable], *, leave_out: Sequence[Path] = (), min_age: float = 0.0
) -> Iterator[InputFile]:
    """Every file of the inputs in a stable order.

    Args:
        inputs: folders, files, and the keys of `tables`.
        tables: the inputs that are image tables.
        leave_out: files and folders that a walk skips: the output folder, the labels.
        min_age: see `find_files`.

    Raises:
        InputMissing: an input is missing.
    """
    resolved = [path.resolve() for path in leave_out]
    for given in inputs:
        if given in tables:
            yield from map(_of_row, tables[given].rows())
            continue
        inside = [path for path in resolved if path.is_relative_to(given.resolve())]
        for found in find_files([given], min_age=min_age):
            if inside and any(found.path.resolve().is_relative_to(path) for path in inside):
                continue
            yield InputFile(found.path, decided=(found.outcome, found.reason or "") if found.outcome else None)


def _of_row(row: TableRow) -> InputFile:
    decided: tuple[Outcome, str] | None = None
    try:
        if not stat.S_ISREG(row.file.stat().st_mode):
            decided = ("skip", "not_regular")
    except FileNotFoundError:
        decided = ("reject", "vanished")
    except NotADirectoryError:  # a file inside a file, which is found when it is read
        pass
    except (OSError, ValueError):
        decided = ("reject", "unreadable")
    if decided is None and (says_lateral(row.view or "") or (row.view or "").strip().upper() == "L"):
        decided = ("reject", "lateral_view")
    return InputFile(row.file, row.given, decided, row.study, row.patient, row.view, plain_image=True)
