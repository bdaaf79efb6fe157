"""What pydantic finds wrong with a recipe, in the recipe author's words: line, dotted path, reason, nearest name."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ValidationError

from engine.errors import Fault
from engine.recipe.document import Document, Path, Value
from engine.recipe.shape import near_key, near_name

_WANTED = {
    "bool_type": "should be true or false",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number, without a point or an exponent",
    "float_type": "should be a number",
    "string_type": "should be text; put it in quotes",
    "tuple_type": "should be a list, in square brackets",
    "list_type": "should be a list, in square brackets",
    "dict_type": "should be a section of keys",
    "model_type": "should be a section of keys",
    "model_attributes_type": "should be a section of keys",
    "none_required": "should be null",
}


def validation_faults(error: ValidationError, kind: type[BaseModel], document: Document) -> list[Fault]:
    """One fault for each place of a recipe that pydantic complains about."""
    found: dict[Path, list[dict[str, Any]]] = {}
    for each in error.errors(include_url=False, include_input=True):
        if each["type"] == "too_short" and each["input"]:
            continue  # pydantic counts the items that passed; the others are reported by themselves
        found.setdefault(_place(each["loc"], document.values), []).append(dict(each))
    return [document.fault(path, _message(path, each, kind, document.values)) for path, each in found.items()]


def _place(location: tuple[int | str, ...], values: Value) -> Path:
    """pydantic's location as a path into the recipe: the names of union members in it are left out."""
    path: list[int | str] = []
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(values, dict) and isinstance(part, str):
            if part in values:
                values = values[part]
            elif not last or part == values.get("kind"):
                continue
        elif isinstance(values, list) and isinstance(part, int):
            values = values[part] if part < len(values) else None
        else:
            continue
        path.append(part)
    return tuple(path)


def _message(path: Path, errors: list[dict[str, Any]], kind: type[BaseModel], values: Value) -> str:
    messages = dict.fromkeys(_one_message(path, each, kind, values) for each in errors)
    return ", or ".join(messages)


def _one_message(path: Path, error: dict[str, Any], kind: type[BaseModel], values: Value) -> str:
    what, context, given = error["type"], error.get("ctx", {}), error["input"]
    if what == "extra_forbidden":
        near = near_key(kind, path, values)
        return "unknown key" + (f"; did you mean {near}?" if near else "")
    if path == ("version",) and what == "literal_error":
        return f"this release reads recipes of version {context['expected']}"
    if what == "missing":
        return "missing"
    if what == "value_error":
        return str(context["error"])
    if what in ("literal_error", "union_tag_invalid"):
        expected = str(context.get("expected") or context.get("expected_tags"))
        given = context.get("tag", given)
        near = near_name(given, re.findall(r"'([^']*)'", expected)) if isinstance(given, str) else None
        return f"{_short(given)}should be {expected}" + (f"; did you mean {near}?" if near else "")
    if what == "union_tag_not_found":
        return "`kind` is missing; it says which data set this is"
    if what in ("too_short", "string_too_short"):
        return "is empty"
    if what in _WANTED:
        return f"{_short(given)}{_WANTED[what]}"
    return _short(given) + re.sub(r"^(Input|Value|String|Tuple) ", "", str(error["msg"]))


def _short(given: Any) -> str:
    """The value as given, where it is short enough to recognise."""
    if isinstance(given, bool):
        return f"{str(given).lower()} "
    if isinstance(given, str | int | float) and len(str(given)) <= 40:
        return f"{given!r} "
    return "" if given is not None else "null "
