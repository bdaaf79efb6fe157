"""One file per kind of source; `read_sources` puts those of a recipe into one image table."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.sources.image_table import FINDING_TYPE, ImageTable
from engine.data.sources.published import check_published
from engine.data.sources.table import read_table
from engine.recipe.sources import Source, TableSource

__all__ = ["FINDING_TYPE", "ImageTable", "read_sources", "read_table"]


def read_sources(sources: Sequence[Source]) -> ImageTable:
    """The image table of all sources of a recipe, in their order.

    Findings that a source does not know are null in its rows. An image that two sources name is kept from the first.
    Two files of one name in different folders stay apart: the source's name goes before theirs.

    Raises:
        InputMissing: a source's table is missing.
        ReadError: a table cannot be read.
        ConfigError: a source does not fit its recipe, holds no image that can be used, or cannot be read by this release.
    """
    check_published(sources)
    return ImageTable.joined([read_table(source) for source in sources if isinstance(source, TableSource)])
