"""Which images of an image table judge, which are chosen on, and which a baseline may learn from; and from images to studies.

No patient is in two parts: a split that has one there is refused, for a figure with leakage is worth nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.errors import ConfigError, LabelsError
from engine.recipe.evaluation import EvaluationRecipe, Parts
from engine.tables.labels import plain_name

TEST, VALIDATION, TRAIN = "test", "validation", "train"


def drawn(patient: str, share: float, seed: int) -> bool:
    """Whether a patient is among the `share` set aside for choosing: a hash of patient and seed alone."""
    number = int.from_bytes(hashlib.sha256(f"{seed}:validation:{patient}".encode()).digest()[:8], "big")
    return number / 2**64 < share


def with_parts(frame: pl.DataFrame, parts: Parts) -> pl.DataFrame:
    """The image table with one more column `part`: test, validation, train, or "" for images that serve none.

    Raises:
        ConfigError: no image is in the test part.
        LabelsError: a patient is in two parts (leakage).
    """
    split, held_out = pl.col("split"), pl.col("held_out")
    validation = split == parts.validation if parts.validation is not None else pl.lit(False)
    test = {"held_out": held_out, "all": pl.lit(True)}.get(parts.test, split == parts.test) & ~validation
    train = ~held_out & split.str.to_lowercase().is_in(["", "train", "training"]) & ~test & ~validation
    frame = frame.with_columns(
        part=pl.when(test)
        .then(pl.lit(TEST))
        .when(validation)
        .then(pl.lit(VALIDATION))
        .when(train)
        .then(pl.lit(TRAIN))
        .otherwise(pl.lit(""))
    )
    if parts.validation_share:
        aside = [drawn(patient, parts.validation_share, parts.seed) for patient in frame["patient"]]
        moved = (pl.col("part") == TEST) & pl.Series(aside, dtype=pl.Boolean)
        frame = frame.with_columns(part=pl.when(moved).then(pl.lit(VALIDATION)).otherwise(pl.col("part")))
    if not (frame["part"] == TEST).any():
        known = ", ".join(sorted(filter(None, frame["split"].unique()))) or "none"
        raise ConfigError(
            f"no image is in the test part {parts.test!r}", why=f"splits that the sources name: {known}", hint="parts.test: all, or a split"
        )
    refuse_leakage(frame["patient"], frame["part"])
    return frame


def refuse_leakage(patients: pl.Series, parts: pl.Series) -> None:
    """Refuse a split that has a patient in two parts; "" is no part.

    Raises:
        LabelsError: how many patients are in which parts.
    """
    by_patient = pl.DataFrame({"patient": patients, "part": parts}).filter(pl.col("part") != "").unique().group_by("patient").agg("part")
    several = by_patient.filter(pl.col("part").list.len() > 1).with_columns(pl.col("part").list.sort().list.join(" and "))
    if several.height:
        counts = several.group_by("part").len().sort("part").iter_rows()
        raise LabelsError(
            "the split has patients in two parts (leakage)",
            why="; ".join(f"{count} patients in {where}" for where, count in counts),
            hint="a split by patient",
        )


def finding_columns(frame: pl.DataFrame, columns: Sequence[str], wanted: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """Finding as it is judged (as the words spell it, where they know it) -> column of the image table, joined by name, never by position.

    Args:
        columns: the table's finding columns.
        wanted: findings of the recipe; empty: those with words.
        words: findings that have words; empty: every name will do.

    Raises:
        ConfigError: a wanted finding that no source labels or nothing is said about, or none left.
    """
    by_name = {plain_name(column): column for column in columns}
    spelt = {plain_name(word): word for word in words}
    names = [plain_name(name) for name in wanted] or [name for name in by_name if not spelt or name in spelt]
    unlabelled = [name for name, plain in zip(wanted, names, strict=False) if plain not in by_name]
    unsaid = [name for name, plain in zip(wanted, names, strict=False) if spelt and plain not in spelt]
    if unlabelled or unsaid or not names:
        why = "; ".join(
            f"{what}: {', '.join(which)}" for what, which in (("no source labels", unlabelled), ("nothing is said about", unsaid)) if which
        )
        raise ConfigError(
            "the findings cannot be judged" if names else "no finding that the sources label has words",
            why=why or f"the sources label {', '.join(columns) or 'nothing'}",
            hint="`findings` as prompts spell them, or a `template` for findings that the prompts lack",
        )
    return {spelt.get(name, by_name[name]): by_name[name] for name in names}


@dataclass(frozen=True)
class StudyTable:
    """One row per study with a picture.

    Attributes:
        frame: columns study, patient, sex, age, view, source, n_images.
        scores: (N, F) float64.
        labels: (N, F) of 1, 0 and NaN = unknown.
        disagreeing: labels that images of one study contradict each other about; unknown here.
    """

    frame: pl.DataFrame
    scores: NDArray[np.float64]
    labels: NDArray[np.float64]
    disagreeing: int


def studies(images: pl.DataFrame, scores: NDArray[np.float64], findings: Mapping[str, str], recipe: EvaluationRecipe) -> StudyTable:
    """Images to studies, as the recipe's `level` and `aggregate` say.

    Args:
        images: rows of the image table, one per row of scores.
        scores: (N, F); rows of NaN are images that could not be read, and have no part.
        findings: finding -> its label column.
    """
    read = ~np.isnan(scores).all(axis=1) if scores.size else np.zeros(len(images), bool)
    names = list(findings)
    table = images.select("study", "image", "patient", "sex", "age", "view", "source", *dict.fromkeys(findings.values()))
    score_columns = [pl.Series(f"score {k}", scores[:, k]) for k in range(len(names))]
    table = table.with_columns(score_columns).filter(pl.Series(read, dtype=pl.Boolean))
    key = "study" if recipe.level == "study" else "image"
    aggregate = [pl.col(each.name).mean() if recipe.aggregate == "mean" else pl.col(each.name).max() for each in score_columns]
    low = [pl.col(column).min().alias(f"low {k}") for k, column in enumerate(findings.values())]
    high = [pl.col(column).max().alias(f"high {k}") for k, column in enumerate(findings.values())]
    one_view = pl.when(pl.col("view").n_unique() == 1).then(pl.col("view").first()).otherwise(pl.lit("several"))
    facts = [pl.col(name).first() for name in ("patient", "sex", "age", "source")]
    keyed = table.with_columns(pl.col(key).alias("study"))
    grouped = keyed.group_by("study", maintain_order=True).agg(
        *facts, one_view.first().alias("view"), pl.len().alias("n_images"), *aggregate, *low, *high
    )
    lows, highs = (_matrix(grouped, f"{edge} ", len(names)) for edge in ("low", "high"))
    contradicted = (lows != highs) & ~np.isnan(lows)
    return StudyTable(
        grouped.select("study", "patient", "sex", "age", "view", "source", "n_images"),
        _matrix(grouped, "score ", len(names)),
        np.where(contradicted, np.nan, lows),
        int(contradicted.sum()),
    )


def _matrix(frame: pl.DataFrame, prefix: str, count: int) -> NDArray[np.float64]:
    columns = [frame[f"{prefix}{k}"].cast(pl.Float64).fill_null(float("nan")).to_numpy() for k in range(count)]
    return np.stack(columns, axis=1) if columns else np.empty((frame.height, 0))


def part_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over the sorted names of a part's images: the same images, wherever they lie and in whatever order, give the same."""
    digest = hashlib.sha256()
    for source, image in frame.select("source", "image").sort("source", "image").iter_rows():
        digest.update(f"{source}\t{image}\n".encode())
    return digest.hexdigest()


def part_account(frame: pl.DataFrame, name: str) -> dict[str, Any]:
    """What a part is: its splits by name, images, studies and patients, and the hash of its images."""
    part = frame.filter(pl.col("part") == name)
    return {
        "splits": sorted({split or "unnamed" for split in part["split"]}),
        "images": part.height,
        "studies": part["study"].n_unique(),
        "patients": part["patient"].n_unique(),
        "sha256": part_hash(part),
    }
