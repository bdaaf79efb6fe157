"""A sheet of heatmaps for every scored image: those that an earlier run drew of the same picture, model and words stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.scoring.heatmaps import Margins, chosen, heatmaps_on, sheet
from engine.tables.columns import NOTICE

if TYPE_CHECKING:
    from engine.model.bundle import Bundle


import hashlib
import json
from pathlib import Path
from typing import BinaryIO

from engine.tables.atomic import make_folder, publish

# Heatmap sheets on disk: one PNG per scored image, in private/, each carrying the hash of all that it was made from.

KEY = "mmclip_key"
"""The text chunk of a sheet that holds its key."""

_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last bytes of every whole PNG."""


def sheet_key(*parts: object) -> str:
    """The hash of what a sheet is made from (numbers, texts, lists of them): equal parts, equal key, in any run."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class SheetFolder:
    """The sheets of an output folder.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / "private" / "heatmaps"
        make_folder(self.folder, mode=0o700)

    def path(self, image: str) -> Path:
        """Where the sheet of an image stands; names of images are hexadecimal or UIDs, so they are names of files."""
        return self.folder / f"{image}.png"

    def holds(self, image: str, key: str) -> bool:
        """Whether the image has a sheet that was made from just this; one that is damaged, or of another model, is none."""
        from PIL import Image

        try:
            with self.path(image).open("rb") as stream, Image.open(stream, formats=["PNG"]) as sheet:
                stream.seek(-len(_END), 2)
                return bool(sheet.info.get(KEY) == key and stream.read() == _END)
        except (OSError, SyntaxError, ValueError):
            return False

    def write(self, image: str, png: bytes) -> None:
        """Publish a sheet, whole.

        Raises:
            OutputError: it cannot be written.
        """

        def write(stream: BinaryIO) -> None:
            stream.write(png)

        publish(self.path(image), write, mode=0o600)


Source = TypeVar("Source")
Picture = NDArray[np.uint8]

SHEET = 1
"""Version of the heatmap sheets: with another one they are drawn anew."""


@dataclass(frozen=True)
class HeatmapSheet:
    """A scored image has its sheet of heatmaps. `reused`: an earlier run drew it, from the same picture, model and prompts."""

    image: str
    reused: bool


@dataclass(frozen=True)
class SheetRequest(Generic[Source]):
    """A scored image: its name, where its picture comes from, the SHA-256 of the file it was scored from, and a score per finding."""

    image: str
    source: Source
    content_hash: str
    scores: Mapping[str, float]


def heatmap_sheets(
    wanted: Iterable[SheetRequest[Source]],
    pictures: Callable[[Iterator[Source]], Iterator[tuple[str, Picture | None]]],
    sheets: SheetFolder,
    bundle: Bundle,
    margins_of: Margins,
    made_with: Sequence[str],
) -> Generator[HeatmapSheet, None, int]:
    """Every image with its sheet, of several of one name the first; returns how many lack one, as their files changed or went away.

    Args:
        wanted: the images.
        pictures: sources -> the content hash and the picture, uint8 (H, W), that each has now; None where it has none any more.
        sheets: where they are kept.
        margins_of: what is asked of a patch (engine.scoring.targets).
        made_with: what else makes a sheet this one and no other; the last of it is written on it.
    """
    missing: list[tuple[SheetRequest[Source], str]] = []
    seen: set[str] = set()
    for each in wanted:
        key = sheet_key(SHEET, made_with, each.content_hash, [round(score, 4) for score in each.scores.values()])
        if each.image not in seen and sheets.holds(each.image, key):
            yield HeatmapSheet(each.image, reused=True)
        elif each.image not in seen:
            missing.append((each, key))
        seen.add(each.image)
    gone = 0
    for (each, key), (content_hash, picture) in zip(missing, pictures(each.source for each, _ in missing), strict=True):
        if picture is None or content_hash != each.content_hash:
            gone += 1
            continue
        scores = {name: each.scores[name] for name in chosen(each.scores)}
        maps = heatmaps_on(bundle, picture, tuple(each.scores), margins_of)
        page = sheet(
            picture, {name: maps[name] for name in scores}, scores, lines=[made_with[-1], NOTICE], texts={KEY: key, "Comment": NOTICE}
        )
        sheets.write(each.image, page)
        yield HeatmapSheet(each.image, reused=False)
    return gone
