"""The schema of recipes: which keys a section may have, the nearest name of an unknown key, pydantic's errors as faults with lines."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from engine.errors import Fault
from engine.recipe.document import Document, KeyPath, Value, dotted
from engine.recipe.section import SectionFaults


def keys_at(kind: type[BaseModel], path: KeyPath, values: Value) -> tuple[str, ...] | None:
    """The keys that the section at `path` may have; None where any key is allowed, or where there is no section."""
    annotation, inner = _descend(kind, path, values)
    section = _section(annotation, inner)
    return tuple(section.model_fields) if section else None


def takes_any_key(kind: type[BaseModel], path: KeyPath, values: Value) -> bool:
    """Whether `path` is a mapping with free keys."""
    annotation, _ = _descend(kind, path, values)
    return any(get_origin(each) is dict for each in _alternatives(annotation))


def near_name(name: str, names: Iterable[str]) -> str | None:
    """The nearest of the names, or None when nothing is near."""
    folded = {each.lower(): each for each in names}
    found = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def near_key(kind: type[BaseModel], path: KeyPath, values: Value) -> str | None:
    """The key that an unknown key was probably meant to be: a near name in the same section, else the same name elsewhere."""
    section, name = path[:-1], str(path[-1])
    near = near_name(name, keys_at(kind, section, values) or ())
    if near:
        return dotted((*section, near))
    elsewhere = [each for each in _all_keys(kind) if each[-1] == name]
    return dotted(elsewhere[0]) if elsewhere else None


def _all_keys(section: type[BaseModel], above: KeyPath = ()) -> Iterator[KeyPath]:
    for name, field in section.model_fields.items():
        yield (*above, name)
        for each in _alternatives(field.annotation):
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from _all_keys(each, (*above, name))


def _descend(kind: type[BaseModel], path: KeyPath, values: Value) -> tuple[Any, Value]:
    """The annotation and the value at `path`; the annotation is None if the recipe has no such path."""
    annotation: Any = kind
    for part in path:
        annotation = _inside(annotation, part, values)
        if isinstance(values, dict) and isinstance(part, str):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and 0 <= part < len(values):
            values = values[part]
        else:
            values = None
    return annotation, values


def _inside(annotation: Any, part: str | int, values: Value) -> Any:
    """The annotation of the value at key or index `part`, None if there can be none."""
    if isinstance(part, str):
        section = _section(annotation, values)
        if section is not None:
            return section.model_fields[part].annotation if part in section.model_fields else None
    for each in _alternatives(annotation):
        origin, arguments = get_origin(each), get_args(each)
        if isinstance(part, int) and origin in (tuple, list):
            return arguments[min(part, len(arguments) - 1)] if arguments[-1] is not ... else arguments[0]
        if isinstance(part, str) and origin is dict:
            return arguments[1]
    return None


def _section(annotation: Any, values: Value) -> type[BaseModel] | None:
    """The section type in an annotation; of several, the one whose `kind` the values have, else the first."""
    sections = [each for each in _alternatives(annotation) if isinstance(each, type) and issubclass(each, BaseModel)]
    named = values.get("kind") if isinstance(values, dict) else None
    for each in sections:
        if "kind" in each.model_fields and named in get_args(each.model_fields["kind"].annotation):
            return each
    return sections[0] if sections else None


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, without `Annotated`; a plain annotation is its only member."""
    if annotation is None:
        return []
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for each in get_args(annotation) for inner in _alternatives(each)]
    return [] if annotation is type(None) or get_origin(annotation) is Literal else [annotation]


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
    """One fault for each path of a recipe with pydantic errors: line, dotted path, reason, nearest name."""
    found: dict[KeyPath, list[dict[str, Any]]] = {}
    for each in error.errors(include_url=False, include_input=True):
        if each["type"] == "too_short" and each["input"]:
            continue  # pydantic counts the items that passed; the others are reported by themselves
        found.setdefault(_place(each["loc"], document.values), []).append(dict(each))
    return [fault for path, errors in found.items() for fault in _faults_at(path, errors, kind, document)]


def _faults_at(path: KeyPath, errors: list[dict[str, Any]], kind: type[BaseModel], document: Document) -> list[Fault]:
    """The faults of one path; those of a `SectionFaults` have their own paths below it."""
    several = errors[0].get("ctx", {}).get("error")
    if isinstance(several, SectionFaults):
        return [document.fault((*path, *below), message) for below, message in several.faults]
    return [document.fault(path, _message(path, errors, kind, document.values))]


def _place(location: tuple[int | str, ...], values: Value) -> KeyPath:
    """pydantic's location as a path into the recipe, without the names of union members."""
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


def _message(path: KeyPath, errors: list[dict[str, Any]], kind: type[BaseModel], values: Value) -> str:
    messages = dict.fromkeys(_one_message(path, each, kind, values) for each in errors)
    return ", or ".join(messages)


def _one_message(path: KeyPath, error: dict[str, Any], kind: type[BaseModel], values: Value) -> str:
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
        return "`kind` is missing; it names the data set's layout"
    if what in ("too_short", "string_too_short"):
        return "is empty"
    if what in _WANTED:
        return f"{_short(given)}{_WANTED[what]}"
    return _short(given) + re.sub(r"^(Input|Value|String|Tuple) ", "", str(error["msg"]))


def _short(given: Any) -> str:
    """The value as given if it is short, else ""."""
    if isinstance(given, bool):
        return f"{str(given).lower()} "
    if isinstance(given, str | int | float) and len(str(given)) <= 40:
        return f"{given!r} "
    return "" if given is not None else "null "
