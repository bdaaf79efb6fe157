"""Scored studies by everything that may name them in a table of labels: pseudonym, UID, file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from engine.tables.text_tables import plain_key


def absolute(path: str) -> str:
    """A path with its folder, links unresolved."""
    return os.path.abspath(path)  # noqa: PTH100 - links stay as they were named


@dataclass
class StudyNames:
    """Studies of a scoring run, by name.

    Args:
        scored: studies with scores -> "" or the reason why no labels may be joined to them.
        by_uid: study key (UID, or the pseudonym itself) -> candidates for the study's name in `scored`, best first.
        files: (path as the input gave it or absolute, study) of each file.
    """

    scored: Mapping[str, str]
    by_uid: Callable[[str], Iterable[str]]
    files: Iterable[tuple[str, str]] = ()
    _by_path: dict[str, str] = field(init=False, repr=False)
    _by_name: dict[str, set[str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._by_path, self._by_name = {}, {}
        for path, study in self.files:
            for each in (path, absolute(path)):
                self._by_path.setdefault(each, study)
                self._by_path.setdefault(each.casefold(), study)
            name = PurePosixPath(path.replace("\\", "/")).name.casefold()
            for each in {name, _stem(name)}:
                self._by_name.setdefault(each, set()).add(study)

    def study(self, key: str) -> str | None:
        """The study that a key names: a pseudonym (hexadecimal digits in any case), or a UID; None where no scored study answers to it."""
        for text in dict.fromkeys((key, plain_key(key), plain_key(key).casefold())):
            if found := next((name for name in (text, *self.by_uid(text)) if name in self.scored), None):
                return found
        return None

    def study_of_file(self, key: str, folder: Path) -> str | None:
        """The study of a file: by its path from the table's folder, as the input gave it, or by a file name that only one study has."""
        plain = plain_key(key)
        for text in dict.fromkeys((key, plain, plain.replace("\\", "/"))):
            for path in (absolute(str(folder / text)), text):
                if found := self._by_path.get(path) or self._by_path.get(path.casefold()):
                    return found
        name = plain.replace("\\", "/").casefold()
        if "/" in name:
            return None
        studies = self._by_name.get(name, set())
        return next(iter(studies)) if len(studies) == 1 else None


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and suffix in {"dcm", "dicom", "png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp"} else name


def key_form(key: str) -> str:
    """The form of a key without its content, for messages: digits as 9, letters as a, at most 40 characters.

    >>> key_form("1.2.840.5"), key_form("img_07.png")
    ('9.9.999.9', 'aaa_99.aaa')
    """
    form = "".join("9" if char.isdigit() else "a" if char.isalpha() else char for char in key)
    return form if len(form) <= 40 else form[:37] + "..."
