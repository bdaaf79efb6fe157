"""One file per kind of source; `read_sources` puts those of a recipe into one image table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.data.sources.chexpert import read_chexpert
from engine.data.sources.covidx import read_covidx
from engine.data.sources.image_table import FINDING_TYPE, ImageTable
from engine.data.sources.mimic_cxr import read_mimic_cxr
from engine.data.sources.nih14 import read_nih14
from engine.data.sources.openi import read_openi
from engine.data.sources.padchest import read_padchest, read_padchest_evaluation
from engine.data.sources.published import check_published
from engine.data.sources.rsna import read_rsna
from engine.data.sources.table import read_table
from engine.errors import ConfigError
from engine.recipe.sources import Source

__all__ = ["FINDING_TYPE", "READERS", "ImageTable", "read_sources", "read_table"]

READERS: dict[str, Callable[[Any], ImageTable]] = {
    "table": read_table,
    "mimic_cxr": read_mimic_cxr,
    "padchest": read_padchest,
    "openi": read_openi,
    "chexpert": read_chexpert,
    "nih14": read_nih14,
    "rsna": read_rsna,
    "covidx": read_covidx,
    "padchest_evaluation": read_padchest_evaluation,
}
"""Kind of source -> what reads it."""


def read_sources(sources: Sequence[Source]) -> ImageTable:
    """The image table of all sources of a recipe, in their order.

    Findings that a source does not know are null in its rows. An image that two sources name is kept from the first.
    Two files of one name in different folders stay apart: the source's name goes before theirs.

    Raises:
        InputMissing: a source's table is missing.
        ReadError: a table or a report cannot be read.
        ConfigError: a source lacks pieces (all are named at once), does not fit its recipe, or no image is left.
    """
    check_published(sources)
    table = ImageTable.joined([READERS[source.kind](source) for source in sources])
    if table.frame.is_empty():
        counts = table.dropped["reason"].value_counts(sort=True).iter_rows()
        raise ConfigError("the sources hold no image to learn from", why=", ".join(f"{count} {code}" for code, count in counts))
    return table
