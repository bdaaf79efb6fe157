"""Findings of a scoring run, and their scorer: those of a prompt recipe, or those of a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.model.head import findings_of
from engine.model.phrases import check_phrases, check_prompt_length, disease_prompts, token_counts
from engine.recipe.evaluation import EvaluationRecipe
from engine.recipe.finetuning import FinetuneRecipe
from engine.recipe.loader import find_recipe, load_recipe
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.prompts import PromptRecipe
from engine.scoring.heatmaps import Margins, head_margins, word_margins
from engine.scoring.scorers import HeadScorer, WordScorer
from engine.tables.columns import file_hash

if TYPE_CHECKING:
    from engine.model.bundle import Bundle


@dataclass(frozen=True)
class ScoringTargets:
    """The findings to be scored: those of a prompt recipe, or (`file` and `recipe` None) those of the classifier."""

    findings: tuple[str, ...]
    file: Path | None = None
    recipe: PromptRecipe | None = None

    def scorer(self, bundle: Bundle) -> WordScorer | HeadScorer:
        """The scorer, its prompts embedded. Raises NotFinite where the model gives NaN."""
        if self.recipe is None:
            assert bundle.head is not None  # checked by `scoring_targets`
            return HeadScorer(bundle.head, tuple(range(len(self.findings))))
        return WordScorer.of(bundle, self.recipe)

    def notices(self, bundle: Bundle) -> list[str]:
        """Warnings about phrases that the model cuts. Raises ConfigError where positive and negative phrases are the same to it."""
        if self.recipe is None:
            return []
        return check_phrases(self.recipe.findings, bundle.tokenizer, bundle.context, bundle.name)

    def margins(self, bundle: Bundle, scorer: WordScorer | HeadScorer) -> Margins:
        """The margins that heatmaps compute for a patch."""
        if isinstance(scorer, WordScorer):
            return word_margins(scorer.words, score=scorer.recipe.score, pool=scorer.recipe.pool)
        assert bundle.head is not None  # checked by `scoring_targets`
        return head_margins(bundle.head)

    def account(self, bundle: Bundle) -> dict[str, Any]:
        """Name, version, source and hash for run.json."""
        if self.file is None or self.recipe is None:
            assert bundle.head is not None  # checked by `scoring_targets`
            return {"name": f"the head of {bundle.name}", "version": None, "source": "classifier", "sha256": bundle.head.content_hash}
        return {
            "name": self.file.stem,
            "version": self.recipe.version,
            "source": self.recipe.source,
            "sha256": file_hash(self.file),
        }


def scoring_targets(prompts: str | Path | None, model: str | Path) -> ScoringTargets:
    """The findings of `mmclip score`, before the model is loaded.

    Args:
        prompts: a prompt recipe, a path or a shipped name; None for a classifier.

    Raises:
        UsageError: a classifier with prompts, or a model without a head and without prompts.
        InputMissing, RecipeError: no such recipe, or a faulty one.
    """
    own = findings_of(model)
    if prompts is None:
        if own is None:
            raise UsageError("--prompts is missing", why="the model is not a classifier, and has no findings", hint="--prompts chest14")
        return ScoringTargets(own)
    if own is not None:
        raise UsageError(
            "the model is a classifier with its own findings, and --prompts names others",
            why="fine-tuning has moved its image features away from its words",
            hint="leave out --prompts, or take the model that it was made from",
        )
    file = find_recipe(prompts)
    recipe = load_recipe(file, PromptRecipe)
    return ScoringTargets(tuple(recipe.findings), file, recipe)


def prompt_warnings(recipe: object, model: str) -> list[str]:
    """Warnings about the phrases that a recipe of any kind gives to a model: those that its text tower cuts.

    Raises:
        ConfigError: positive and negative phrases are the same to the model, or the disease prompts of pretraining do not fit it.
        InputMissing, ModelError, RecipeError: the model, or the prompt recipe that the recipe names, cannot be read.
    """
    from engine.model.bundle import load_tokenizer

    if isinstance(recipe, PretrainRecipe):
        tokenizer, context = load_tokenizer(model)
        check_prompt_length(recipe, token_counts(tokenizer, disease_prompts(recipe)), context)
        return []
    if isinstance(recipe, FinetuneRecipe | EvaluationRecipe):
        recipe = load_recipe(recipe.prompts if isinstance(recipe, EvaluationRecipe) else recipe.head.prompts, PromptRecipe)
    if not isinstance(recipe, PromptRecipe):
        return []
    tokenizer, context = load_tokenizer(model)
    return check_phrases(recipe.findings, tokenizer, context, Path(model).name)
