"""The 39,053 images of PadChest that physicians labelled -> the image table: a test that no pretraining report speaks the language of.

The layout is that of padchest.py; the images are those whose MethodLabel is Physician, of every projection unless the recipe says
otherwise. Items of the column Labels are compared whole. All were looked for in every report, so that one that is not named is absent.

**Which findings** (MMCLIP, Tables I and II; the paper names the eight and counts the others). Physicians used 193 labels.
  seen_8       the eight by their own name, "pulmonary edema" for edema; "fracture" is the label of that very name (14 images), not
               "rib fracture", "vertebral fracture" and so on, which count among the others.
  unseen_173   the other findings and diagnoses. Of the 193 labels these are no finding: normal, unchanged, exclude, suboptimal study.
               Without these and the eight 181 are left. Eight of them have fewer than five images (breast mass, double J stent, empyema,
               esophagic dilatation, lipomatosis, nephrostomy tube, pleural mass, round atelectasis); without them there are 173, the
               paper's count. The paper prints no list: that it left out what has fewer than five images is our reading, chosen
               because it meets the count. Peers that published lists have others (177 in KAD).
  unseen_10, unseen_20    the most frequent of the 173; of equally frequent ones the first by the alphabet.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from engine.data.sources.folders import found_files
from engine.data.sources.image_table import FINDING_TYPE, ImageTable
from engine.data.sources.labelled import LabelRows, table_of
from engine.data.sources.padchest import padchest_table
from engine.data.sources.published import PADCHEST_TABLE
from engine.recipe.findings import PADCHEST_SEEN
from engine.recipe.labelled import PadchestEvaluationSource

SEEN = {("pulmonary edema" if finding == "Edema" else finding.lower()): finding for finding in PADCHEST_SEEN}
"""Label -> finding as prompts spell it."""
NO_FINDING = ("normal", "unchanged", "exclude", "suboptimal study")
"""Labels that name no finding."""
FEWEST = 5
"""Images that a finding must have to be counted among the unseen."""
PHYSICIANS = 39_053
"""Images that physicians labelled."""


def read_padchest_evaluation(source: PadchestEvaluationSource) -> ImageTable:
    """The physician-labelled images, with the findings of one of the paper's sets; all of them are test.

    Raises:
        InputMissing, ReadError, ConfigError: the table is not there, cannot be read, or is another one.
    """
    root = Path(source.root).absolute()
    table = padchest_table(root / PADCHEST_TABLE)
    labels = padchest_rows(table, source)
    places = labels.frame.select("key", image=pl.col("image").str.split("/").list.get(-1), folder="folder", reason="reason")
    found = found_files(places, root).filter(pl.col("reason").is_null())
    rows = LabelRows(labels.frame.drop("key", "folder"), labels.findings, labels.split, published=labels.published, facts=labels.facts)
    return table_of(source, rows, "test", dict(found.select("key", "file").iter_rows()))


def padchest_rows(table: pl.DataFrame, source: PadchestEvaluationSource) -> LabelRows:
    """The rows that the source evaluates on, of the label table as `padchest_table` reads it, with the columns folder and key besides."""
    physicians = table.filter("physician")
    names = finding_labels(physicians, source.findings)
    labels = pl.col("labels")
    unusable = (
        pl.when(pl.col("image").is_null() | pl.col("folder").is_null())
        .then(pl.lit("file_blank"))
        .when(pl.col("study").is_null() | pl.col("patient").is_null())
        .then(pl.lit("no_study"))
        .when(labels.is_null())
        .then(pl.lit("no_label"))
    )
    image = pl.concat_str("folder", "image", separator="/").fill_null("")
    columns = [labels.list.contains(label).cast(FINDING_TYPE).alias(finding) for label, finding in names.items()]
    frame = physicians.select(
        *columns,
        image=image,
        key=image,
        folder=pl.col("folder").fill_null(""),
        unit=image,
        study=pl.col("study").fill_null(""),
        patient=pl.col("patient").fill_null(""),
        view="projection",
        split=pl.lit("test"),
        sex="sex",
        age="age",
        origin=pl.lit(""),
        reason=unusable,
        aside=pl.when(~pl.col("projection").is_in(source.projections)).then(pl.lit("other_view")),
    )
    split = "padchest, the images labelled by physicians"
    facts = {"findings": source.findings, "labels": len(label_counts(physicians)), "projections": list(source.projections)}
    return LabelRows(frame, tuple(names.values()), split, published={"test": PHYSICIANS}, facts=facts)


def finding_labels(physicians: pl.DataFrame, which: str) -> dict[str, str]:
    """Label -> finding, of one of the sets seen_8, unseen_10, unseen_20, unseen_173: by the rule at the top of this file.

    Args:
        physicians: the physician-labelled rows; what is frequent is counted in them all, whichever views are read.
    """
    if which == "seen_8":
        return dict(SEEN)
    counts = label_counts(physicians)
    others = [label for label, count in counts.items() if count >= FEWEST and label not in SEEN and label not in NO_FINDING]
    number = int(which.removeprefix("unseen_"))
    return {label: label for label in (others if number == 173 else others[:number])}


def label_counts(physicians: pl.DataFrame) -> dict[str, int]:
    """Label -> in how many images it stands; the most frequent first, then by the alphabet."""
    counts = physicians["labels"].explode().drop_nulls().value_counts()
    return dict(counts.sort(["count", "labels"], descending=[True, False]).iter_rows())
