"""The data of one row of an evaluation, and all that can be checked before the first image is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from engine.data.leak_check import leaks_by_name
from engine.data.sources import read_sources
from engine.data.sources.published import missing_pieces
from engine.data.splits import TEST, TRAIN, VALIDATION, part_account, with_parts
from engine.errors import EngineError, ModelError
from engine.evaluation.events import RowPlan
from engine.evaluation.studies import ScoredStudies, age_bands
from engine.evaluation.study_scores import StudyTable, finding_columns, studies
from engine.model.bundle_folder import describe, local_folder
from engine.model.head import findings_of
from engine.recipe.evaluation import EvaluationRecipe, SplitSection
from engine.recipe.evaluation_rows import EvaluationRow
from engine.recipe.loader import find_recipe, load_recipe, recipe_name
from engine.recipe.prompts import PromptRecipe
from engine.scoring.scorers import RANDOM, classifier_columns, spoken
from engine.tables.columns import check_findings, file_hash

SPLITS = (TEST, VALIDATION, TRAIN)
FEATURE_BYTES = 4096
"""Of one image in the feature cache: at most 1,024 float32, as CLIP's largest towers have."""


@dataclass(frozen=True)
class RowData:
    """The images of a row in splits, its findings and their prompts.

    Attributes:
        frame: image table with the column `part`: test, validation, train, or "" for images of none.
        columns: finding -> column of the frame.
        prompts: of exactly these findings; of a classifier not used.
        record: the row's entry of run.json; grows model by model.
    """

    row: EvaluationRow
    frame: pl.DataFrame
    columns: dict[str, str]
    prompts: PromptRecipe
    record: dict[str, Any]

    @property
    def recipe(self) -> EvaluationRecipe:
        """The recipe of the row."""
        return self.row.recipe

    def split(self, name: str) -> pl.DataFrame:
        """The images of a split, in the order of the table."""
        return self.frame.filter(pl.col("part") == name)

    def studies(self, name: str, scores: NDArray[np.float64]) -> tuple[ScoredStudies, StudyTable]:
        """A split's studies from the scores (images, findings) of its images; images of NaN are left out."""
        table = studies(self.split(name), scores, self.columns, self.recipe)
        groups: dict[str, NDArray[np.str_]] = {}
        for column in self.recipe.subgroups:
            values = table.frame[column]
            groups[column] = age_bands(values.to_list(), self.recipe.ages) if column == "age" else np.array(values.to_list(), dtype=str)
        patients = np.array(table.frame["patient"].to_list(), dtype=str)
        return ScoredStudies(tuple(self.columns), table.scores, table.labels, patients, groups), table


def missing_needs(row: EvaluationRow) -> str:
    """The data sets and models that a row lacks, with the keys that set them; "" where nothing is missing."""
    needs = []
    for source, key in zip(row.recipe.sources, row.keys, strict=True):
        # A piece is `key: what to set it to`
        pieces = list(dict.fromkeys(piece.partition(":")[0] for piece in missing_pieces(source)))
        if pieces:
            needs.append(f"data set {source.kind} at {' and '.join(key(piece) for piece in pieces)}")
    models = row.recipe.classifiers or {str(number): name for number, name in enumerate(row.recipe.models)}
    for label, name in models.items():
        try:
            local_folder(name.removeprefix(RANDOM))
        except EngineError:
            needs.append(f"model {name} at {'classifiers' if row.recipe.classifiers else 'models'}.{label}")
    return f"needs {'; '.join(needs)}" if needs else ""


def read_row(row: EvaluationRow, *, calibrate: bool) -> RowData:
    """Read the tables of a row and put its images into splits; no image is read.

    Raises:
        ConfigError, InputMissing, ReadError: a source, or findings that no source labels. LabelsError: leakage.
    """
    recipe = row.recipe
    prompts_file = find_recipe(recipe.prompts)
    prompts = load_recipe(prompts_file, PromptRecipe)
    table = read_sources(recipe.sources)
    parts = recipe.parts
    if calibrate and parts.validation is None and not parts.validation_share:
        parts = SplitSection(test=parts.test, validation_share=recipe.calibration.share, seed=parts.seed)
    frame = with_parts(table.frame, parts)
    known = list(prompts.findings) if recipe.template is None else [*prompts.findings, *table.findings]
    columns = finding_columns(frame, table.findings, recipe.findings, [] if recipe.classifiers else known)
    check_findings(list(columns))
    record: dict[str, Any] = {
        "evaluation": recipe.title,
        "recipe": {"name": row.name, "sha256": row.sha256, "source": recipe.source},
        "prompts": None if recipe.classifiers else {"name": recipe_name(prompts_file), "sha256": file_hash(prompts_file)},
        "sources": table.facts,
        "dropped": dict(table.dropped["reason"].value_counts().sort("reason").iter_rows()),
        "parts": {name: part_account(frame, name) for name in SPLITS},
        "models": [],
    }
    return RowData(row, frame, columns, prompts if recipe.classifiers else spoken(prompts, list(columns), recipe.template), record)


def check_models(data: RowData, against: str | None) -> None:
    """Check the models on this machine without loading them: their files against the hashes they carry, and what each can score.

    Raises:
        InputMissing: `against` is not there. ModelError: a file is missing, truncated or altered, or a soup mixes architectures.
        ConfigError: a classifier lacks a finding of the row.
    """
    recipe = data.recipe
    names = [name for _, models in recipe.contenders for name in models] + ([against] if against else [])
    folders = {name: folder for name in names if (folder := local_folder(name.removeprefix(RANDOM))) is not None}
    for name in folders:
        description = describe(name.removeprefix(RANDOM))
        if (known := findings_of(name.removeprefix(RANDOM))) is not None:
            classifier_columns(description.name, known, list(data.columns))
    configs = [json.loads((folders[name] / "config.json").read_text("utf-8")) for name in recipe.models if name in folders]
    if recipe.ensemble == "weight_soup" and any(config != configs[0] for config in configs):
        number = next(number for number, config in enumerate(configs, 1) if config != configs[0])
        raise ModelError(f"model {number} of the soup has another architecture than the first", hint="ensemble: prob_mean")


def row_plan(data: RowData) -> RowPlan:
    """What will be measured: images, studies and patients by split, labels by finding and split, and what to know beforehand."""
    counts = {name: {key: each[key] for key in ("images", "studies", "patients")} for name, each in data.record["parts"].items()}
    labels: dict[str, dict[str, tuple[int, int]]] = {finding: {} for finding in data.columns}
    for name in SPLITS:
        images = data.split(name)
        known, _ = data.studies(name, np.zeros((images.height, len(data.columns))))
        for k, finding in enumerate(data.columns):
            _, y, _ = known.known(k)
            labels[finding][name] = (int((y == 1).sum()), int((y == 0).sum()))
    notices = (*map(str, leaks_by_name(data.frame)), *_notices(labels, data.record["dropped"], data.recipe.fewest))
    return RowPlan(data.recipe.title, "", counts, labels, notices)


def _notices(labels: Mapping[str, Mapping[str, tuple[int, int]]], dropped: Mapping[str, int], fewest: int) -> list[str]:
    notices = []
    one_class = [name for name, by_split in labels.items() if not min(by_split[TEST])]
    if len(one_class) == len(labels):
        notices.append("no finding has test studies with and without it: no AUROC can be computed")
    elif one_class:
        notices.append(f"no AUROC, because the test studies have no positive or no negative: {', '.join(one_class)}")
    few = [f"{name} ({min(by_split[TEST])})" for name, by_split in labels.items() if 0 < min(by_split[TEST]) < fewest]
    if few:
        notices.append(f"wide intervals, because fewer than {fewest} test studies are positive or negative: {', '.join(few)}")
    if missing := dropped.get("file_missing"):
        notices.append(f"{missing} images that the tables name are missing")
    return notices
