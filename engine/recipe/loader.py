"""From a recipe's name to a checked, typed, frozen recipe: find the file, read it strictly, report every fault at once."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from engine.errors import Fault, InputMissing, ReadError, RecipeError, UsageError
from engine.recipe.document import MAX_BYTES, MAX_FAULTS, Document, KeyPath, Value, dotted, read_document, read_value
from engine.recipe.evaluation import EvaluationRecipe, EvaluationSet, PublishedFigures
from engine.recipe.finetuning import FinetuneRecipe
from engine.recipe.lineage import MOST_BASES, at_point, difference_faults, put_over, sweep_points, without_lineage
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.prompts import PromptRecipe, WeakSentences
from engine.recipe.section import Recipe
from engine.recipe.shape import keys_at, near_key, near_name, takes_any_key, validation_faults

# Single settings given outside the file, as `key.sub=value`, put over a recipe's values before they are checked.


def overridden(values: Value, settings: Sequence[str], kind: type[BaseModel]) -> tuple[Value, tuple[KeyPath, ...]]:
    """The values with every setting in its place, and the paths that were set; the values given stay as they are.

    Args:
        values: what a recipe file holds.
        settings: `optimizer.lr=1e-4`, `sources.0.root=/data/cxr`, `warmup.objectives=[mim]`. Later ones win.
        kind: the recipe's type, for the names that may be set.

    Raises:
        UsageError: no `=`, an unknown key (with its nearest name), an index beyond the list, a value that cannot be read.
    """
    values = copy.deepcopy(values)
    paths = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"setting {setting!r} has no key=value", hint="for instance optimizer.lr=1e-4")
        path: KeyPath = tuple(int(part) if re.fullmatch("[0-9]{1,6}", part) else part for part in name.split("."))
        try:
            value = read_value(text)
        except ValueError as error:
            raise UsageError(f"setting {name} cannot be read", why=str(error)) from None
        _put(values, path, value, kind)
        paths.append(path)
    return values, tuple(paths)


def _put(values: Value, path: KeyPath, value: Value, kind: type[BaseModel]) -> None:
    here = values
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(here, list):
            if not isinstance(part, int) or part >= len(here):
                why = f"{dotted(path[:depth])} has {len(here)} item{'s' if len(here) != 1 else ''}, counted from 0"
                raise UsageError(f"no such key: {dotted(path)}", why=why)
            if last:
                here[part] = value
            else:
                here = here[part]
            continue
        if not isinstance(here, dict):
            raise UsageError(f"no such key: {dotted(path)}", why=f"{dotted(path[:depth]) or 'the recipe'} holds no keys")
        name = str(part)
        if not takes_any_key(kind, path[:depth], values):
            _check_name(kind, (*path[:depth], name), path[depth + 1 :], values)
        if last:
            here[name] = value
        else:
            if here.get(name) is None:
                here[name] = {}
            here = here[name]


def _check_name(kind: type[BaseModel], path: KeyPath, rest: KeyPath, values: Value) -> None:
    known = keys_at(kind, path[:-1], values)
    if known is not None and path[-1] in known:
        return
    near = near_key(kind, path, values)
    hint = ".".join([near, *map(str, rest)]) if near else f"one of {', '.join(known)}" if known else ""
    raise UsageError(f"no such key: {dotted((*path, *rest))}", hint=hint)


# The kinds of recipe there are, and which one a document looks like.

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


R = TypeVar("R", bound=Recipe)

_ENGINE = Path(__file__).resolve().parent.parent


def shipped_recipes() -> list[Path]:
    """The recipes that come with mmclip, by name: `engine/recipes` in a wheel, `recipes` beside `engine` in a checkout, subfolders too."""
    return sorted(_shipped_folder().rglob("*.yaml"), key=recipe_name)


def recipe_name(path: Path) -> str:
    """How a recipe is called: a shipped one by its place (`tiny`, `paper/table3_random`), another by its file name; without `.yaml`."""
    folder, place = _shipped_folder().resolve(), path.resolve()
    return place.relative_to(folder).with_suffix("").as_posix() if place.is_relative_to(folder) else path.stem


def _shipped_folder() -> Path:
    inside = _ENGINE / "recipes"
    return inside if inside.is_dir() else _ENGINE.parent / "recipes"


def recipe_names() -> list[str]:
    """Every shipped recipe that can be run or read by name: the files, and each point of those that are sweeps."""
    names = []
    for path in shipped_recipes():
        document = read_recipe(path)[1]
        names += [f"{document.name}@{point}" for point in document.points] or [document.name]
    return names


def find_recipe(name: str | Path, *, beside: Path | None = None) -> Path:
    """The file of a recipe: a path, else a shipped recipe's name with or without `.yaml`; `@POINT` of a sweep is left out.

    Args:
        beside: the folder that a path starts from; None: the current one.

    Raises:
        InputMissing: there is neither; the nearest shipped name is suggested.
    """
    return _find(name, beside)[0]


def _find(name: str | Path, beside: Path | None = None) -> tuple[Path, str | None]:
    """The file of a recipe, and the point of its sweep that the name asks for."""
    shipped = {recipe_name(each): each for each in shipped_recipes()}
    whole = str(name)
    stem, at, point = whole.rpartition("@")
    for asked, chosen in ((whole, None), (stem, point)) if at else ((whole, None),):
        path = (beside or Path()) / asked
        if path.is_file():
            return path, chosen
        if (found := Path(asked).as_posix().removesuffix(".yaml")) in shipped:
            return shipped[found], chosen
    path = Path(name)
    if path.is_dir():
        raise InputMissing(f"{name} is a folder, not a recipe", hint="the path of a .yaml file, or mmclip recipes list")
    # the last part alone helps who wrote recipes/tiny.yaml away from a checkout, or table3_random without its folder
    last = path.name.removesuffix(".yaml")
    near = next((each for each in shipped if each.rpartition("/")[2] == last), None)
    near = near or near_name(path.as_posix().removesuffix(".yaml"), shipped) or near_name(last, shipped)
    hint = f"{near}, which mmclip ships" if near else "mmclip recipes list"
    raise InputMissing(f"no recipe {name}", hint=hint)


def read_recipe(name: str | Path) -> tuple[Path, Document]:
    """The file of a recipe and what it says, put over what it builds on (lineage.py); not yet checked against a type.

    Raises:
        InputMissing: no such recipe.
        ReadError: the file is there and cannot be read.
        UsageError: a point that its sweep does not have.
    """
    path, point = _find(name)
    return path, _resolved(path, point, ())


def _resolved(path: Path, point: str | None, above: tuple[Path, ...]) -> Document:
    """The recipe of a file with its bases; `above` are the files that build on it."""
    written = dataclasses.replace(_read(path), name=recipe_name(path))
    if not isinstance(written.values, dict):
        return written
    document = without_lineage(written)
    faults: list[Fault] = []
    if "base" in written.values:
        try:
            document = put_over(document, _base(written, path, above))
        except _NoBase as error:
            faults.append(written.fault(("base",), str(error)))
    if "differs" in written.values:
        if document.base is not None:
            faults += difference_faults(document, written.values["differs"], written)
        elif not faults:
            faults.append(written.fault(("differs",), "says how this recipe differs from its `base`, which is missing"))
    points: dict[str, tuple[KeyPath, Value]] = {}
    if "sweep" in written.values:
        points, wrong = sweep_points(written)
        faults += wrong
    document = dataclasses.replace(document, faults=(*faults, *document.faults))
    if point is None:
        return dataclasses.replace(document, points=tuple(points))
    if point not in points:
        why = f"it sweeps {', '.join(points)}" if points else "it is no sweep"
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
            raise _NoBase(f"comes back to itself: {' -> '.join([*ring, ring[0]])}")
        if len(chain) > MOST_BASES:
            raise _NoBase(f"more than {MOST_BASES} recipes build on one another here")
        base = _resolved(found, point, chain)
    except (InputMissing, ReadError, UsageError) as error:
        raise _NoBase(str(error).rstrip(".")) from None
    if base.points:
        raise _NoBase(f"{name} is a sweep; name one of its points, for instance {name}@{base.points[0]}")
    if not isinstance(base.values, dict):
        raise _NoBase(f"{name} holds no keys")
    return base


def _read(path: Path) -> Document:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ReadError(f"recipe {path.name} cannot be read", why=error.strerror or type(error).__name__) from None
    return read_document(raw)


def load_recipe(name: str | Path, kind: type[R], overrides: Sequence[str] = ()) -> R:
    """A recipe, checked and frozen.

    Args:
        name: a path, else a shipped recipe's name with or without `.yaml`.
        kind: the type it must have.
        overrides: settings `key.sub=value` that take the place of the file's.

    Raises:
        InputMissing: no such recipe.
        RecipeError: every fault of the file, each with its line.
        UsageError: an override that names no key of the recipe, or cannot be read.
    """
    path, document = read_recipe(name)
    return check_recipe(document, kind, overrides, name=label(path, document))


def label(path: Path, document: Document) -> str:
    """How messages call a recipe: its file's name, or the place of a shipped one and the point of a sweep."""
    return path.name if document.name == path.stem else document.name


def run_name(name: str | Path) -> str:
    """What a run of a recipe is called unless it is told: its name, with the point of a sweep (`paper/figure6@0.5`)."""
    path, point = _find(name)
    return recipe_name(path) + (f"@{point}" if point is not None else "")


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
        raise RecipeError(name, [Fault(document.line(()), "", f"a {looks} recipe stands where a {wanted} recipe belongs")])
    values, paths = overridden(document.values, overrides, kind)
    lines = {path: line for path, line in document.lines.items() if not any(path[: len(each)] == each for each in paths)}
    lines.update(dict.fromkeys(paths, 0))
    files = {path: file for path, file in document.files.items() if lines.get(path)}
    document = dataclasses.replace(document, values=values, lines=lines, files=files)
    faults = list(document.faults)
    try:
        # JSON's strict mode: lists may become tuples, and nothing else changes its type on the way (no "yes" as True, no 1.0 as 1)
        recipe = kind.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        unread = {dotted(path) for path in document.unread - set(paths)}
        faults += [fault for fault in validation_faults(error, kind, document) if fault.path not in unread]
        if len(faults) > MAX_FAULTS:
            faults = [*faults[:MAX_FAULTS], Fault(faults[MAX_FAULTS].line, "", f"and {len(faults) - MAX_FAULTS} faults more")]
    if faults:
        raise RecipeError(name, faults)
    return recipe
