"""Splits of published data sets - train, valid, test - by published lists, or drawn by patient; named, counted and hashed."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from engine.data.sources.label_files import label_text
from engine.errors import ConfigError

SUFFIXES = {"png", "jpg", "jpeg", "dcm", "dicom"}
"""Suffixes of image files, which lists may give or leave out."""


def stem_of(name: str) -> str:
    """An image's name without folders and without the suffix of an image; dots that are part of the name stay."""
    last = name.strip().replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = last.rpartition(".")
    return stem if dot and suffix.lower() in SUFFIXES else last


def sha256_of(names: pl.Series | Sequence[str]) -> str:
    """SHA-256 of the different names, sorted, one a line: equal for equal sets of images or studies, for any order."""
    lines = pl.Series("names", names, pl.String).unique().sort().str.join("\n").item()
    return hashlib.sha256(lines.encode()).hexdigest()


def drawn_parts(patients: Iterable[str], shares: Sequence[tuple[str, float]], seed: int) -> dict[str, str]:
    """Patient -> part, by a hash of seed and patient alone: what else the table holds changes nothing.

    Args:
        shares: (part, share of the patients), adding up to 1; the last takes what rounding leaves.
    """

    def part_of(patient: str) -> str:
        place = int.from_bytes(hashlib.sha256(f"{seed}:{patient}".encode()).digest()[:8], "big") / 2**64
        for part, share in shares[:-1]:
            if place < share:
                return part
            place -= share
        return shares[-1][0]

    return {patient: part_of(patient) for patient in set(patients)}


def read_list(path: Path, images: Iterable[str]) -> frozenset[str]:
    """The images that a list names, without their suffix: plain text with one a line, or a CSV that names them in some column.

    Args:
        images: the data set's own images. The column that names most of them is the one; a header is a name like any other and drops out.

    Raises:
        InputMissing, ReadError: it cannot be read.
        ConfigError: it names no image of the data set.
    """
    known = {stem_of(image) for image in images}
    columns: dict[int, set[str]] = {}
    for row in csv.reader(io.StringIO(label_text(path), newline="")):
        for place, cell in enumerate(row):
            if (stem := stem_of(cell)) in known:
                columns.setdefault(place, set()).add(stem)
    if not columns:
        raise ConfigError(
            f"the list {path.name} names no image of this data set",
            why=f"none of its names is among the table's {len(known):,}",
            hint="give one image a line, as the table spells it, or a CSV with a column of images",
        )
    most = max(columns.values(), key=len)
    return frozenset(most)


def parts_by_lists(rows: pl.DataFrame, lists: Mapping[str, frozenset[str]], rest: str) -> pl.DataFrame:
    """The rows with a column `split`: the part whose list names the image; `rest` where none does.

    Raises:
        ConfigError: two lists name the same image.
    """
    named = [(part, stem) for part, stems in lists.items() for stem in stems]
    if twice := len(named) - len({stem for _, stem in named}):
        raise ConfigError(
            f"the split leaks: {twice:,} images are named by two of its lists",
            why=", ".join(sorted(lists)),
            hint="give each image one part",
        )
    stems = pl.Series("stem", [stem_of(image) for image in rows["image"]], pl.String)
    parts = pl.DataFrame(named, schema={"split": pl.String, "stem": pl.String}, orient="row")
    found = rows.drop("split", strict=False).with_columns(stem=stems).join(parts, on="stem", how="left", maintain_order="left")
    return found.with_columns(pl.col("split").fill_null(rest)).drop("stem")


def without_valid(rows: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """The rows with this share of the training patients moved to part `valid`."""
    if share == 0:
        return rows
    moved = drawn_parts(rows.filter(pl.col("split") == "train")["patient"], (("valid", share), ("train", 1 - share)), seed)
    drawn = pl.col("patient").replace_strict(moved, default=None, return_dtype=pl.String)
    return rows.with_columns(split=pl.when(pl.col("split") == "train").then(drawn).otherwise("split"))


def without_overlap(rows: pl.DataFrame, overlap: str) -> pl.DataFrame:
    """The rows, where no patient is in two parts.

    Args:
        rows: columns patient, split and reason (null = the row can be used).
        overlap: refuse; or leave_out, which gives the patients' rows outside the test (and outside validation, where only train and
            valid share them) the reason `split_overlap`.

    Raises:
        ConfigError: parts share patients, and `overlap` is refuse. Says how many, and never which.
    """
    usable = pl.col("reason").is_null()
    parts = rows.filter(usable).group_by("patient").agg(parts=pl.col("split").unique().sort()).filter(pl.col("parts").list.len() > 1)
    if parts.is_empty():
        return rows
    shared = pl.col("patient").is_in(parts["patient"].implode())
    if overlap == "refuse":
        counts = rows.filter(usable & shared).group_by("split").len().sort("split")
        said = ", ".join(f"{count:,} in {part}" for part, count in counts.iter_rows())
        raise ConfigError(
            f"the split leaks: {len(parts):,} {'patient has' if len(parts) == 1 else 'patients have'} images in several parts",
            why=f"their images: {said}",
            hint="overlap: leave_out drops them from training and validation; or give lists that part patients",
        )
    rank = pl.col("split").replace_strict({"test": 0, "valid": 1}, default=2, return_dtype=pl.Int8)
    last = rank.filter(usable).min().over("patient")
    # `over` within a filter of rows: the best part among a patient's usable rows
    return rows.with_columns(reason=pl.when(usable & shared & (rank > last)).then(pl.lit("split_overlap")).otherwise("reason"))
