"""COVIDx (CXR-1) as published -> the image table.

Wang, Lin and Wong, "COVID-Net" (Scientific Reports 2020), lists of the releases 6, 8B and 9B.

    train_COVIDx8B.txt, test_COVIDx8B.txt    no header; patient, file, class (positive | negative) and source, parted by spaces
    train/<file>, test/<file>

Read from the end of the line: 943 patients of 8B are called "COVID 1" and so on, with a space. 9B spells the source "rsna" as "rnsa" in 199
rows. **The source predicts the class**: every positive of the 8B test comes from ricord, every negative from rsna, so that a model
which distinguishes hospitals scores well. The column `source` of the image table is therefore `covidx:ricord` and so on, to be reported
one by one; a source of one class has no AUC.
One patient of release 6 is in both lists: it is refused unless the recipe leaves the training images out (`overlap`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from engine.data.sources.image_table import FINDING_TYPE, ImageTable
from engine.data.sources.label_files import label_text
from engine.data.sources.label_tables import LabelRows, listed, table_of, unknown_labels
from engine.data.sources.published import covidx_list
from engine.data.sources.published_splits import without_valid
from engine.errors import InputMissing
from engine.recipe.labelled_sources import CovidxSource

FINDING = "COVID-19"
CLASSES = {"positive": 1, "negative": 0}
SPELLED = {"rnsa": "rsna"}
"""Sources that a release misspells."""
PUBLISHED = {"6": {"train": 14_311, "test": 200}, "8B": {"train": 15_952, "test": 400}, "9B": {"train": 30_482, "test": 400}}
"""Images of the two lists."""


def read_covidx(source: CovidxSource) -> ImageTable:
    """The images of one part.

    Raises:
        InputMissing, ReadError, ConfigError: a list is not there or cannot be read; a split that leaks.
        LabelsError: a class other than positive and negative.
    """
    root = Path(source.root).absolute()
    labels = covidx_rows(root, source)
    folders = {part: listed([root / part]) for part in ("train", "test")}
    files = {image: folders[image.partition("/")[0]].get(image.partition("/")[2], "") for image in labels.frame["image"].to_list()}
    return table_of(source, labels, source.part, files)


def covidx_rows(root: Path, source: CovidxSource) -> LabelRows:
    """The rows of both lists (of one, where the other is not there and not asked for), in parts."""
    needed = {"test": {"test"}, "all": {"train", "test"}}.get(source.part, {"train"})
    paths = {part: covidx_list(root, part, source.release) for part in ("train", "test")}
    if missing := sorted(part for part in needed if paths[part] is None):
        names = " and ".join(f"{part}_COVIDx{source.release}.txt" for part in missing)
        raise InputMissing(f"{names} is not there", hint="set `root` to the folder of COVIDx, and `release` to that of its lists")
    rows = [row for part, path in paths.items() if path is not None for row in _rows(path, part)]
    frame = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    frame = without_valid(frame, source.drawn.valid_share, source.drawn.seed)
    published = {"test": PUBLISHED[source.release]["test"]}
    if source.drawn.valid_share == 0:
        published = PUBLISHED[source.release]
    drawn = f"{source.drawn.valid_share:g} of the training patients for validation, seed {source.drawn.seed}"
    said = {1: "positive", 0: "negative"}
    by_source = Counter(
        (part, origin, said.get(label, "ragged")) for part, origin, label in frame.select("split", "origin", FINDING).iter_rows()
    )
    facts = {"by_source": {" ".join(key): count for key, count in sorted(by_source.items())}}
    return LabelRows(frame, (FINDING,), f"covidx {source.release} lists, {drawn}", published=published, facts=facts)


_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("image", "unit", "study", "patient", "view", "split", "sex", "origin", "reason", "aside"), pl.String),
    "age": pl.Float64,
    FINDING: FINDING_TYPE,
}


def _rows(path: Path, part: str) -> Iterator[tuple[Any, ...]]:
    """The rows of one list; a line with fewer than four words is kept as a row that is dropped."""
    lines = [line.strip().rsplit(None, 3) for line in label_text(path).splitlines() if line.strip()]
    unknown_labels({words[2].lower() for words in lines if len(words) == 4}, tuple(CLASSES), path.name)
    for number, words in enumerate(lines, 1):
        if len(words) < 4:
            at = f"{part}/line {number}"
            yield at, at, at, at, "", part, "", "", "row_ragged", None, None, None
            continue
        patient, file, label, said = words
        origin = SPELLED.get(said.lower(), said.lower())
        image, study, whose = f"{part}/{file}", file.rpartition(".")[0] or file, f"{origin}:{patient}"
        yield image, image, study, whose, "", part, "", origin, None, None, None, CLASSES[label.lower()]
