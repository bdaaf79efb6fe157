"""From a recipe's name to a checked, typed, frozen recipe: find the file, read it strictly, report every fault at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from engine.errors import Fault, InputMissing, ReadError, RecipeError
from engine.recipe.base import Recipe
from engine.recipe.document import MAX_BYTES, MAX_FAULTS, Document, dotted, read_document
from engine.recipe.faults import validation_faults
from engine.recipe.kinds import KINDS, kind_of
from engine.recipe.overrides import overridden
from engine.recipe.shape import near_name

R = TypeVar("R", bound=Recipe)

_ENGINE = Path(__file__).resolve().parent.parent


def shipped_recipes() -> list[Path]:
    """The recipes that come with mmclip, by name: `engine/recipes` in a wheel, `recipes` beside `engine` in a checkout, subfolders too."""
    return sorted(_shipped_folder().rglob("*.yaml"), key=recipe_name)


def recipe_name(path: Path) -> str:
    """How a recipe is called: a shipped one by its place (`tiny`, `paper/table3_random`), another by its file name; without `.yaml`."""
    folder = _shipped_folder()
    return path.relative_to(folder).with_suffix("").as_posix() if path.is_relative_to(folder) else path.stem


def _shipped_folder() -> Path:
    inside = _ENGINE / "recipes"
    return inside if inside.is_dir() else _ENGINE.parent / "recipes"


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe: a path, else a shipped recipe's name with or without `.yaml`.

    Raises:
        InputMissing: there is neither; the nearest shipped name is suggested.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {recipe_name(each): each for each in shipped_recipes()}
    asked = path.as_posix().removesuffix(".yaml")
    if asked in shipped:
        return shipped[asked]
    if path.is_dir():
        raise InputMissing(f"{name} is a folder, not a recipe", hint="the path of a .yaml file, or mmclip recipes list")
    # the last part alone helps who wrote recipes/tiny.yaml away from a checkout, or table3_random without its folder
    near = next((each for each in shipped if each.rpartition("/")[2] == path.name.removesuffix(".yaml")), None)
    near = near or near_name(asked, shipped) or near_name(path.name.removesuffix(".yaml"), shipped)
    hint = f"{near}, which mmclip ships" if near else "mmclip recipes list"
    raise InputMissing(f"no recipe {name}", hint=hint)


def read_recipe(name: str | Path) -> tuple[Path, Document]:
    """The file of a recipe and what stands in it, not yet checked against a type.

    Raises:
        InputMissing: no such recipe.
        ReadError: the file is there and cannot be read.
    """
    path = find_recipe(name)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ReadError(f"recipe {path.name} cannot be read", why=error.strerror or type(error).__name__) from None
    return path, read_document(raw)


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
    return check_recipe(document, kind, overrides, name=path.name)


def check_recipe(document: Document, kind: type[R], overrides: Sequence[str] = (), *, name: str) -> R:
    """The typed recipe that a document holds; see `load_recipe` for the errors."""
    if not isinstance(document.values, dict):
        empty = Fault(1, "", "is empty" if document.values is None else "should be a section of keys")
        raise RecipeError(name, document.faults or [empty])
    looks, wanted = kind_of(document.values), next((each for each, its in KINDS.items() if its is kind), None)
    if wanted and looks and looks != wanted:
        raise RecipeError(name, [Fault(document.line(()), "", f"a {looks} recipe stands where a {wanted} recipe belongs")])
    values, paths = overridden(document.values, overrides, kind)
    lines = {path: line for path, line in document.lines.items() if not any(path[: len(each)] == each for each in paths)}
    lines.update(dict.fromkeys(paths, 0))
    document = dataclasses.replace(document, values=values, lines=lines)
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
