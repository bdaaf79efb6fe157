"""Scores and labels of images, combined into studies; findings matched by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.recipe.evaluation import EvaluationRecipe
from engine.recipe.section import plain_name


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
    """One row per study with an image.

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
