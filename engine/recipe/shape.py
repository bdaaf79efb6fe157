"""The shape of a recipe: which keys a section may hold, so that an unknown one meets its nearest name."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from engine.recipe.document import Path, Value, dotted


def keys_at(kind: type[BaseModel], path: Path, values: Value) -> tuple[str, ...] | None:
    """The keys that the section at `path` of a recipe may hold; None where any key may stand, or where no section is."""
    annotation, inner = _descend(kind, path, values)
    section = _section(annotation, inner)
    return tuple(section.model_fields) if section else None


def takes_any_key(kind: type[BaseModel], path: Path, values: Value) -> bool:
    """Whether `path` holds a table whose keys the recipe's author chooses."""
    annotation, _ = _descend(kind, path, values)
    return any(get_origin(each) is dict for each in _alternatives(annotation))


def near_name(name: str, names: Iterable[str]) -> str | None:
    """The nearest of the names, or None when nothing is near."""
    folded = {each.lower(): each for each in names}
    found = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def near_key(kind: type[BaseModel], path: Path, values: Value) -> str | None:
    """What the unknown key at the end of `path` was meant to be: a near name beside it, else the same word elsewhere in the recipe."""
    section, name = path[:-1], str(path[-1])
    beside = keys_at(kind, section, values) or ()
    near = near_name(name, beside)
    if near:
        return dotted((*section, near))
    elsewhere = [each for each in _all_keys(kind) if each[-1] == name]
    return dotted(elsewhere[0]) if elsewhere else None


def _all_keys(section: type[BaseModel], above: Path = ()) -> Iterator[Path]:
    for name, field in section.model_fields.items():
        yield (*above, name)
        for each in _alternatives(field.annotation):
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from _all_keys(each, (*above, name))


def _descend(kind: type[BaseModel], path: Path, values: Value) -> tuple[Any, Value]:
    """The annotation and the value at `path`; an annotation of None where the recipe has no such place."""
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
    """The annotation of what stands under `part`, or None where nothing can."""
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
    """The section an annotation stands for; of several, the one whose `kind` the values name, else the first."""
    sections = [each for each in _alternatives(annotation) if isinstance(each, type) and issubclass(each, BaseModel)]
    named = values.get("kind") if isinstance(values, dict) else None
    for each in sections:
        if "kind" in each.model_fields and named in get_args(each.model_fields["kind"].annotation):
            return each
    return sections[0] if sections else None


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, with `Annotated` taken off; a plain annotation is its own only member."""
    if annotation is None:
        return []
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for each in get_args(annotation) for inner in _alternatives(each)]
    return [] if annotation is type(None) or get_origin(annotation) is Literal else [annotation]
