"""The rows of an evaluation run: one recipe, or those of a set, with the folders that the set gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engine.recipe.evaluation import EvaluationRecipe, EvaluationSet
from engine.recipe.labelled_sources import PublishedSource, RsnaSource
from engine.recipe.loader import check_recipe, find_recipe, kind_of, load_recipe, read_recipe, recipe_name


@dataclass(frozen=True)
class EvaluationRow:
    """One evaluation of a run.

    Attributes:
        name: the recipe's name.
        sha256: of the recipe as it is run, with defaults, bases and settings.
        keys: for each source, a function from its key (root, file, lists.test) to the key that sets it in the recipe given.
    """

    name: str
    recipe: EvaluationRecipe
    keys: tuple[Callable[[str], str], ...]

    @property
    def sha256(self) -> str:
        """See the class."""
        return hashlib.sha256(self.recipe.model_dump_json().encode()).hexdigest()


def rows_of(recipe: str | Path, settings: Sequence[str] = (), model: str | None = None) -> tuple[list[EvaluationRow], bool]:
    """The rows, and whether the recipe is a set.

    Args:
        recipe: an evaluation recipe or a set: a path, else a shipped name.
        settings: `key=value` of that recipe.
        model: replaces `models`; in a set, those of rows with a single model.

    Raises:
        InputMissing, RecipeError, UsageError: as `load_recipe`.
    """
    path, document = read_recipe(recipe)
    if kind_of(document.values) != "evaluations":
        single = check_recipe(document, EvaluationRecipe, settings, name=path.name)
        keys: tuple[Callable[[str], str], ...] = tuple(f"sources.{number}.{{}}".format for number in range(len(single.sources)))
        return [EvaluationRow(recipe_name(path), _with_model(single, model), keys)], False
    several = check_recipe(document, EvaluationSet, settings, name=path.name)
    rows = []
    for name in several.rows:
        beside = path.parent / name
        file = beside if beside.is_file() else find_recipe(name)
        each, keys = _rooted(load_recipe(file, EvaluationRecipe), several)
        each = _with_model(each, model) if len(each.models) == 1 else each
        rows.append(EvaluationRow(recipe_name(file), each, keys))
    return rows, True


def _with_model(recipe: EvaluationRecipe, model: str | None) -> EvaluationRecipe:
    return recipe if model is None or recipe.classifiers else recipe.model_copy(update={"models": (model,)})


def _rooted(recipe: EvaluationRecipe, several: EvaluationSet) -> tuple[EvaluationRecipe, tuple[Callable[[str], str], ...]]:
    """The recipe with the set's `roots` and `lists` applied to its sources, and the keys that set them."""
    sources: list[Any] = []
    keys: list[Callable[[str], str]] = []
    roots: dict[str, str] = {str(kind): root for kind, root in several.roots.items()}
    for number, source in enumerate(recipe.sources):
        if not isinstance(source, PublishedSource):
            sources.append(source)
            keys.append((f"sources.{number}.{{}} of " + recipe.title.replace("{", "{{").replace("}", "}}")).format)
            continue
        changes: dict[str, Any] = {"root": roots[source.kind]} if source.kind in roots else {}
        if isinstance(source, RsnaSource) and source.split == "medklip" and "rsna" in several.lists:
            changes["lists"] = {**source.lists, "test": several.lists["rsna"]}
        sources.append(source.model_copy(update=changes))
        keys.append(partial(_key_of_set, source.kind))
    return recipe.model_copy(update={"sources": tuple(sources)}), tuple(keys)


def _key_of_set(kind: str, key: str) -> str:
    """`root` of a source is `roots.KIND` of the set, and so on; other keys are set in the row's own recipe."""
    return {"root": f"roots.{kind}", "lists.test": f"lists.{kind}"}.get(key, f"{key} of its own recipe")
