"""Single settings given outside the file, as `key.sub=value`, put over a recipe's values before they are checked."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

from pydantic import BaseModel

from engine.errors import UsageError
from engine.recipe.document import Path, Value, dotted, read_value
from engine.recipe.shape import keys_at, near_key, takes_any_key


def overridden(values: Value, settings: Sequence[str], kind: type[BaseModel]) -> tuple[Value, tuple[Path, ...]]:
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
        path: Path = tuple(int(part) if re.fullmatch("[0-9]{1,6}", part) else part for part in name.split("."))
        try:
            value = read_value(text)
        except ValueError as error:
            raise UsageError(f"setting {name} cannot be read", why=str(error)) from None
        _put(values, path, value, kind)
        paths.append(path)
    return values, tuple(paths)


def _put(values: Value, path: Path, value: Value, kind: type[BaseModel]) -> None:
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


def _check_name(kind: type[BaseModel], path: Path, rest: Path, values: Value) -> None:
    known = keys_at(kind, path[:-1], values)
    if known is not None and path[-1] in known:
        return
    near = near_key(kind, path, values)
    hint = ".".join([near, *map(str, rest)]) if near else f"one of {', '.join(known)}" if known else ""
    raise UsageError(f"no such key: {dotted((*path, *rest))}", hint=hint)
