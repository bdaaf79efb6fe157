"""Strict YAML: the text of a recipe -> plain values with line numbers.

Stricter than YAML:

1. duplicate keys are errors (YAML silently keeps the last one);
2. anchors, aliases and tags are errors (a few hundred bytes of aliases can expand to gigabytes; a tag can name a Python class);
3. `yes`, `no`, `on`, `off` are text: only `true` and `false` are booleans;
4. `010` and `12:30:00` are text (YAML 1.1: 8 and 45000); `1e-3` is a number (YAML 1.1: text);
5. more than 1 MB, 32 levels or 20,000 values, tabs, and text that is not UTF-8 are errors. A byte-order mark and CRLF line ends are
   accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from engine.errors import Fault

KeyPath = tuple[str | int, ...]
Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_VALUES = 20_000
"""The largest shipped recipe has about 1,000. Without the limit, a megabyte of commas would take a minute to read."""
MAX_FAULTS = 100

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_LONG_INTEGER = re.compile(r"[-+]?[1-9][0-9]{18,}")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_DIGIT = re.compile(r"[0-9]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """Values of a recipe, the 1-based line of every key and list item, and the faults found while reading.

    Attributes:
        unread: paths whose value could not be read and is None.
        files: path -> the base recipe that the key was inherited from (see composition.py).
        base: the document of the base, already merged into `values`.
        name: of the recipe.
        points: names of the points of a sweep, until one of them is chosen; else empty.
    """

    values: Value
    lines: dict[KeyPath, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    unread: frozenset[KeyPath] = frozenset()
    files: dict[KeyPath, str] = field(default_factory=dict)
    base: Document | None = None
    name: str = ""
    points: tuple[str, ...] = ()

    def fault(self, path: KeyPath, message: str) -> Fault:
        """A fault of the key at `path`, with the file and line of the key or of the nearest section around it."""
        here = path
        while here and here not in self.lines:
            here = here[:-1]
        return Fault(self.lines.get(here, 0), dotted(path), message, self.files.get(here, ""))

    def line(self, path: KeyPath) -> int:
        """The line of a key, or of the nearest section around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def dotted(path: KeyPath) -> str:
    """`('sources', 0, 'root')` -> `sources.0.root`."""
    return ".".join(map(str, path))


def read_scalar(text: str) -> Value:
    """The value of an unquoted scalar: null, true or false, an integer, a finite number, else the text.

    Raises:
        ValueError: a number too large to represent.
    """
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _LONG_INTEGER.fullmatch(text):
        raise ValueError("a whole number of more than 18 digits")
    if _FLOAT.fullmatch(text) and _DIGIT.search(re.split("[eE]", text)[0]):
        number = float(text)
        if number in (float("inf"), float("-inf")):
            raise ValueError("a number too large to represent")
        return number
    return text


def read_document(raw: bytes) -> Document:
    """The values and lines of one YAML document; faults are collected, never raised."""
    if len(raw) > MAX_BYTES:
        return _broken(0, f"{len(raw):,} bytes: a recipe has at most {MAX_BYTES:,}")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _broken(1, "text in UTF-16; save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _broken(raw.count(b"\n", 0, error.start) + 1, "a character that is not UTF-8 (Latin-1 perhaps); save the file as UTF-8")
    return _Reader(text).read()


def read_value(text: str) -> Value:
    """The value of one `--set key=value`: a scalar, quoted text, `[a, b]` or `{a: 1}`.

    Raises:
        ValueError: with the reason, if it is none of these.
    """
    text = text.strip()
    if not text.startswith(("[", "{", '"', "'")):
        return read_scalar(text)
    document = read_document(text.encode("utf-8", "surrogatepass"))
    if document.faults:
        raise ValueError(document.faults[0].message)
    return document.values


def _broken(line: int, message: str) -> Document:
    return Document(None, faults=(Fault(line, "", message),))


class _Stop(Exception):  # noqa: N818 - ends the reading of a document whose rest makes no sense
    pass


class _Reader:
    """Builds values from PyYAML's events, which have line marks and are not resolved."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: dict[KeyPath, int] = {}
        self.faults: list[Fault] = []
        self.unread: set[KeyPath] = set()
        self.count = 0

    def read(self) -> Document:
        values: Value = None
        try:
            events = iter(yaml.parse(self.text, Loader=yaml.SafeLoader))
            values = self.document(events)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.faults.append(Fault(mark.line + 1 if mark else 0, "", _grammar(error)))
            return Document(None, self.lines, tuple(self.faults))
        except yaml.reader.ReaderError as error:
            line = self.text.count("\n", 0, error.position) + 1
            self.faults.append(Fault(line, "", f"a character that recipes cannot contain (code {_code(error.character):#06x})"))
            return Document(None, self.lines, tuple(self.faults))
        except _Stop:
            return Document(None, self.lines, tuple(self.faults))
        return Document(values, self.lines, tuple(self.faults), frozenset(self.unread))

    def document(self, events: Iterator[yaml.Event]) -> Value:
        values: Value = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.fault(event, (), "a second document begins here; a recipe has one")
                    break
            elif not isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent | yaml.DocumentEndEvent):
                self.lines[()] = _line(event)
                values = self.value(event, events, ())
        return values

    def value(self, event: yaml.Event, events: Iterator[yaml.Event], path: KeyPath) -> Value:
        self.count += 1
        if self.count > MAX_VALUES:
            self.fault(event, (), f"more than {MAX_VALUES:,} values: this is not a recipe")
            raise _Stop
        if len(path) >= MAX_DEPTH:
            self.fault(event, path[:3], f"nested deeper than {MAX_DEPTH} levels")
            raise _Stop
        if isinstance(event, yaml.AliasEvent):
            self.fault(event, path, f"alias *{event.anchor}: aliases are not read; write the value out")
            self.unread.add(path)
            return None
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.anchor is not None:
                self.fault(event, path, f"anchor &{event.anchor}: anchors are not read; leave it out")
            if event.tag is not None:
                self.fault(event, path, f"tag {event.tag[:60]}: tags are not read; leave it out")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(events, path)
        return self.mapping(events, path)

    def scalar(self, event: yaml.ScalarEvent, path: KeyPath) -> Value:
        if _SURROGATE.search(event.value):
            self.fault(event, path, "half of a surrogate pair, which is not a character")
            self.unread.add(path)
            return None
        if not event.implicit[0]:  # quoted, or a block of text
            return str(event.value)
        try:
            return read_scalar(event.value)
        except ValueError as error:
            self.fault(event, path, str(error))
            self.unread.add(path)
            return None

    def sequence(self, events: Iterator[yaml.Event], path: KeyPath) -> Value:
        items: list[Value] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            here = (*path, len(items))
            self.lines[here] = _line(event)
            items.append(self.value(event, events, here))
        return items

    def mapping(self, events: Iterator[yaml.Event], path: KeyPath) -> Value:
        items: dict[str, Value] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.key(event, events, path)
            here = (*path, key)
            line = _line(event)
            if key in items:
                self.fault(event, here, f"given twice, first on line {self.lines[here]}")
                self.value(next(events), events, here)
                continue
            self.lines[here] = line
            items[key] = self.value(next(events), events, here)
        return items

    def key(self, event: yaml.Event, events: Iterator[yaml.Event], path: KeyPath) -> str:
        """A key is the text as written: `no`, `010` and `1e-3` are names here."""
        if isinstance(event, yaml.ScalarEvent) and event.tag is None and event.anchor is None and not _SURROGATE.search(event.value):
            if not event.value:
                self.fault(event, path, "an empty key")
            return str(event.value)
        what = "an alias" if isinstance(event, yaml.AliasEvent) else "a key that is not plain text"
        self.fault(event, path, f"{what}: keys are plain text")
        if not isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
            raise _Stop
        return f"?{_line(event)}"

    def fault(self, event: yaml.Event, path: KeyPath, message: str) -> None:
        self.faults.append(Fault(_line(event), dotted(path), message))
        if len(self.faults) == MAX_FAULTS:
            self.faults.append(Fault(_line(event), "", f"{MAX_FAULTS} faults; the rest was not read"))
            raise _Stop


def _line(event: yaml.Event) -> int:
    """The 1-based first line of an event."""
    return event.start_mark.line + 1 if event.start_mark else 0


def _code(character: str | int) -> int:
    """The code of a character; PyYAML gives the code for text and the character for a stream."""
    return character if isinstance(character, int) else ord(character)


def _grammar(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's message, rewritten for someone who edits a recipe."""
    problem = str(error.problem or error.context or "not YAML")
    if "'\\t'" in problem:
        return "a tab; indent with spaces"
    if "undefined alias" in problem:
        return "an alias: aliases are not read; write the value out"
    if "mapping values are not allowed here" in problem:
        return "a colon where no key can be; quote the text or check the indentation"
    if "expected <block end>" in problem or "could not find expected ':'" in problem:
        return f"the structure breaks here ({problem}); check the indentation and the brackets"
    return problem
