"""A recipe that builds on another, and one that goes through several values of a key.

    base: mimic_padchest              the recipe this one builds on: a file beside it, else a shipped one's name
    differs: [attmim.strategy]        optional: all the keys in which it may differ from its base, checked when it is read
    sweep: {attmim.ratio: [0.5, 0.75]}   stands for as many recipes as there are values, called NAME@0.5 and NAME@0.75

These three stand at the top of any recipe and are gone once it is resolved: what a run reads, hashes and writes down is whole.

1. A section is put over its base's key by key; any other value, a list too, takes the base's place whole.
2. A section whose `kind` is another than its base's takes its place whole as well: the keys of two kinds do not mix.
3. Every key keeps the file and the line it came from, so that a fault names the right one.
4. `version` and `source` speak of one file: they are no difference.
"""

from __future__ import annotations

import copy
import dataclasses

from engine.errors import Fault
from engine.recipe.document import Document, KeyPath, Value, dotted

KEYS = ("base", "differs", "sweep")
MOST_BASES = 8
"""Recipes that may build on one another."""
_OWN = (("version",), ("source",))


def without_lineage(document: Document) -> Document:
    """The document less the keys that only say what it builds on."""
    assert isinstance(document.values, dict)
    values = {key: value for key, value in document.values.items() if key not in KEYS}
    lines = {path: line for path, line in document.lines.items() if path[:1] not in [(key,) for key in KEYS]}
    return dataclasses.replace(document, values=values, lines=lines)


def put_over(document: Document, base: Document) -> Document:
    """`document` (less its lineage) with everything that its base says and it does not; faults of both."""
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
    """KeyPath -> (the base's value, the recipe's) of every key that it sets to another value than its base ("default" where the base is
    silent)."""
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
    """What `differs` does not say as it is.

    Args:
        document: the resolved recipe.
        claimed: the value of its `differs`: dotted keys, a section standing for all its keys.
        claim: the document as it was written, for the lines of the claim.
    """
    if not isinstance(claimed, list) or not claimed or not all(isinstance(each, str) for each in claimed):
        return [claim.fault(("differs",), "should be a list of keys, for instance [attmim.strategy]")]
    assert document.base is not None
    changed = {path: dotted(path) for path in differences(document)}
    faults = [
        document.fault(path, f"differs from {document.base.name}, and `differs` does not name it")
        for path, key in changed.items()
        if not any(_covers(str(each), key) for each in claimed)
    ]
    for index, each in enumerate(claimed):
        if not any(_covers(str(each), key) for key in changed.values()):
            faults.append(claim.fault(("differs", index), f"{each} is as in {document.base.name}"))
    return faults


def _covers(claim: str, key: str) -> bool:
    return key == claim or key.startswith(claim + ".")


def sweep_points(document: Document) -> tuple[dict[str, tuple[KeyPath, Value]], list[Fault]]:
    """Name of each point -> the key it sets and its value; and what is wrong with `sweep`."""
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
            faults.append(document.fault(("sweep", key, index), f"{word_of(value)} stands here twice"))
        points[word_of(value)] = (tuple(key.split(".")), value)
    return points, faults


def word_of(value: Value) -> str:
    """A plain value as recipes write it: `true`, `null`, `0.75`, a word."""
    return {"True": "true", "False": "false", "None": "null"}.get(str(value), str(value)) if not isinstance(value, str) else value


def at_point(document: Document, path: KeyPath, value: Value, line: int) -> Document:
    """The document with one point of its sweep in its place, on the sweep's line."""
    values = copy.deepcopy(document.values)
    here: Value = values
    for depth, key in enumerate(path[:-1]):
        assert isinstance(here, dict)
        inner = here.setdefault(str(key), {})
        if not isinstance(inner, dict):
            fault = Fault(line, "sweep", f"{dotted(path[: depth + 1])} is no section of keys")
            return dataclasses.replace(document, faults=(*document.faults, fault))
        here = inner
    assert isinstance(here, dict)
    here[str(path[-1])] = value
    lines = {each: at for each, at in document.lines.items() if each[: len(path)] != path} | {path: line}
    files = {each: file for each, file in document.files.items() if each in lines and each != path}
    return dataclasses.replace(document, values=values, lines=lines, files=files, base=document.base or document)
