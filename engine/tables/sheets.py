"""Heatmap sheets on disk: one PNG per scored image, in private/, each carrying the hash of all that it was made from.

private/heatmaps/<image>.png      mode 0600 in a folder of mode 0700: a picture may identify its patient
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import BinaryIO

from engine.tables.publish import make_folder, publish

KEY = "mmclip_key"
"""The text chunk of a sheet that holds its key."""

_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last bytes of every whole PNG."""


def sheet_key(*parts: object) -> str:
    """The hash of what a sheet is made from (numbers, texts, lists of them): equal parts, equal key, in any run."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Sheets:
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
