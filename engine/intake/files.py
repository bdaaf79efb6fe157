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
from engine.intake.containers import is_named_as_image
from engine.tables.image_table import TableRow, UserImageTable
from engine.tables.own_files import is_own_file

# Which files of the inputs are worth opening: a sorted walk that opens nothing.

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


def find_files(inputs: Sequence[Path], *, min_age: float = 0.0, roots: Sequence[Path] = ()) -> Iterator[WalkedFile]:
    """Every file below the inputs once per input, folders sorted by the bytes of their names, so that the order is the same in every run.

    Args:
        inputs: folders (walked) or files (treated alike). Names need not be UTF-8.
        min_age: files that were modified in the last so many seconds are `in_progress`, and left for the next run.
        roots: trees (resolved) that symbolic links are followed into; none: no link is followed. A link that leads elsewhere is
            `link_outside`, one to a folder above itself `link_loop`, one without a target `link_broken`.

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
            yield from _walk(given, min_age, tuple(roots))
        else:
            yield _judge(given, kind, min_age)


def _walk(folder: Path, min_age: float, roots: tuple[Path, ...]) -> Iterator[WalkedFile]:
    """The files below a folder. roots: the trees that links may lead into; none: links are not followed."""
    pending: list[tuple[Path, frozenset[Path]]] = [(folder, frozenset((folder.resolve(),)) if roots else frozenset())]
    while pending:
        current, above = pending.pop()
        try:
            names = sorted(os.listdir(os.fsencode(current)))  # noqa: PTH208 - names alone: a folder may hold a hundred thousand
        except OSError:
            yield WalkedFile(current, "reject", "unreadable")
            continue
        folders: list[tuple[Path, frozenset[Path]]] = []
        for name in map(os.fsdecode, names):
            path = current / name
            try:
                status = path.lstat()
                linked = _linked(path, roots, above) if roots and stat.S_ISLNK(status.st_mode) else None
                if isinstance(linked, str):
                    yield WalkedFile(path, "skip", linked)
                    continue
                if linked is not None:
                    status = linked.stat()
            except FileNotFoundError:
                yield WalkedFile(path, "reject", "vanished")
                continue
            except OSError:
                yield WalkedFile(path, "reject", "unreadable")
                continue
            if not stat.S_ISDIR(status.st_mode):
                yield _judge(path, status, min_age)
            elif name.lower() in _JUNK_FOLDERS or _TRASH.fullmatch(name):
                yield WalkedFile(path, "skip", "os_junk")
            else:
                folders.append((path, above | {linked or path.resolve()} if roots else above))
        pending.extend(reversed(folders))


def _linked(path: Path, roots: tuple[Path, ...], above: frozenset[Path]) -> Path | str:
    """The target of a link, or the reason why it is not followed. above: the folders that the walk came through, resolved.

    Raises:
        OSError: the target cannot be looked at.
    """
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError:
        return "link_broken"
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead to one another, up to Python 3.12
        if isinstance(error, RuntimeError) or error.errno == errno.ELOOP:
            return "link_loop"
        raise
    if not any(target.is_relative_to(root) for root in roots):
        return "link_outside"
    return "link_loop" if target in above else target


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
        given: the name in the image table, or in the folder of images.
        decided: outcome and reason of a file that need not be opened.
        study, patient, view: from the image table; None where it has none.
        plain_image: PNG, JPEG and other images are read too.
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
    inputs: Sequence[Path],
    tables: Mapping[Path, UserImageTable],
    *,
    out: Path | None = None,
    leave_out: Sequence[Path] = (),
    min_age: float = 0.0,
    follow_links: bool = False,
) -> Iterator[InputFile]:
    """Every file of the inputs in a stable order.

    An input that is a PNG, JPEG or other image file, or a folder that holds images and no file that could be DICOM, is read as an image
    table with these files would be: every file is a study.

    Args:
        inputs: folders, files, and the keys of `tables`.
        tables: the inputs that are image tables.
        out: the output folder, which may be an input, or be inside one: the files that mmclip writes there are left out.
        leave_out: files that a walk skips: the labels.
        min_age: see `find_files`.
        follow_links: follow symbolic links into the trees of the inputs.

    Raises:
        InputMissing: an input is missing.
    """
    skipped = {path.resolve() for path in leave_out}
    written = out.resolve() if out is not None else None
    roots = tuple(each.resolve() for each in inputs if each not in tables) if follow_links else ()
    for given in inputs:
        if given in tables:
            yield from map(_of_row, tables[given].rows())
            continue
        root = given.resolve()
        near = any(path.is_relative_to(root) for path in skipped) or (
            written is not None and (written.is_relative_to(root) or root.is_relative_to(written))
        )
        plain = _holds_images_only(given)
        for found in find_files([given], min_age=min_age, roots=roots):
            if near and _is_left_out(found.path, skipped, written):
                continue
            name = str(found.path.relative_to(given)) if plain and found.path != given else None
            decided = (found.outcome, found.reason or "") if found.outcome else None
            yield InputFile(found.path, name, decided, plain_image=plain)


def _is_left_out(path: Path, skipped: set[Path], written: Path | None) -> bool:
    real = path.parent.resolve() / path.name
    return real in skipped or (written is not None and is_own_file(real, written))


_IMAGE_TABLES = frozenset({".csv", ".tsv", ".parquet", ".txt", ".md", ".json", ".xml", ".yaml", ".yml", ".html", ".pdf", ".xlsx", ".log"})
"""Suffixes of files that may accompany images without making a folder one of DICOM."""


def _may_accompany_images(name: str) -> bool:
    return Path(name).suffix.lower() in _IMAGE_TABLES or name.lower() in _JUNK or name.startswith(".")


def _holds_images_only(given: Path) -> bool:
    """Whether an input is an image file, or a folder with at least one and nothing that could be DICOM; ends at the first that could."""
    if not given.is_dir():
        return is_named_as_image(given)
    images = False
    for folder, folders, files in os.walk(given):
        folders[:] = [name for name in folders if name.lower() not in _JUNK_FOLDERS]
        for name in files:
            if is_named_as_image(Path(name)):
                images = True
            elif not (_may_accompany_images(name) or (Path(folder) / name).is_symlink()):
                return False
    return images


def _of_row(row: TableRow) -> InputFile:
    decided: tuple[Outcome, str] | None = None
    try:
        if not stat.S_ISREG(row.file.stat().st_mode):
            decided = ("skip", "not_regular")
    except FileNotFoundError:
        decided = ("reject", "file_missing")
    except NotADirectoryError:  # a file inside a file, which is found when it is read
        pass
    except (OSError, ValueError):
        decided = ("reject", "unreadable")
    if decided is None and (says_lateral(row.view or "") or (row.view or "").strip().upper() == "L"):
        decided = ("reject", "lateral_view")
    return InputFile(row.file, row.given, decided, row.study, row.patient, row.view, plain_image=True)
