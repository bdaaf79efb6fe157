"""What a pretraining run will train on: all that can be known, and refused, before the first image is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from engine.data.leak_check import leaks_by_name
from engine.data.pretrain_data import recogniser_of
from engine.data.sources import read_sources
from engine.data.splits import TEST, TRAIN, check_split_names
from engine.errors import ConfigError
from engine.model.bundle_folder import describe, local_folder
from engine.model.init import check_vocabulary
from engine.model.phrases import check_prompt_length, disease_prompts, token_counts

if TYPE_CHECKING:
    from engine.data.sources import ImageTable
    from engine.recipe.pretraining import PretrainRecipe


@dataclass(frozen=True)
class PretrainPlan:
    """The images of a recipe.

    Attributes:
        paired, unpaired: training images with and without text.
        held_out: images that sources hold out.
        patients: patients of the training images.
        texts: different training texts.
        dropped: reason -> rows that cannot be used.
        present: finding -> training images that show it.
        store_bytes: size of the pixel store.
        notices: what to know beforehand, a sentence each.
    """

    paired: int
    unpaired: int
    held_out: int
    patients: int
    texts: int
    dropped: Mapping[str, int]
    present: Mapping[str, int]
    store_bytes: int
    notices: tuple[str, ...]


def plan_pretraining(recipe: PretrainRecipe) -> tuple[PretrainPlan, ImageTable]:
    """The plan of a run, and its image table.

    Raises:
        ConfigError: the entity model is not installed, a pool has no image, one pair has nothing to contrast with, the prompts do not fit
            the text tower, or no image is left.
        InputMissing, ModelError: `model.init` is not on this machine, or cannot be used.
        EngineError: as `read_sources`.
    """
    recogniser_of(recipe)
    if recipe.model.init is not None and local_folder(recipe.model.init) is not None:
        describe(recipe.model.init)
    check_vocabulary(recipe)
    if recipe.batch.paired == 1:
        why = "the loss compares each pair with the others of its batch"
        raise ConfigError("batch.paired: 1 has nothing to contrast", why=why, hint="2 or more")
    table = read_sources(recipe.sources)
    frame = table.frame.filter(~pl.col("held_out"))
    check_split_names(table.frame["split"].unique())
    paired, unpaired = frame.filter("paired"), frame.filter(~pl.col("paired"))
    if recipe.batch.paired and paired.is_empty():
        raise ConfigError("no image with a report is left to train on", hint="set `batch.paired: 0`, or a source with reports")
    if recipe.batch.unpaired and unpaired.is_empty():
        raise ConfigError("no image without a report is left to train on", hint="set `batch.unpaired: 0`, or an `unpaired_share`")
    texts = sorted({text for key in paired["report_key"].unique() for text in table.texts[key]})
    _check_prompts(recipe, texts)
    present = {name: int((frame[name] == 1).sum()) for name in table.findings}
    plan = PretrainPlan(
        paired.height,
        unpaired.height,
        table.frame.height - frame.height,
        frame["patient"].n_unique(),
        len(texts),
        dict(table.dropped["reason"].value_counts().sort("reason").iter_rows()),
        present,
        table.frame.height * recipe.store_size**2,
        (*map(str, leaks_by_name(_parts(table.frame))), *_notices(table, present, recipe)),
    )
    return plan, table


def _parts(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("file", part=pl.when("held_out").then(pl.lit(TEST)).otherwise(pl.lit(TRAIN)))


def _check_prompts(recipe: PretrainRecipe, texts: list[str]) -> None:
    """Compare the disease prompts with the text tower; a new vocabulary is trained on the texts as the run will train it."""
    prompts = disease_prompts(recipe)
    if not prompts:
        return
    if recipe.model.init is None:
        from engine.model.tokenizer import train_tokenizer

        context = recipe.model.text.context
        tokenizer = train_tokenizer([*texts, *recipe.prompt.findings], recipe.tokenizer.vocab or 0, context)
    elif local_folder(recipe.model.init) is not None:
        from engine.model.bundle import load_tokenizer

        tokenizer, own = load_tokenizer(recipe.model.init)
        context = recipe.model.text.context or own
    else:
        return  # the run says what is wrong, or fetches it
    check_prompt_length(recipe, token_counts(tokenizer, prompts), context)


def _notices(table: ImageTable, present: Mapping[str, int], recipe: PretrainRecipe) -> list[str]:
    said = []
    for source in table.facts.get("sources", [table.facts]):
        if missing := source["dropped"].get("file_missing"):
            said.append(f"{missing} of {source['rows']} files that {source['source']} names are missing")
        if taken := source.get("columns_taken"):
            said.append(f"columns of {source['source']} taken: {'; '.join(taken)}")
        if source.get("split", {}).get("by", "patient") != "patient" and source["held_out_images"]:
            said.append(f"{source['source']} has no patient column: what is held out is split by {source['split']['by']}")
        if others := [*source.get("unused_columns", []), *source.get("other_columns", [])]:
            said.append(f"columns of {source['source']} that are not used: {', '.join(others)}")
    if never := [name for name, count in present.items() if not count]:
        said.append(f"findings without a training image that shows them: {', '.join(never)}")
    without = int((~table.frame["held_out"] & ~table.frame["paired"]).sum())
    if without and not recipe.batch.unpaired:
        said.append(f"{without} images without text are not used, as batch.unpaired is 0")
    if recipe.model.init is not None and local_folder(recipe.model.init) is None:
        said.append(f"model.init {recipe.model.init} will be downloaded from Hugging Face")
    return said
