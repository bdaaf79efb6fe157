"""Load a recipe by path or shipped name: find the file, merge it with its bases, check it against its type, report all faults at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from engine.errors import Fault, InputMissing, ReadError, RecipeError, UsageError
from engine.recipe.composition import MOST_BASES, at_point, difference_faults, over_base, overridden, sweep_points, without_composition_keys
from engine.recipe.document import MAX_BYTES, MAX_FAULTS, Document, KeyPath, Value, dotted, read_document
from engine.recipe.evaluation import EvaluationRecipe, EvaluationSet, PublishedFigures
from engine.recipe.finetuning import FinetuneRecipe
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.prompts import PromptRecipe, WeakSentences
from engine.recipe.schema import near_name, validation_faults
from engine.recipe.section import Recipe

KINDS: dict[str, type[Recipe]] = {
    "pretraining": PretrainRecipe,
    "finetuning": FinetuneRecipe,
    "prompts": PromptRecipe,
    "sentences": WeakSentences,
    "evaluation": EvaluationRecipe,
    "evaluations": EvaluationSet,
    "published": PublishedFigures,
}
"""The recipe types by name."""

R = TypeVar("R", bound=Recipe)

_ENGINE = Path(__file__).resolve().parent.parent


def load_recipe(name: str | Path, kind: type[R], overrides: Sequence[str] = ()) -> R:
    """A recipe, checked and frozen.

    Args:
        name: a path, else a shipped recipe's name with or without `.yaml`.
        kind: the type it must have.
        overrides: settings `key.sub=value` that replace the file's.

    Raises:
        InputMissing: no such recipe.
        RecipeError: every fault of the file, each with its line.
        UsageError: an override of an unknown key, or with a value that cannot be read.
    """
    path, document = read_recipe(name)
    return check_recipe(document, kind, overrides, name=label(path, document))


def check_recipe(document: Document, kind: type[R], overrides: Sequence[str] = (), *, name: str) -> R:
    """The typed recipe that a document holds; see `load_recipe` for the errors."""
    if document.points and not document.faults:
        called = f"{document.name}@{document.points[0]}"
        raise UsageError(f"recipe {name} is a sweep", why=f"of {len(document.points)} recipes", hint=f"one of them, for instance {called}")
    if not isinstance(document.values, dict):
        empty = Fault(1, "", "is empty" if document.values is None else "should be a section of keys")
        raise RecipeError(name, document.faults or [empty])
    wanted = next((each for each, its in KINDS.items() if its is kind), None)
    looks = kind_of(document.values, wanted)
    if wanted and looks and looks != wanted:
        raise RecipeError(name, [Fault(document.line(()), "", f"this is a {looks} recipe; a {wanted} recipe is needed")])
    values, paths = overridden(document.values, overrides, kind)
    lines = {path: line for path, line in document.lines.items() if not any(path[: len(each)] == each for each in paths)}
    lines.update(dict.fromkeys(paths, 0))
    files = {path: file for path, file in document.files.items() if lines.get(path)}
    document = dataclasses.replace(document, values=values, lines=lines, files=files)
    faults = list(document.faults)
    try:
        # JSON's strict mode: lists may become tuples, no other type is converted ("yes" is not True, 1.0 is not 1)
        recipe = kind.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        unread = {dotted(path) for path in document.unread - set(paths)}
        faults += [fault for fault in validation_faults(error, kind, document) if fault.path not in unread]
        if len(faults) > MAX_FAULTS:
            faults = [*faults[:MAX_FAULTS], Fault(faults[MAX_FAULTS].line, "", f"and {len(faults) - MAX_FAULTS} more faults")]
    if faults:
        raise RecipeError(name, faults)
    return recipe


def kind_of(values: Value, wanted: str | None = None) -> str | None:
    """The kind that shares most keys with the values, or most near names (`findngs`) if no key is shared; None if it shares neither.

    Ties: `wanted`, else the kind with the fewest required keys missing.
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


def read_recipe(name: str | Path) -> tuple[Path, Document]:
    """The file of a recipe and its document, merged over its bases (composition.py); not yet checked against a type.

    Raises:
        InputMissing: no such recipe.
        ReadError: the file exists and cannot be read.
        UsageError: the sweep has no such point.
    """
    path, point = _find(name)
    return path, _resolved(path, point, ())


def _resolved(path: Path, point: str | None, above: tuple[Path, ...]) -> Document:
    """The document of a file, merged with its bases; `above` are the files that build on it."""
    written = dataclasses.replace(_read(path), name=recipe_name(path))
    if not isinstance(written.values, dict):
        return written
    document = without_composition_keys(written)
    faults: list[Fault] = []
    if "base" in written.values:
        try:
            document = over_base(document, _base(written, path, above))
        except _NoBase as error:
            faults.append(written.fault(("base",), str(error)))
    if "differs" in written.values:
        if document.base is not None:
            faults += difference_faults(document, written.values["differs"], written)
        elif not faults:
            faults.append(written.fault(("differs",), "lists the keys that differ from `base`, which is missing"))
    points: dict[str, tuple[KeyPath, Value]] = {}
    if "sweep" in written.values:
        points, wrong = sweep_points(written)
        faults += wrong
    document = dataclasses.replace(document, faults=(*faults, *document.faults))
    if point is None:
        return dataclasses.replace(document, points=tuple(points))
    if point not in points:
        why = f"its points are {', '.join(points)}" if points else "it is not a sweep"
        raise UsageError(f"recipe {document.name} has no point {point}", why=why, hint=f"mmclip recipes show {document.name}")
    key, value = points[point]
    return dataclasses.replace(at_point(document, key, value, written.fault(("sweep",), "").line), name=f"{document.name}@{point}")


class _NoBase(Exception):  # noqa: N818 - becomes a fault of the recipe that names it
    pass


def _base(written: Document, path: Path, above: tuple[Path, ...]) -> Document:
    """The base that a recipe names, resolved."""
    assert isinstance(written.values, dict)
    name, chain = written.values["base"], (*above, path.resolve())
    if not isinstance(name, str) or not name:
        raise _NoBase("should be the name of a recipe")
    try:
        found, point = _find(name, path.parent)
        if found.resolve() in chain:
            ring = [recipe_name(each) for each in chain[chain.index(found.resolve()) :]]
            raise _NoBase(f"leads back to itself: {' -> '.join([*ring, ring[0]])}")
        if len(chain) > MOST_BASES:
            raise _NoBase(f"a chain of more than {MOST_BASES} bases")
        base = _resolved(found, point, chain)
    except (InputMissing, ReadError, UsageError) as error:
        raise _NoBase(str(error).rstrip(".")) from None
    if base.points:
        raise _NoBase(f"{name} is a sweep; give one of its points, for instance {name}@{base.points[0]}")
    if not isinstance(base.values, dict):
        raise _NoBase(f"{name} has no keys")
    return base


def _read(path: Path) -> Document:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ReadError(f"recipe {path.name} cannot be read", why=error.strerror or type(error).__name__) from None
    return read_document(raw)


def find_recipe(name: str | Path, *, beside: Path | None = None) -> Path:
    """The file of a recipe: a path, else a shipped recipe's name with or without `.yaml`; `@POINT` of a sweep is ignored.

    Args:
        beside: the folder that relative paths start from; None: the current one.

    Raises:
        InputMissing: neither exists; the nearest shipped name is suggested.
    """
    return _find(name, beside)[0]


def _find(name: str | Path, beside: Path | None = None) -> tuple[Path, str | None]:
    """The file of a recipe, and the point of its sweep in the name."""
    shipped = {recipe_name(each): each for each in shipped_recipes()}
    whole = str(name)
    stem, at, point = whole.rpartition("@")
    for each, chosen in ((whole, None), (stem, point)) if at else ((whole, None),):
        path = (beside or Path()) / each
        if path.is_file():
            return path, chosen
        if (found := Path(each).as_posix().removesuffix(".yaml")) in shipped:
            return shipped[found], chosen
    path = Path(name)
    if path.is_dir():
        raise InputMissing(f"{name} is a folder, not a recipe", hint="the path of a .yaml file, or mmclip recipes list")
    # the file name alone also matches recipes/tiny.yaml outside a checkout, and table3_random without its folder
    last = path.name.removesuffix(".yaml")
    near = next((each for each in shipped if each.rpartition("/")[2] == last), None)
    near = near or near_name(path.as_posix().removesuffix(".yaml"), shipped) or near_name(last, shipped)
    hint = f"{near}, which mmclip ships" if near else "mmclip recipes list"
    raise InputMissing(f"no recipe {name}", hint=hint)


def shipped_recipes() -> list[Path]:
    """The recipes that mmclip ships, by name: in `engine/recipes` (wheel) or `recipes` (checkout), with subfolders."""
    return sorted(_shipped_folder().rglob("*.yaml"), key=recipe_name)


def recipe_name(path: Path) -> str:
    """The name of a recipe: a shipped one by its relative path (`tiny`, `paper/table3_random`), others by file name; no `.yaml`."""
    folder, place = _shipped_folder().resolve(), path.resolve()
    return place.relative_to(folder).with_suffix("").as_posix() if place.is_relative_to(folder) else path.stem


def _shipped_folder() -> Path:
    inside = _ENGINE / "recipes"
    return inside if inside.is_dir() else _ENGINE.parent / "recipes"


def recipe_names() -> list[str]:
    """Every shipped recipe name: one for each file, and one for each point of a sweep."""
    names = []
    for path in shipped_recipes():
        document = read_recipe(path)[1]
        names += [f"{document.name}@{point}" for point in document.points] or [document.name]
    return names


def label(path: Path, document: Document) -> str:
    """The name of a recipe in messages: its file name, or the name of a shipped one; with the point of a sweep."""
    return path.name if document.name == path.stem else document.name


def run_name(name: str | Path) -> str:
    """The default name of a run: the recipe's name, with the point of a sweep (`paper/figure6@0.5`)."""
    path, point = _find(name)
    return recipe_name(path) + (f"@{point}" if point is not None else "")
