"""Pickles of checkpoints, read by an interpreter that cannot call anything.

A pickle is a program for a stack machine, and Python's own runs any function that it names. This interpreter knows the opcodes that
torch writes and a closed list of names; names are never imported, a call builds one of the plain values below, and everything else is
refused. A tensor becomes the location of its bytes (`StoredTensor`), a TorchScript module its attributes (`PickledObject`), the rest
dict, list, tuple, str and numbers.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import ModelError

MOST_STEPS = 1_000_000
"""Opcodes; a checkpoint of 2.5 billion weights with its optimizer needs 150,000."""


@dataclass(frozen=True)
class GlobalName:
    """A name that a pickle would import; here text only."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, eq=False)
class Storage:
    """The record `data/KEY`: `numel` numbers of torch's storage type `kind`, such as FloatStorage."""

    kind: str
    key: str
    numel: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """Location of a tensor: its offset in a storage and its strides, counted in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(eq=False)
class PickledObject:
    """An object of a class that is not imported: the name of the class and the attributes that the pickle sets."""

    kind: GlobalName
    attributes: dict[Any, Any]


class _Refused(Exception):  # noqa: N818 - never leaves this file
    """Why the pickle is refused."""


def read_pickle(raw: bytes, file: str) -> Any:
    """The value of the pickle `raw`. `file` is the checkpoint's name, for messages.

    Raises:
        ModelError: it names something outside the closed list, uses an opcode that torch does not, is too long, or is damaged.
    """
    try:
        return _run(raw)
    except _Refused as refused:
        raise ModelError(
            f"{file} is refused: its pickle {refused}",
            why="no pickle is executed, and only tensors and plain values are read",
            hint="where you trust it, save its tensors alone: torch.save(model.state_dict(), NEW), or safetensors",
        ) from None
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(f"the pickle in {file} is damaged", why=type(error).__name__, hint="copy the file again") from None


def _opcodes(raw: bytes) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    """The opcodes of a pickle, without Python's warnings about escape sequences in damaged strings."""
    opcodes = pickletools.genops(raw)
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = next(opcodes, None)
        if found is None:
            return
        yield found


def _run(raw: bytes) -> Any:
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks below each mark
    memo: dict[int, Any] = {}
    argument: Any
    for step, (opcode, argument, _) in enumerate(_opcodes(raw)):
        if step == MOST_STEPS:
            raise _Refused(f"has more than {MOST_STEPS:,} steps")
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(stack) < count:
                raise IndexError
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name in _MARKED:
            items, stack = stack, below.pop()
            _MARKED[name](stack, items)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set_items(stack, [key, value])
        elif name == "APPEND":
            _append(stack, [stack.pop()])
        elif name == "GLOBAL":
            stack.append(_allowed(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            word, module = stack.pop(), stack.pop()
            if type(word) is not str or type(module) is not str:
                raise TypeError
            stack.append(_allowed(module, word))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, kind = stack.pop(), stack.pop()
            if type(kind) is not GlobalName or type(arguments) is not tuple:
                raise TypeError
            stack.append(_made(kind, arguments))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], PickledObject) and isinstance(state, dict):
                stack[-1].attributes.update(state)
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise _Refused(f"uses the opcode {name}, which torch does not write")
    raise EOFError


def _allowed(module: str, name: str) -> GlobalName:
    """The name, where the closed list has it."""
    found = GlobalName(module, name)
    whole = str(found)
    if whole in _CALLS or whole in _OPAQUE or module.split(".")[0] == "__torch__" or (module == "torch" and name in STORAGES):
        return found
    raise _Refused(f"names {whole[:100]}, which a checkpoint of tensors does not need")


def _made(kind: GlobalName, arguments: tuple[Any, ...]) -> Any:
    """The value of a call; only the constructors of plain values below are called."""
    maker = _CALLS.get(str(kind))
    return maker(*arguments) if maker else PickledObject(kind, {})


def _storage(words: Any) -> Storage:
    """('storage', torch.FloatStorage, '0', 'cpu', 12): kind, record, device (ignored), number of elements."""
    tag, kind, key, _, numel = words
    if tag != "storage" or type(kind) is not GlobalName or kind.name not in STORAGES or type(key) is not str or type(numel) is not int:
        raise TypeError
    if not key.isascii() or not key.isalnum():
        raise _Refused("names a record outside data/")
    return Storage(kind.name, key, numel)


def _tensor(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> StoredTensor:
    numbers = (offset, *shape, *strides)
    if type(storage) is not Storage or any(type(each) is not int or each < 0 for each in numbers) or len(shape) != len(strides):
        raise TypeError
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(data: StoredTensor, *_: Any) -> StoredTensor:
    if type(data) is not StoredTensor:
        raise TypeError
    return data


def _mapping(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    """An OrderedDict or defaultdict: from pairs, or empty and filled by the opcodes that follow."""
    found: dict[Any, Any] = {}
    for key, value in pairs if isinstance(pairs, list | tuple) else ():
        _set_items([found], [key, value])
    return found


def _set_items(stack: list[Any], items: list[Any]) -> None:
    target = stack[-1]
    if type(target) is not dict or len(items) % 2:
        raise TypeError
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int):  # hashing a deeply nested tuple overflows the C stack
            raise _Refused("has a table with keys that are neither words nor numbers")
        target[key] = value


def _append(stack: list[Any], items: list[Any]) -> None:
    if type(stack[-1]) is not list:
        raise TypeError
    stack[-1].extend(items)


def _dict_of(stack: list[Any], items: list[Any]) -> None:
    stack.append({})
    _set_items(stack, items)


STORAGES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
"""Kinds of storage and the bytes of one element."""

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "BINFLOAT", "FLOAT", "BINBYTES", "SHORT_BINBYTES"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"),
}
"""Opcodes with their value as argument."""
_EMPTY: Mapping[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARKED: Mapping[str, Callable[[list[Any], list[Any]], None]] = {
    "TUPLE": lambda stack, items: stack.append(tuple(items)),
    "LIST": lambda stack, items: stack.append(items),
    "FROZENSET": lambda stack, items: stack.append(items),
    "DICT": _dict_of,
    "APPENDS": _append,
    "ADDITEMS": _append,
    "SETITEMS": _set_items,
}
_CALLS: Mapping[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": lambda *_: {},
    "torch.Size": lambda items=(), *_: items,
    **{
        f"torch.jit._pickle.{each}": lambda value, *_: value
        for each in ("restore_type_tag", "build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
    },
}
_OPAQUE = {
    *("argparse.Namespace", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "_codecs.encode"),
    *("torch.device", "torch.float16", "torch.float32", "torch.bfloat16", "builtins.dict", "builtins.list", "builtins.int"),
}
"""Other names in checkpoints of training scripts; kept as names, since their values are not needed."""
