"""How a recipe is composed: over its base, at one point of a sweep, with `--set key=value`.

    base: mimic_padchest              the recipe this one builds on: a file in the same folder, else a shipped recipe's name
    differs: [attmim.strategy]        optional: the keys that may differ from the base, checked when the recipe is read
    sweep: {attmim.ratio: [0.5, 0.75]}   one recipe for each value, named NAME@0.5 and NAME@0.75

These three keys are at the top of a recipe and are removed when it is resolved; a run uses, hashes and records the merged recipe.

1. A section is merged key by key with the base's section; any other value, a list too, replaces the base's.
2. A section whose `kind` differs from that of the base's section replaces it: keys of two kinds are not mixed.
3. Every key keeps the file and line it comes from, so that faults name the right one.
4. `version` and `source` describe one file and do not count as differences.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Sequence

from pydantic import BaseModel

from engine.errors import Fault, UsageError
from engine.recipe.document import Document, KeyPath, Value, dotted, read_value
from engine.recipe.schema import keys_at, near_key, takes_any_key

KEYS = ("base", "differs", "sweep")
MOST_BASES = 8
"""Longest chain of bases."""
_OWN = (("version",), ("source",))


def without_composition_keys(document: Document) -> Document:
    """The document without `base`, `differs` and `sweep`."""
    assert isinstance(document.values, dict)
    values = {key: value for key, value in document.values.items() if key not in KEYS}
    lines = {path: line for path, line in document.lines.items() if path[:1] not in [(key,) for key in KEYS]}
    return dataclasses.replace(document, values=values, lines=lines)


def over_base(document: Document, base: Document) -> Document:
    """`document` (without composition keys) merged over its base; the faults of both."""
    replaced: set[KeyPath] = set()
    values = _merged(document.values, base.values, (), replaced)
    kept = {path: line for path, line in base.lines.items() if not any(path[:depth] in replaced for depth in range(len(path) + 1))}
    files = {path: base.files.get(path, base.name) for path in kept if path not in document.lines}
    return dataclasses.replace(
        document,
        values=values,
        lines=kept | document.lines,
        files=files,
        faults=(*document.faults, *(dataclasses.replace(fault, file=fault.file or base.name) for fault in base.faults)),
        unread=document.unread | (base.unread & kept.keys()),
        base=base,
    )


def _merged(value: Value, base: Value, path: KeyPath, replaced: set[KeyPath]) -> Value:
    if not isinstance(value, dict) or not isinstance(base, dict) or value.get("kind", base.get("kind")) != base.get("kind"):
        replaced.add(path)
        return value
    merged = dict(base)
    for key, each in value.items():
        merged[key] = _merged(each, base[key], (*path, key), replaced) if key in base else each
    return merged


def differences(document: Document) -> dict[KeyPath, tuple[Value, Value]]:
    """KeyPath -> (the base's value, the recipe's value) of every key that differs; "default" if the base does not set it."""
    if document.base is None:
        return {}
    own, other = _leaves(document.values), _leaves(document.base.values)
    return {
        path: (other.get(path, "default"), value)
        for path, value in own.items()
        if path[:1] not in _OWN and (path not in other or not _same(other[path], value))
    }


def _leaves(values: Value, path: KeyPath = ()) -> dict[KeyPath, Value]:
    if not isinstance(values, dict) or not values:
        return {path: values}
    return {inner: leaf for key, value in values.items() for inner, leaf in _leaves(value, (*path, key)).items()}


def _same(one: Value, other: Value) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def difference_faults(document: Document, claimed: Value, claim: Document) -> list[Fault]:
    """Faults of `differs`: keys that differ and are not listed, and keys that are listed and do not differ.

    Args:
        document: the resolved recipe.
        claimed: the value of `differs`: dotted keys; a section represents all its keys.
        claim: the document as written, for the line numbers.
    """
    if not isinstance(claimed, list) or not claimed or not all(isinstance(each, str) for each in claimed):
        return [claim.fault(("differs",), "should be a list of keys, for instance [attmim.strategy]")]
    assert document.base is not None
    changed = {path: dotted(path) for path in differences(document)}
    faults = [
        document.fault(path, f"differs from {document.base.name}, but `differs` does not list it")
        for path, key in changed.items()
        if not any(_covers(str(each), key) for each in claimed)
    ]
    for index, each in enumerate(claimed):
        if not any(_covers(str(each), key) for key in changed.values()):
            faults.append(claim.fault(("differs", index), f"{each} is the same in {document.base.name}"))
    return faults


def _covers(claim: str, key: str) -> bool:
    return key == claim or key.startswith(claim + ".")


def sweep_points(document: Document) -> tuple[dict[str, tuple[KeyPath, Value]], list[Fault]]:
    """Name of each point -> the key it sets and its value; and the faults of `sweep`."""
    assert isinstance(document.values, dict)
    sweep = document.values["sweep"]
    if not isinstance(sweep, dict) or len(sweep) != 1:
        return {}, [document.fault(("sweep",), "should be one key with a list of values, for instance {attmim.ratio: [0.5, 0.75]}")]
    ((key, values),) = sweep.items()
    if not isinstance(values, list) or not values or any(isinstance(value, list | dict) for value in values):
        return {}, [document.fault(("sweep", key), "should be a list of plain values")]
    points: dict[str, tuple[KeyPath, Value]] = {}
    faults = []
    for index, value in enumerate(values):
        if word_of(value) in points:
            faults.append(document.fault(("sweep", key, index), f"{word_of(value)} is given twice"))
        points[word_of(value)] = (tuple(key.split(".")), value)
    return points, faults


def word_of(value: Value) -> str:
    """A plain value as YAML writes it: `true`, `null`, `0.75`, a word."""
    return {"True": "true", "False": "false", "None": "null"}.get(str(value), str(value)) if not isinstance(value, str) else value


def at_point(document: Document, path: KeyPath, value: Value, line: int) -> Document:
    """The document at one point of its sweep; the key has the line of `sweep`."""
    values = copy.deepcopy(document.values)
    here: Value = values
    for depth, key in enumerate(path[:-1]):
        assert isinstance(here, dict)
        inner = here.setdefault(str(key), {})
        if not isinstance(inner, dict):
            fault = Fault(line, "sweep", f"{dotted(path[: depth + 1])} is not a section of keys")
            return dataclasses.replace(document, faults=(*document.faults, fault))
        here = inner
    assert isinstance(here, dict)
    here[str(path[-1])] = value
    lines = {each: at for each, at in document.lines.items() if each[: len(path)] != path} | {path: line}
    files = {each: file for each, file in document.files.items() if each in lines and each != path}
    return dataclasses.replace(document, values=values, lines=lines, files=files, base=document.base or document)


def overridden(values: Value, settings: Sequence[str], kind: type[BaseModel]) -> tuple[Value, tuple[KeyPath, ...]]:
    """The values after `--set key=value`, and the paths that were set. The given values are not changed.

    Args:
        values: of a recipe file.
        settings: `optimizer.lr=1e-4`, `sources.0.root=/data/cxr`, `warmup.objectives=[mim]`. Later settings win.
        kind: the recipe's type, which defines the keys that may be set.

    Raises:
        UsageError: no `=`, an unknown key (with the nearest name), an index beyond the list, a value that cannot be read.
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
            raise UsageError(f"no such key: {dotted(path)}", why=f"{dotted(path[:depth]) or 'the recipe'} has no keys")
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
