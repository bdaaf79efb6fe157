"""Images with what is known about them: what every source yields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from engine.errors import ConfigError

DROPS = {
    "row_ragged": "the row has more or fewer cells than the header",
    "file_blank": "the row names no file",
    "file_missing": "the file is not there",
    "empty_file": "the file holds nothing",
    "lfs_pointer": "the file or report is a Git-LFS pointer: the data themselves were never fetched",
    "duplicate_image": "an earlier row names the same file",
    "labels_contradict": "a finding is both present and absent",
    "zip_damaged": "the zip file that should hold it cannot be read",
    "report_damaged": "its report cannot be read",
    "lateral_view": "a lateral view: only frontal ones are learned from",
    "other_view": "neither frontal nor lateral: ribs, for instance",
    "view_unknown": "nothing tells which view it is",
    "excluded_by_source": "the data set itself marks it to be left out",
    "pediatric": "a child's, and the recipe leaves children out",
    "eval_patient": "of a patient on whose images others evaluate",
    "no_split": "the data set's table of splits does not name it",
    "no_study": "its study or its patient is not named",
    "no_label": "the label table says nothing of it",
    "labels_disagree": "rows of the same image say different things",
    "split_overlap": "its patient has images in another part, and the recipe leaves these out",
    "later_view": "the recipe reads the first view of a study only",
}
"""Why a row is dropped. A row with several reasons has the first that applies, in the order of its reader's rules."""

LFS_POINTER = "version https://git-lfs.github.com/spec/"
FINDING_TYPE = pl.Int8
"""Type of the finding columns: 1 = present, 0 = absent, null = unknown."""

COLUMNS: dict[str, Any] = {
    "image": pl.String,  # stable id: the file as the table names it
    "file": pl.String,  # absolute path
    "study": pl.String,
    "patient": pl.String,
    "view": pl.String,
    "split": pl.String,  # train, valid, test or another name, as the data set itself says; "" = it does not
    "sex": pl.String,  # F or M; "" = unknown
    "age": pl.Float64,  # years; null = unknown
    "report": pl.String,  # "" = none; of a weak pair: its first wording
    "report_key": pl.String,  # into ImageTable.texts; "" = none
    "report_group": pl.String,  # equal for reports that say the same findings are present; "" = none
    "paired": pl.Boolean,
    "held_out": pl.Boolean,
    "source": pl.String,
    "repeat": pl.Int32,
}


@dataclass(frozen=True)
class ImageTable:
    """Images with what is known about them.

    Attributes:
        frame: one row per image: the columns of `COLUMNS`, then one nullable Int8 column per finding (1 = present, 0 = absent).
        dropped: columns file, reason (a code of `DROPS`).
        findings: names of the finding columns.
        texts: report_key -> its texts: the report itself, or all wordings of a weak pair.
        facts: counts by source, for the log and the model card.
    """

    frame: pl.DataFrame
    dropped: pl.DataFrame
    findings: tuple[str, ...]
    texts: Mapping[str, tuple[str, ...]]
    facts: dict[str, Any]

    @staticmethod
    def joined(tables: Sequence[ImageTable]) -> ImageTable:
        """All tables as one; an image of an earlier table is not taken again from a later one."""
        if len(tables) == 1:
            return tables[0]
        findings = tuple(dict.fromkeys(name for table in tables for name in table.findings))
        frame = pl.concat([table.frame for table in tables], how="diagonal").select([*COLUMNS, *findings])
        again = frame["file"].is_duplicated() & ~frame["file"].is_first_distinct()
        dropped = pl.concat(
            [*(table.dropped for table in tables), drops([(file, "duplicate_image") for file in frame["file"].filter(again)])]
        )
        frame = frame.filter(~again)
        clash = frame["image"].is_duplicated()
        frame = frame.with_columns(image=pl.when(clash).then(pl.concat_str("source", "image", separator=":")).otherwise("image"))
        if frame["image"].is_duplicated().any():
            raise ConfigError("two sources of one name hold files of one name", hint="give each source its own `name`")
        texts = {key: words for table in tables for key, words in table.texts.items()}
        facts = {"sources": [table.facts for table in tables], "taken_twice": int(again.sum())}
        return ImageTable(frame, dropped, findings, texts, facts)


def facts_of(
    name: str, frame: pl.DataFrame, findings: Sequence[str], dropped: pl.DataFrame, *, left_out: int = 0, texts: int = 0
) -> dict[str, Any]:
    """Counts of one source that add up: rows = images + dropped + left_out.

    Args:
        frame: the images kept, with the columns of `COLUMNS` and one per finding.
        dropped: columns file, reason.
        left_out: rows that the recipe asked not to see at all.
        texts: different texts.
    """
    trained = frame.filter(~pl.col("held_out"))
    return {
        "source": name,
        "rows": len(frame) + len(dropped) + left_out,
        "left_out": left_out,
        "dropped": dict(sorted(dropped["reason"].value_counts().iter_rows())),
        "images": len(frame),
        "patients": frame["patient"].n_unique(),
        "held_out_images": len(frame) - len(trained),
        "held_out_patients": frame.filter(pl.col("held_out"))["patient"].n_unique(),
        "paired_images": int(trained["paired"].sum()),
        "unpaired_images": int((~trained["paired"]).sum()),
        "texts": texts,
        "present": {finding: int((frame[finding] == 1).sum()) for finding in findings},
        "absent": {finding: int((frame[finding] == 0).sum()) for finding in findings},
    }


def is_lfs_pointer(file: Path, size: int) -> bool:
    """Whether a file of so many bytes is a Git-LFS pointer; OSError where it cannot be read. A file inside a zip never is one."""
    if size >= 1024 or not file.is_file():
        return False
    return file.read_bytes().startswith(LFS_POINTER.encode())


def drops(rows: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """(file, code of `DROPS`) of each dropped row, as `ImageTable.dropped` holds them."""
    return pl.DataFrame(rows, schema={"file": pl.String, "reason": pl.String}, orient="row")
