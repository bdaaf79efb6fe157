"""A published data set with labels -> the image table of one part: what all of its readers share.

A reader yields one row per image (or per study whose images are looked for later), says which part each belongs to, and where the
files are. What is the same for all of them happens here, in this order: (1) rows that name an image twice, (2) parts that share a
patient, (3) the part asked for, counted and hashed as it is published, (4) views that are left out, (5) images that are not there,
(6) findings by the names that the recipe gives them.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from engine.data.sources.image_table import COLUMNS, FINDING_TYPE, LFS_POINTER, ImageTable, facts_of
from engine.data.sources.published_splits import sha256_of, without_overlap
from engine.data.sources.table_rows import age_of, sex_of
from engine.errors import ConfigError, LabelsError
from engine.intake.containers import file_facts
from engine.recipe.labelled_sources import PublishedSource


@dataclass(frozen=True)
class LabelRows:
    """What a label table says, before any image is looked at.

    Attributes:
        frame: one row per image: image, unit (what the split counts: the image, or its study), study, patient, view, split, sex, age,
            origin (where within the data set it comes from; "" = one origin), reason (a code of `DROPS` that takes it out of the part;
            null = none), aside (a code that leaves the image out and its study in the part; null = none), and the findings (1 =
            present, 0 = absent, null = unknown).
        findings: names of the finding columns.
        split: name of the split: data set, list or rule, seed.
        published: part -> how many units the publisher, or the paper that uses the split, counts in it.
        facts: what else is worth a line in the log.
    """

    frame: pl.DataFrame
    findings: tuple[str, ...]
    split: str
    unit: str = "image"
    published: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def table_of(source: PublishedSource, labels: LabelRows, part: str, files: Mapping[str, str]) -> ImageTable:
    """The image table of one part ("all": every part, distinguished by the column `split`).

    Args:
        files: image -> path of its image; images without one are dropped as `file_missing`.

    Raises:
        ConfigError: parts share patients, the part is empty, or `rename` names what is no finding here.
    """
    name = source.name or str(getattr(source, "kind", "published"))
    rows = without_overlap(without_repeats(labels.frame, labels.findings), source.overlap)
    of_part = rows if part == "all" else rows.filter(pl.col("split") == part)
    if of_part.is_empty():
        counts = ", ".join(f"{each}: {count:,}" for each, count in rows["split"].value_counts(sort=True).iter_rows())
        raise ConfigError(f"part {part} of {name} is empty", why=f"rows by part: {counts or 'none'}", hint="set `part` to one of these")
    paths = [files.get(image, "") for image in of_part["image"].to_list()]
    there = pl.Series("there", [reason_of(path) for path in paths], pl.String)
    of_part = of_part.with_columns(file=pl.Series(paths, dtype=pl.String))
    in_split = of_part.filter(pl.col("reason").is_null())
    of_part = of_part.with_columns(reason=pl.coalesce("reason", "aside", there))
    frame, findings = renamed(of_part.filter(pl.col("reason").is_null()), labels.findings, source.rename)
    of_table = frame.select(
        image="image",
        file="file",
        study=pl.lit(f"{name}:") + pl.col("study"),
        patient=pl.lit(f"{name}:") + pl.col("patient"),
        view="view",
        split="split",
        sex="sex",
        age="age",
        report=pl.lit(""),
        report_key=pl.lit(""),
        report_group=pl.lit(""),
        paired=pl.lit(False),
        held_out=pl.col("split") != "train",
        source=pl.when(pl.col("origin") == "").then(pl.lit(name)).otherwise(pl.lit(f"{name}:") + pl.col("origin")),
        repeat=pl.lit(1, pl.Int32),
    )
    table = pl.concat([of_table.select(list(COLUMNS)), frame.select(findings)], how="horizontal")
    dropped = of_part.filter(pl.col("reason").is_not_null()).select(
        file=pl.when(pl.col("file") == "").then("image").otherwise("file"), reason="reason"
    )
    split = {"name": labels.split, "part": part, "unit": labels.unit, **split_facts(in_split, frame, labels, part)}
    facts = facts_of(name, table, findings, dropped, left_out=len(rows) - len(of_part))
    return ImageTable(table, dropped, findings, {}, {**facts, **labels.facts, "split": split})


def split_facts(in_split: pl.DataFrame, frame: pl.DataFrame, labels: LabelRows, part: str) -> dict[str, Any]:
    """The part as it is published, and how much of it is there: n and SHA-256 of both, in units of the split; of "all", each part too.

    Args:
        in_split: the rows of the part. frame: those of them with an image that is read.

    `as_published` is null where no published count is known, and else whether the part has that many units.
    """
    by_part = {str(key[0]): rows["unit"] for key, rows in in_split.partition_by("split", as_dict=True).items()}
    known = [units.n_unique() == labels.published[each] for each, units in by_part.items() if each in labels.published]
    parts = {}
    if part == "all":
        there = dict(frame.group_by("split").agg(pl.col("unit").n_unique()).iter_rows())
        parts = {
            each: {"n": units.n_unique(), "sha256": sha256_of(units), "there": there.get(each, 0)}
            for each, units in sorted(by_part.items())
        }
    units = in_split.unique("unit")
    return {
        "n": in_split["unit"].n_unique(),
        "sha256": sha256_of(in_split["unit"]),
        "there": frame["unit"].n_unique(),
        "there_sha256": sha256_of(frame["unit"]),
        "as_published": all(known) if known else None,
        "present": {finding: int((units[finding] == 1).sum()) for finding in labels.findings},
        "absent": {finding: int((units[finding] == 0).sum()) for finding in labels.findings},
        "parts": parts,
    }


def without_repeats(rows: pl.DataFrame, findings: Sequence[str]) -> pl.DataFrame:
    """The rows, where an image appears once.

    Of rows that name an image again with the same labels the first is kept, the others have the reason `duplicate_image`; where its
    rows disagree nothing is known of the image, and all have the reason `labels_disagree`.
    """
    again = pl.col("image").is_duplicated()
    if not rows.select(again.any()).item():
        return rows
    said = pl.struct(*findings, "split").n_unique().over("image") > 1
    reason = (
        pl.when(again & said).then(pl.lit("labels_disagree")).when(~pl.col("image").is_first_distinct()).then(pl.lit("duplicate_image"))
    )
    return rows.with_columns(reason=pl.coalesce("reason", reason))


def renamed(frame: pl.DataFrame, findings: Sequence[str], rename: Mapping[str, str | None]) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The frame with the findings that the recipe keeps, by the names that it gives them.

    Raises:
        ConfigError: a finding to rename is none of the source's (all at once, each with the nearest), or two get one name.
    """
    if strange := [name for name in rename if name not in findings]:
        near = {name: difflib.get_close_matches(name, findings, n=1) for name in strange}
        said = [f"{name!r}" + (f" (did you mean {near[name][0]!r}?)" if near[name] else "") for name in strange]
        raise ConfigError("`rename` names what is no finding of this source", why="; ".join(said), hint=f"it has {', '.join(findings)}")
    names = {finding: rename.get(finding, finding) for finding in findings}
    kept = [name for name in names.values() if name is not None]
    if len(set(kept)) < len(kept):
        raise ConfigError("`rename` gives two findings one name", hint="drop one of them with null")
    frame = frame.drop([finding for finding, name in names.items() if name is None])
    return frame.rename({finding: name for finding, name in names.items() if name is not None}), tuple(kept)


def binary(frame: pl.DataFrame, columns: Sequence[str], table: str) -> pl.DataFrame:
    """Columns of 1, 0, -1 and blank, also written 1.0 and so on, as Int8: 1, 0, -1, null.

    Raises:
        LabelsError: a column holds something else; names column and count, and quotes no cell.
    """
    numbers = frame.select(pl.col(columns).cast(pl.Float64, strict=False))
    strange = {name: int((frame[name].is_not_null() & ~numbers[name].is_in([1.0, 0.0, -1.0]).fill_null(False)).sum()) for name in columns}
    if any(strange.values()):
        raise LabelsError(
            f"{table} holds cells that are no labels",
            why="; ".join(f"{name}: {count:,} cells" for name, count in strange.items() if count),
            hint="labels are 1 (present), 0 (absent), -1 (uncertain) and blank (unknown)",
        )
    return frame.with_columns(numbers.cast(FINDING_TYPE))


def unknown_labels(named: Iterable[str], known: Sequence[str], table: str) -> None:
    """Reject labels that a data set does not have.

    Raises:
        LabelsError: says how many there are and which known labels they are near to, and quotes none of them.
    """
    strange = sorted(set(named) - set(known))
    if strange:
        near = sorted({match for name in strange for match in difflib.get_close_matches(name, known, n=1)})
        raise LabelsError(
            f"{table} holds {len(strange)} label{'s' if len(strange) > 1 else ''} that the data set does not have",
            why=f"near to {', '.join(near)}" if near else "near to none of its own",
            hint=f"spell them as published: {', '.join(known)}",
        )


def sex_column(column: str) -> pl.Expr:
    """F, M or "" from however a table writes it."""
    return pl.col(column).fill_null("").map_batches(_mapped(sex_of, pl.String), return_dtype=pl.String)


def age_column(column: str) -> pl.Expr:
    """Years from `63`, `063Y` and so on; null for anything else, and beyond 130 (NIH's first table has a patient of 414)."""
    return pl.col(column).fill_null("").map_batches(_mapped(age_of, pl.Float64), return_dtype=pl.Float64)


def _mapped(reading: Any, kind: Any) -> Any:
    def whole(cells: pl.Series) -> pl.Series:
        known = {cell: reading(cell) for cell in cells.unique()}
        return pl.Series(cells.name, [known[cell] for cell in cells.to_list()], dtype=kind)

    return whole


def listed(folders: Iterable[Path]) -> dict[str, str]:
    """File name -> path, of the files that are directly in these folders; a folder that is not there holds none. The first folder wins."""
    found: dict[str, str] = {}
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda each: each.name):
                    if not entry.is_dir():
                        found.setdefault(entry.name, entry.path)
        except OSError:
            continue
    return found


def reason_of(path: str) -> str | None:
    """Why an image, or a member of a zip, cannot be read: `file_missing`, `empty_file`, `lfs_pointer`; None where it is there."""
    if not path:
        return "file_missing"
    try:
        file = Path(path)
        size, _ = file_facts(file)
        if size == 0:
            return "empty_file"
        if size < 1024 and file.is_file() and file.read_bytes().startswith(LFS_POINTER.encode()):
            return "lfs_pointer"
    except OSError:
        return "file_missing"
    return None
