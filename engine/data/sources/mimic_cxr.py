"""MIMIC-CXR and MIMIC-CXR-JPG 2.0.0 as published -> the image table: frontal images, each with what its report says.

Johnson et al., "MIMIC-CXR, a de-identified publicly available database of chest radiographs with free-text reports", Sci Data 6 (2019).

    root/files/p10/p10000032/s50414267.txt                      reports, next to the folders of their studies
    root/mimic-cxr-reports.zip                                  or all of them in one zip, which is read in place
    root/files/p10/p10000032/s50414267/<dicom_id>.dcm           images of MIMIC-CXR
    jpg_root/files/p10/p10000032/s50414267/<dicom_id>.jpg       images of MIMIC-CXR-JPG
    jpg_root/mimic-cxr-2.0.0-{split,metadata}.csv[.gz]          which split, which view
    jpg_root/mimic-cxr-2.0.0-{chexpert,negbio}.csv[.gz]         findings per study, optional

Rows of the metadata are dropped by the first of these rules that applies: (1) no study or patient, (2) no row in the table of splits, (3)
the view: ViewPosition AP and PA are kept, whatever the procedure is called; where it is blank the view code decides; (4) no such file.
A study whose report is missing, or holds nothing that may be trained on, keeps its images without text: both are counted.

MIMIC's own section tool has hand rules for 54 studies. Here all reports go through the same rules (engine/data/reports.py): where these
find neither impression, findings, last paragraph nor comparison, there is no text, rather than a wrong one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import polars as pl

from engine.data.reports import report_text, section_counts
from engine.data.sources.image_table import COLUMNS, FINDING_TYPE, ImageTable, facts_of
from engine.data.sources.label_files import THREADS, are_files, read_label_file
from engine.data.sources.published import MIMIC_REPORTS_ZIP, any_match, has_table
from engine.errors import ReadError
from engine.recipe.sources import CHEXPERT_FINDINGS, MimicSource

VIEWS = {
    "AP": "AP", "PA": "PA", "ANTERO-POSTERIOR": "AP", "POSTERO-ANTERIOR": "PA",
    "LATERAL": "lateral_view", "LL": "lateral_view", "RL": "lateral_view", "LEFT LATERAL": "lateral_view",
    "RIGHT LATERAL": "lateral_view", "XTABLE LATERAL": "lateral_view",
}  # fmt: skip
"""ViewPosition or the meaning of the view code, in capitals -> view, or the reason to drop it; what is not listed is `other_view`."""
SPLITS = {"train": "train", "validate": "valid", "test": "test"}


def mimic_table(folder: Path) -> pl.DataFrame:
    """Metadata and splits as published, one row per image in the order of the metadata. No image and no report is looked at.

    Returns:
        columns image (dicom_id), study, patient (as published, digits), view (AP, PA or ""), split (train, valid, test or ""), and reason:
        why it is dropped (a code of `DROPS`), null for what is kept.

    Raises:
        InputMissing, ReadError, ConfigError: as `read_label_file`.
    """
    keys = ["dicom_id", "subject_id", "study_id"]
    metadata = read_label_file(folder / "mimic-cxr-2.0.0-metadata.csv", [*keys, "ViewPosition"], ["ViewCodeSequence_CodeMeaning"])
    splits = read_label_file(folder / "mimic-cxr-2.0.0-split.csv", ["dicom_id", "split"]).unique("dicom_id", keep="first")
    told = pl.coalesce("ViewPosition", "ViewCodeSequence_CodeMeaning").str.strip_chars().str.to_uppercase()
    known = pl.when(told.is_null() | (told == "")).then(pl.lit("view_unknown"))
    view = known.otherwise(told.replace_strict(VIEWS, default="other_view", return_dtype=pl.String))
    table = metadata.join(splits, on="dicom_id", how="left", maintain_order="left").with_columns(view=view)
    rules = [
        (pl.any_horizontal(pl.col(keys).is_null()), pl.lit("no_study")),
        (~pl.col("dicom_id").is_first_distinct(), pl.lit("duplicate_image")),
        (pl.col("split").is_null(), pl.lit("no_split")),
        (~pl.col("view").is_in(["AP", "PA"]), pl.col("view")),
    ]
    return table.select(
        image="dicom_id",
        study="study_id",
        patient="subject_id",
        view=pl.when(pl.col("view").is_in(["AP", "PA"])).then("view").otherwise(pl.lit("")),
        split=pl.col("split").replace(SPLITS).fill_null(""),
        reason=pl.coalesce([pl.when(rule).then(code) for rule, code in rules]),
    )


def read_mimic_cxr(source: MimicSource) -> ImageTable:
    """The frontal images of MIMIC-CXR with the text of their reports; what is not of the train split is held out.

    Raises:
        InputMissing, ConfigError: a table is not there, or is another one.
        ReadError: a table cannot be read, the zip of reports is damaged, or a report is a Git-LFS pointer.
    """
    root = Path(source.root).absolute()
    pictures, suffix = (root, "dcm") if source.jpg_root is None else (Path(source.jpg_root).absolute(), "jpg")
    patient = pl.lit("/files/p") + pl.col("patient").str.slice(0, 2) + pl.lit("/p") + pl.col("patient")
    table = mimic_table(pictures).with_columns(at=patient + pl.lit("/s") + pl.col("study"))
    table = table.with_columns(file=pl.lit(str(pictures)) + pl.col("at") + pl.lit("/") + pl.col("image") + pl.lit(f".{suffix}"))
    wanted = table["reason"].is_null()
    there = pl.Series(are_files(table.filter(wanted)["file"]), dtype=pl.Boolean)
    gone = table.filter(wanted).filter(~there).select("image", gone=pl.lit("file_missing"))
    table = table.join(gone, on="image", how="left", maintain_order="left")
    table = table.with_columns(reason=pl.coalesce("reason", pl.when(wanted).then("gone")))

    kept = table.filter(pl.col("reason").is_null())
    studies = kept.select("study", "at").unique("study", keep="first", maintain_order=True)
    texts, without = _texts(studies, root)
    kept = kept.join(texts, on="study", how="left", maintain_order="left")
    findings, labels = _labels(pictures, source, studies)
    kept = kept.join(labels, on="study", how="left", maintain_order="left")
    frame = kept.select(
        "image",
        "file",
        study=pl.lit(f"{source.name}:") + pl.col("study"),
        patient=pl.lit(f"{source.name}:") + pl.col("patient"),
        view="view",
        split="split",
        sex=pl.lit(""),
        age=pl.lit(None, pl.Float64),
        report="report",
        report_key="report_key",
        report_group="report_key",
        paired=pl.col("report") != "",
        held_out=(pl.col("split") != "train").any().over("patient"),
        source=pl.lit(source.name),
        repeat=pl.lit(source.repeat, pl.Int32),
        **{finding: pl.col(finding) for finding in findings},
    ).select([*COLUMNS, *findings])
    dropped = table.filter(pl.col("reason").is_not_null()).select(file=pl.col("file").fill_null(""), reason="reason")
    bank: dict[str, tuple[str, ...]] = {key: (text,) for key, text in texts.select("report_key", "report").iter_rows() if key}
    facts = facts_of(source.name, frame, findings, dropped, texts=len(bank)) | {"studies": len(studies), "reports": without}
    return ImageTable(frame, dropped, findings, bank, facts)


def _texts(studies: pl.DataFrame, root: Path) -> tuple[pl.DataFrame, dict[str, int]]:
    """study, report ("" = none), report_key; and counts: with and without text, and by the section that it comes from."""
    found = _reports(root, studies["at"].to_list())
    reports = [None if each is None else report_text(each) for each in found]
    texts = ["" if each is None else each.text for each in reports]
    keys = [f"report:{hashlib.sha256(text.encode()).hexdigest()[:16]}" if text else "" for text in texts]
    missing = sum(each is None for each in found)
    counts = {"with_text": sum(map(bool, texts)), "missing": missing, "empty": len(texts) - missing - sum(map(bool, texts))}
    counts |= section_counts(each for each in reports if each is not None)
    return studies.select("study").with_columns(
        report=pl.Series(texts, dtype=pl.String), report_key=pl.Series(keys, dtype=pl.String)
    ), counts


def _reports(root: Path, places: Sequence[str]) -> list[str | None]:
    """The report of each study, `places` as in the layout; None where there is none. The file goes before the zip."""

    def beside(place: str) -> str | None:
        try:
            return Path(f"{root}{place}.txt").read_text("utf-8", errors="replace")
        except OSError:
            return None

    found: list[str | None] = [None] * len(places)
    if any_match(root, "files/p1[0-9]/p*/s*.txt"):  # half a million questions less where all reports are zipped
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(beside, places))
    archive = root / MIMIC_REPORTS_ZIP
    if not archive.is_file() or None not in found:
        return found
    try:
        with ZipFile(archive) as members:
            names = set(members.namelist())
            for index, place in enumerate(places):
                member = f"{place[1:]}.txt"
                if found[index] is None and member in names:
                    found[index] = members.read(member).decode("utf-8", errors="replace")
    except (OSError, BadZipFile, EOFError) as error:
        raise ReadError(f"{MIMIC_REPORTS_ZIP} cannot be read", why=type(error).__name__, hint="fetch it again") from None
    return found


def _labels(folder: Path, source: MimicSource, studies: pl.DataFrame) -> tuple[tuple[str, ...], pl.DataFrame]:
    """The finding columns per study: 1 = present, 0 = absent; uncertain (-1) and blank are null. None where the table is not there."""
    name = f"mimic-cxr-2.0.0-{source.labels}.csv"
    if source.labels == "none" or not has_table(folder, name):
        return (), studies.select("study")
    cells: dict[str, Any] = {"1.0": 1, "1": 1, "0.0": 0, "0": 0}
    values = [pl.col(each).replace_strict(cells, default=None, return_dtype=FINDING_TYPE) for each in CHEXPERT_FINDINGS]
    frame = read_label_file(folder / name, ["study_id", *CHEXPERT_FINDINGS]).select(pl.col("study_id").alias("study"), *values)
    return CHEXPERT_FINDINGS, frame.filter(pl.col("study").is_not_null()).unique("study", keep="first")
