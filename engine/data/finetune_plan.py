"""What a fine-tuning run will learn from, choose by and judge: all that can be known without reading an image.

The run makes this plan before its first image, so that a dry run refuses what the run refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from engine.data.label_fractions import FractionSplit, fraction_split
from engine.data.leak_check import leaks_by_name
from engine.data.sources import read_sources
from engine.data.splits import PARTS, Split, check_own_splits, check_splits, split_counts, wanted_findings, with_uses
from engine.recipe.sources import TableSource

if TYPE_CHECKING:
    from engine.data.sources import ImageTable
    from engine.recipe.finetuning import FinetuneRecipe

FEW = 10
"""Fewer positive or negative test images than this give wide intervals; the plan says so."""


@dataclass(frozen=True)
class FinetunePlan:
    """The labelled images of a recipe in splits.

    Attributes:
        findings: what is learned.
        images, patients: of each split.
        labels: split -> finding -> (positive, negative) images.
        fractions: the training split of each fraction.
        split_by: what the draw goes by: patient, or study or image where no patient is named.
        dropped: reason -> rows of the tables that cannot be used.
        unlabelled: images without a label of these findings.
        notices: what to know beforehand, a sentence each.
    """

    findings: tuple[str, ...]
    images: Mapping[str, int]
    patients: Mapping[str, int]
    labels: Mapping[str, Mapping[str, tuple[int, int]]]
    fractions: tuple[FractionSplit, ...]
    split_by: str
    dropped: Mapping[str, int]
    unlabelled: int
    notices: tuple[str, ...]


def finetune_table(recipe: FinetuneRecipe) -> ImageTable:
    """The image table of a recipe; tables are asked for the findings that the recipe names.

    Raises:
        EngineError: as `read_sources`.
    """
    if not recipe.findings:
        return read_sources(recipe.sources)
    (source, *others) = recipe.sources
    if others or not isinstance(source, TableSource):
        return read_sources(recipe.sources)
    return read_sources([source.model_copy(update={"findings": _missing(recipe.findings, source)})])


def _missing(findings: Sequence[str], source: TableSource) -> tuple[str, ...]:
    """The findings to look for in a table: those that the recipe names and the table's own settings do not bring."""
    brought = {*(name for name in source.rename.values() if name), *source.exhaustive, *source.implies}
    implied = {name for each in source.implies.values() for name in each}
    return tuple(dict.fromkeys((*source.findings, *(name for name in findings if name not in brought | implied))))


def split_by_of(facts: Mapping[str, Any]) -> str:
    """What the splits of the sources go by: the coarsest name is the weakest, `image` before `study` before `patient`."""
    named = {each.get("split", {}).get("by", "patient") for each in facts.get("sources", [facts])}
    return next(by for by in ("image", "study", "patient") if by in named or by == "patient")


def plan_finetuning(recipe: FinetuneRecipe, fractions: Sequence[float], table: ImageTable) -> FinetunePlan:
    """The plan of a run.

    Args:
        fractions: shares of the training patients.
        table: of `finetune_table`.

    Raises:
        LabelsError: leakage, or names of splits that are not known.
        ConfigError: no finding, a split without images, nothing that can be judged or learned.
    """
    findings = wanted_findings(recipe, table)
    frame = table.frame
    check_own_splits(frame)
    known = frame.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in findings))
    labelled = with_uses(known, findings, share=recipe.validation.share, seed=recipe.validation.seed)
    check_splits(labelled, findings, frame.height)
    split = Split(labelled, {}, 0)
    drawn = [fraction_split(split, findings, share, recipe.seed, scaled=recipe.validation.scaled) for share in fractions]
    for each in drawn:
        _ = each.learned  # raises where nothing can be learned
    parts = {part: split.part(part) for part in PARTS}
    counts = split_counts(labelled, findings)
    by = split_by_of(table.facts)
    return FinetunePlan(
        tuple(findings),
        {part: rows.height for part, rows in parts.items()},
        {part: rows["patient"].n_unique() for part, rows in parts.items()},
        counts,
        tuple(each.drawn for each in drawn),
        by,
        dict(table.dropped["reason"].value_counts().sort("reason").iter_rows()),
        frame.height - labelled.height,
        (*map(str, leaks_by_name(labelled)), *_notices(recipe, table.facts, counts, by)),
    )


def _notices(recipe: FinetuneRecipe, facts: Mapping[str, Any], counts: Mapping[str, Mapping[str, tuple[int, int]]], by: str) -> list[str]:
    said = []
    for number, source in enumerate(facts.get("sources", [facts])):
        name = source["source"]
        if missing := source["dropped"].get("file_missing"):
            said.append(f"{missing} of {source['rows']} files that {name} names are missing")
        if taken := source.get("columns_taken"):
            said.append(f"columns of {name} taken: {'; '.join(taken)}")
        if source.get("split", {}).get("by", "patient") != "patient":
            said.append(
                f"{name} has no patient column: the split is by {by}, images of one patient may be on both sides, and figures are then "
                f"too good; --set sources.{number}.columns.patient=COLUMN"
            )
        if blank := source.get("rows_without_patient"):
            said.append(f"{blank} rows of {name} have no patient, and each counts as a patient of its own")
        if uncertain := source.get("uncertain_cells"):
            said.append(f"{uncertain} uncertain labels (-1) of {name}, read as {getattr(recipe.sources[number], 'uncertain', 'unknown')}")
        if unused := source.get("unused_columns"):
            names = ", ".join(unused)
            said.append(f"columns of {name} that hold labels and are not learned: {names}; --findings {','.join(unused)} to learn them")
        if others := source.get("other_columns"):
            said.append(f"columns of {name} that are not used: {', '.join(others)}")
    few = [f"{name} ({min(pair)})" for name, pair in counts["test"].items() if 0 < min(pair) < FEW]
    if few:
        said.append(f"wide intervals, because fewer than {FEW} test images are positive or negative: {', '.join(few)}")
    one_class = [name for name, pair in counts["test"].items() if not min(pair)]
    if one_class:
        said.append(f"no AUROC, because the test images have no positive or no negative: {', '.join(one_class)}")
    return said
