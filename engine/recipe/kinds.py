"""The kinds of recipe there are, and which one a document looks like."""

from __future__ import annotations

from engine.recipe.base import Recipe
from engine.recipe.document import Value
from engine.recipe.evaluation import EvaluationRecipe, EvaluationSet, PublishedFigures
from engine.recipe.finetuning import FinetuneRecipe
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.prompts import PromptRecipe
from engine.recipe.sentences import WeakSentences
from engine.recipe.shape import near_name

KINDS: dict[str, type[Recipe]] = {
    "pretraining": PretrainRecipe,
    "finetuning": FinetuneRecipe,
    "prompts": PromptRecipe,
    "sentences": WeakSentences,
    "evaluation": EvaluationRecipe,
    "evaluations": EvaluationSet,
    "published": PublishedFigures,
}


def kind_of(values: Value, wanted: str | None = None) -> str | None:
    """The kind whose keys the values share most, near names (`findngs`) where none is shared; None when they share none either way.

    Of several that share as many: `wanted`, else the one of whose required keys the fewest are missing.
    """
    if not isinstance(values, dict):
        return None
    own = {name: kind.model_fields.keys() - Recipe.model_fields.keys() for name, kind in KINDS.items()}
    known = set().union(*own.values())
    keys = {str(key) for key in values}
    if not keys & known:
        keys = {near_name(key, known) or key for key in keys - Recipe.model_fields.keys()}
    shared = {name: len(keys & wants) for name, wants in own.items()}
    missing = {name: sum(each.is_required() and key not in keys for key, each in kind.model_fields.items()) for name, kind in KINDS.items()}
    best = max(shared, key=lambda name: (shared[name], name == wanted, -missing[name]))
    return best if shared[best] else None
