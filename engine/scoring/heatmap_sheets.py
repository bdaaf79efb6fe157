"""Heatmap sheets: one PNG per scored image, cached by image, model and prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.scoring.heatmaps import Margins, chosen, heatmaps_on, sheet
from engine.tables.atomic import make_folder, publish
from engine.tables.columns import NOTICE

if TYPE_CHECKING:
    from engine.model.bundle import Bundle


KEY = "mmclip_key"
"""The text chunk of a sheet that holds its key."""

_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last bytes of every whole PNG."""


def sheet_key(*sources: object) -> str:
    """The hash of everything a sheet is made from (numbers, texts, lists of them)."""
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


class SheetFolder:
    """The sheets of an output folder.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / "private" / "heatmaps"
        make_folder(self.folder, mode=0o700)

    def path(self, image: str) -> Path:
        """The file of an image's sheet; names of images are hexadecimal or UIDs, so they are valid file names."""
        return self.folder / f"{image}.png"

    def holds(self, image: str, key: str) -> bool:
        """Whether the image has an undamaged sheet with this key."""
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
Image = NDArray[np.uint8]

SHEET = 1
"""Version of the sheets' layout: after a change all are made again."""


@dataclass(frozen=True)
class HeatmapSheet:
    """Event: a scored image has its sheet. `reused`: made by an earlier run from the same image, model and prompts."""

    image: str
    reused: bool


@dataclass(frozen=True)
class SheetRequest(Generic[Source]):
    """A scored image: its name, the source of its pixels, the SHA-256 of its file, and a score per finding."""

    image: str
    source: Source
    content_hash: str
    scores: Mapping[str, float]


def heatmap_sheets(
    wanted: Iterable[SheetRequest[Source]],
    images: Callable[[Iterator[Source]], Iterator[tuple[str, Image | None]]],
    sheets: SheetFolder,
    bundle: Bundle,
    margins_of: Margins,
    made_with: Sequence[str],
) -> Generator[HeatmapSheet, None, int]:
    """Make the missing sheets, one per image name; returns how many images have none, as their files changed or are missing.

    Args:
        wanted: the images.
        images: sources -> content hash and image, uint8 (H, W), of each as it is now; None where there is none any more.
        sheets: the folder of sheets.
        margins_of: features -> margins (engine.scoring.targets).
        made_with: the rest of a sheet's key; the last item is written on the sheet.
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
    missing_images = 0
    for (each, key), (content_hash, image) in zip(missing, images(each.source for each, _ in missing), strict=True):
        if image is None or content_hash != each.content_hash:
            missing_images += 1
            continue
        scores = {name: each.scores[name] for name in chosen(each.scores)}
        maps = heatmaps_on(bundle, image, tuple(each.scores), margins_of)
        page = sheet(
            image, {name: maps[name] for name in scores}, scores, lines=[made_with[-1], NOTICE], texts={KEY: key, "Comment": NOTICE}
        )
        sheets.write(each.image, page)
        yield HeatmapSheet(each.image, reused=False)
    return missing_images
