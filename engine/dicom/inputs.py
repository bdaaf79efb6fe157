"""What a user names as INPUT, as one stream of files: folders and DICOM files by walking, image tables row by row."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.dicom.find import find_files
from engine.dicom.policy import Outcome
from engine.dicom.selection import says_lateral
from engine.errors import InputMissing
from engine.tables.images import TableRow, UserImageTable


@dataclass(frozen=True)
class Item:
    """One input file, and what its user said of it beside the file.

    Attributes:
        given: what an image table calls the file.
        decided: outcome and reason where they need no opening.
        study, patient, view: from an image table; None where it does not tell.
        picture: PNG and JPEG are welcome too, because a table named the file.
    """

    path: Path
    given: str | None = None
    decided: tuple[Outcome, str] | None = None
    study: str | None = None
    patient: str | None = None
    view: str | None = None
    picture: bool = False


def check_inputs(inputs: Sequence[Path]) -> None:
    """Refuse inputs that are not there, by their number: a path may name a patient.

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


def input_items(
    inputs: Sequence[Path], tables: Mapping[Path, UserImageTable], *, leave_out: Sequence[Path] = (), min_age: float = 0.0
) -> Iterator[Item]:
    """Every file of the inputs in a stable order.

    Args:
        inputs: folders, files, and the keys of `tables`.
        tables: the inputs that are image tables.
        leave_out: files and folders that a walk passes over: the output folder, the labels.
        min_age: seconds a file must have stood still.

    Raises:
        InputMissing: an input has gone.
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
            yield Item(found.path, decided=(found.outcome, found.reason or "") if found.outcome else None)


def _of_row(row: TableRow) -> Item:
    decided: tuple[Outcome, str] | None = None
    try:
        if not stat.S_ISREG(row.file.stat().st_mode):
            decided = ("skip", "not_regular")
    except FileNotFoundError:
        decided = ("reject", "vanished")
    except NotADirectoryError:  # a file inside a file: looked for when it is read
        pass
    except (OSError, ValueError):
        decided = ("reject", "unreadable")
    if decided is None and (says_lateral(row.view or "") or (row.view or "").strip().upper() == "L"):
        decided = ("reject", "lateral_view")
    return Item(row.file, row.given, decided, row.study, row.patient, row.view, picture=True)
