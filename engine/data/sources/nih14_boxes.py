"""The boxes that a radiologist drew for ChestX-ray14 (BBox_List_2017.csv): where in a picture a finding was seen.

984 boxes in 880 images, of eight findings. The file's header has nine cells ("Bbox [x,y,w,h]" and three blanks), its rows have six, so that
cells go by position. x and y are the box's left upper corner and w, h its size, in pixels of the published 1024 x 1024 pictures.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import NamedTuple

from engine.data.sources.label_files import label_text
from engine.errors import ReadError
from engine.recipe.findings import NIH_FINDINGS, NIH_SPELLED

PICTURE_SIZE = 1024
"""Width and height, in pixels, of the pictures that the boxes were drawn on."""


class Box(NamedTuple):
    """Where a finding was seen, in pixels of the 1024 x 1024 picture: left upper corner, width, height."""

    finding: str
    x: float
    y: float
    width: float
    height: float


def read_boxes(path: Path | str) -> dict[str, list[Box]]:
    """Image (`00013118_008.png`) -> its boxes, in the table's order; a finding may have several.

    Args:
        path: BBox_List_2017.csv as published, also gzipped or zipped.

    Raises:
        InputMissing: there is no such file.
        ReadError: it is no such table: a row of another length, an unknown finding, or a box that is not inside the picture. A box
            may end one pixel beyond the border, as rounding leaves it.
    """
    path = Path(path)
    boxes: dict[str, list[Box]] = {}
    for number, row in enumerate(csv.reader(io.StringIO(label_text(path), newline=""))):
        cells = [cell.strip() for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if not cells or number == 0:
            continue
        box = _box(cells)
        if box is None:
            raise ReadError(
                f"line {number + 1} of {path.name} is no box",
                why="a box is an image, a finding, and x, y, width and height inside 1024 x 1024 pixels",
                hint="fetch the published BBox_List_2017.csv again",
            )
        boxes.setdefault(cells[0], []).append(box)
    if not boxes:
        raise ReadError(f"{path.name} holds no box", hint="fetch the published BBox_List_2017.csv again")
    return boxes


def _box(cells: list[str]) -> Box | None:
    """The box of a row's six cells; None where they are none."""
    if len(cells) != 6:
        return None
    finding = NIH_SPELLED.get(cells[1], cells[1])
    try:
        x, y, width, height = map(float, cells[2:])
    except ValueError:
        return None
    edges = (x, y, width, height, x + width, y + height)
    inside = all(math.isfinite(edge) for edge in edges) and min(x, y) >= 0 and min(width, height) > 0 and max(edges) <= PICTURE_SIZE + 1
    return Box(finding, x, y, width, height) if inside and finding in NIH_FINDINGS else None
