"""PadChest as published -> the image table: frontal images without reports, which are Spanish and stemmed.

Bustos et al., "PadChest: A large chest x-ray image dataset with multi-label annotated reports", Medical Image Analysis 66 (2020).

    PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv[.gz]    one row per image
    0/ to 54/ with 16-bit PNGs, or 0.zip to 54.zip               the column ImageDir says which one

An image inside a zip is named as if the zip were a folder, `0.zip/<name>.png`, and read in place. Rows are dropped by the first of
these rules that applies: (1) Projection L, (2) COSTAL, (3) EXCLUDE, (4) anything but PA, AP, AP_horizontal, (5) children, where
the recipe leaves them out, (6) patients of the physician-labelled images, where the recipe leaves them out, (7) no such image.
About 21 images of the published set are broken: they are rejected by reading them (the pixel store says why), not by a list.
"""

from __future__ import annotations

import ast
from pathlib import Path

import polars as pl

from engine.data.sources.image_table import COLUMNS, FINDING_TYPE, ImageTable, facts_of
from engine.data.sources.label_files import found_files, read_label_file
from engine.data.sources.label_tables import LabelRows, table_of
from engine.data.sources.published import PADCHEST_TABLE
from engine.recipe.labelled_sources import PADCHEST_SEEN, PadchestEvaluationSource
from engine.recipe.sources import PadchestSource

FRONTAL = ("PA", "AP", "AP_horizontal")
"""Values of Projection that are kept; AP_horizontal: the patient lies."""
EVALUATED_BY = "Physician"
"""MethodLabel of the 39,053 images whose labels a physician gave; RNN_model of the others."""


def label_items(cell: str | None) -> tuple[str, ...] | None:
    """The labels in one cell of the column Labels, each once, in their order; None where nothing is known (a blank or `nan` cell).

    The cell is a Python list of strings with stray spaces and empty strings in it. Items are compared whole: "pneumonia" is no part of
    "atypical pneumonia" here. An empty list is known to name nothing.
    """
    if cell is None or not cell.strip().startswith("["):
        return None
    try:
        items = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError):
        return None
    names = (" ".join(str(item).split()) for item in items)
    return tuple(dict.fromkeys(name for name in names if name))


def padchest_table(path: Path) -> pl.DataFrame:
    """The published label table, one row per image, in its order.

    Returns:
        columns image (ImageID), folder (ImageDir), study, patient, projection, pediatric and physician (Boolean: who gave the labels),
        labels (List[String], null where nothing is known), sex (F, M or ""), age (years: that of the study less that of birth; or null).

    Raises:
        InputMissing, ReadError, ConfigError: as `read_label_file`.
    """
    needed = ["ImageID", "ImageDir", "StudyID", "PatientID", "Projection", "MethodLabel", "Labels"]
    frame = read_label_file(path, needed, ["Pediatric", "StudyDate_DICOM", "PatientBirth", "PatientSex_DICOM"])
    cells = frame["Labels"].unique()
    items = pl.DataFrame(
        {"Labels": cells, "labels": [label_items(cell) for cell in cells]}, schema_overrides={"labels": pl.List(pl.String)}
    )
    age = pl.col("StudyDate_DICOM").str.slice(0, 4).cast(pl.Float64, strict=False) - pl.col("PatientBirth").cast(pl.Float64, strict=False)
    sex = pl.col("PatientSex_DICOM")
    return frame.join(items, on="Labels", how="left", nulls_equal=True, maintain_order="left").select(
        image="ImageID",
        folder="ImageDir",
        study="StudyID",
        patient="PatientID",
        projection=pl.col("Projection").fill_null(""),
        pediatric=(pl.col("Pediatric") == "PED").fill_null(False),
        physician=(pl.col("MethodLabel") == EVALUATED_BY).fill_null(False),
        labels="labels",
        sex=pl.when(sex.is_in(["F", "M"])).then(sex).otherwise(pl.lit("")),
        age=pl.when(age.is_between(0, 130)).then(age),
    )


def with_reasons(table: pl.DataFrame, source: PadchestSource) -> pl.DataFrame:
    """The rows of `padchest_table` with a column `reason`: why the source drops them (a code of `DROPS`), null for those it keeps.

    Only the table is looked at, never an image.
    """
    projection, child = pl.col("projection"), pl.col("pediatric") & (not source.pediatric)
    evaluated = pl.col("physician").any().over("patient") & source.exclude_eval_patients
    rules = [
        (pl.col("image").is_null() | pl.col("folder").is_null(), "file_blank"),
        (pl.col("study").is_null() | pl.col("patient").is_null(), "no_study"),
        (projection == "L", "lateral_view"),
        (projection == "COSTAL", "other_view"),
        (projection == "EXCLUDE", "excluded_by_source"),
        (~projection.is_in(FRONTAL), "view_unknown"),
        (child, "pediatric"),
        (evaluated, "eval_patient"),
        (~pl.col("image").is_first_distinct(), "duplicate_image"),
    ]
    return table.with_columns(reason=pl.coalesce([pl.when(rule).then(pl.lit(code)) for rule, code in rules]))


def read_padchest(source: PadchestSource) -> ImageTable:
    """The images of PadChest that are learned from, without reports.

    Raises:
        InputMissing, ReadError, ConfigError: the table is not there, cannot be read, or is another one.
    """
    root = Path(source.root).absolute()
    table = with_reasons(padchest_table(root / PADCHEST_TABLE), source)
    table = found_files(table, root)
    frame = table.filter(pl.col("reason").is_null()).select(
        image=pl.concat_str("folder", "image", separator="/"),
        file="file",
        study=pl.lit(f"{source.name}:") + pl.col("study"),
        patient=pl.lit(f"{source.name}:") + pl.col("patient"),
        view="projection",
        split=pl.lit(""),
        sex="sex",
        age="age",
        report=pl.lit(""),
        report_key=pl.lit(""),
        report_group=pl.lit(""),
        paired=pl.lit(False),
        held_out=pl.lit(False),
        source=pl.lit(source.name),
        repeat=pl.lit(source.repeat, pl.Int32),
    )
    dropped = table.filter(pl.col("reason").is_not_null()).select(file=pl.col("file").fill_null(""), reason="reason")
    return ImageTable(frame.select(list(COLUMNS)), dropped, (), {}, facts_of(source.name, frame, (), dropped))


# The 39,053 images of PadChest that physicians labelled -> the image table: a test that no pretraining report speaks the language of.

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
    """Label -> in how many images it appears; the most frequent first, then by the alphabet."""
    counts = physicians["labels"].explode().drop_nulls().value_counts()
    return dict(counts.sort(["count", "labels"], descending=[True, False]).iter_rows())
