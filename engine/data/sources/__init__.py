"""One file per kind of source; `read_sources` puts those of a recipe into one image table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.data.sources.table import FINDING_TYPE, ImageTable, read_table
from engine.errors import ConfigError, InputMissing
from engine.recipe.pretraining import Source, TableSource

__all__ = ["FINDING_TYPE", "ImageTable", "read_sources", "read_table"]


def read_sources(sources: Sequence[Source]) -> ImageTable:
    """The image table of all sources of a recipe, in their order.

    Findings that a source does not know are null in its rows. An image that two sources name is kept from the first.
    Two files of one name in different folders stay apart: the source's name goes before theirs.

    Raises:
        InputMissing: a source's table or folder is missing.
        ReadError: a table cannot be read.
        ConfigError: a source does not fit its recipe, or nothing at all is left to train on.
    """
    return ImageTable.joined([_read(source) for source in sources])


def _read(source: Source) -> ImageTable:
    if isinstance(source, TableSource):
        return read_table(source)
    if not Path(source.root).is_dir():
        raise InputMissing(
            f"the data set of source {source.kind} is missing",
            why=f"{source.root} is no folder",
            hint=f"set `root` of the source {source.kind} to the folder that holds it as published",
        )
    raise ConfigError(
        f"source {source.kind} cannot be read by this version", hint="make a table of its images (a column `file`) and use `kind: table`"
    )
