"""A sheet of heatmaps for every scored image: those that an earlier run drew of the same picture, model and words stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.model.heatmaps import Margins, heatmaps_on
from engine.model.overlays import chosen, sheet
from engine.tables.columns import NOTICE
from engine.tables.sheets import KEY, Sheets, sheet_key

if TYPE_CHECKING:
    from engine.model.bundle import Bundle

Source = TypeVar("Source")
Picture = NDArray[np.uint8]

SHEET = 1
"""Version of the heatmap sheets: with another one they are drawn anew."""


@dataclass(frozen=True)
class Drawn:
    """A scored image has its sheet of heatmaps. `reused`: an earlier run drew it, from the same picture, model and prompts."""

    image: str
    reused: bool


@dataclass(frozen=True)
class Wanted(Generic[Source]):
    """A scored image: its name, where its picture comes from, the SHA-256 of the file it was scored from, and a score per finding."""

    image: str
    source: Source
    content_hash: str
    scores: Mapping[str, float]


def drawn_sheets(
    wanted: Iterable[Wanted[Source]],
    pictures: Callable[[Iterator[Source]], Iterator[tuple[str, Picture | None]]],
    sheets: Sheets,
    bundle: Bundle,
    margins_of: Margins,
    made_with: Sequence[str],
) -> Generator[Drawn, None, int]:
    """Every image with its sheet, of several of one name the first; returns how many lack one, as their files changed or went away.

    Args:
        wanted: the images.
        pictures: sources -> the content hash and the picture, uint8 (H, W), that each has now; None where it has none any more.
        sheets: where they are kept.
        margins_of: what is asked of a patch (engine.model.asked).
        made_with: what else makes a sheet this one and no other; the last of it is written on it.
    """
    missing: list[tuple[Wanted[Source], str]] = []
    seen: set[str] = set()
    for each in wanted:
        key = sheet_key(SHEET, made_with, each.content_hash, [round(score, 4) for score in each.scores.values()])
        if each.image not in seen and sheets.holds(each.image, key):
            yield Drawn(each.image, reused=True)
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
        yield Drawn(each.image, reused=False)
    return gone
