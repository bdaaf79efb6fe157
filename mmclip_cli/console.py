"""Output: progress bars and messages on a terminal, JSON log lines elsewhere, tables and JSON on stdout.

stdout carries data only. stderr carries text on a terminal, and one JSON object per line under cron or in a pipe.
Output is never coloured, so NO_COLOR has no effect.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import math
import os
import sys
import unicodedata
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")


def on_terminal() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr.isatty()


def log(message: str, *, level: str = "info", **fields: object) -> None:
    """Write one line to stderr: text on a terminal, a JSON object with time, level, message and fields elsewhere.

    On a terminal the fields of an error (exit code, faults) are left out, since its message already contains them.
    """
    message = " ".join(message.split())
    if on_terminal():
        details = "; ".join(
            f"{name.replace('_', ' ')} {_cell(plain(value))}" for name, value in fields.items() if value not in (None, {}, ())
        )
        line = f"mmclip: {message}" if level == "error" else f"{message}: {details}" if details else message
    else:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = json.dumps(plain({"time": now, "level": level, "message": message, **fields}), ensure_ascii=False)
    with contextlib.suppress(OSError, ValueError):  # a closed pipe or a full disk under the log does not end the run
        if "tqdm" in sys.modules and on_terminal():
            from tqdm import tqdm

            tqdm.write(_encodable(line, sys.stderr), file=sys.stderr)  # above a progress bar, not through it
        else:
            print(_encodable(line, sys.stderr), file=sys.stderr, flush=True)


def progress(total: int | None, *, what: str, unit: str, start: int = 0, quiet: bool = False, leave: bool = True) -> tqdm[Any]:
    """A progress bar on stderr, disabled when stderr is no terminal or `quiet` is set. `leave`: keep the bar on screen at the end."""
    from tqdm import tqdm

    disable = quiet or not on_terminal()
    size: dict[str, Any] = {"dynamic_ncols": True}
    with contextlib.suppress(OSError):
        if not disable and not os.get_terminal_size(sys.stderr.fileno()).columns:
            size = {"ncols": 80, "nrows": 24}  # a terminal that does not know its size
    return tqdm(total=total, leave=leave, desc=what, unit=f" {unit}", initial=start, disable=disable, file=sys.stderr, **size)


@contextlib.contextmanager
def closing(events: Iterable[T]) -> Iterator[Iterator[T]]:
    """Iterate over the events of a verb and always close its generator at the end, so that it commits what was done."""
    iterator = iter(events)
    try:
        yield iterator
    finally:
        if isinstance(iterator, Generator):
            iterator.close()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a plain text table on stdout; columns of numbers are right-aligned."""
    rows = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in rows]
    right = [bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(columns))]
    widths = [max(_width(cell) for cell in column) for column in zip(columns, *cells, strict=True)]
    for line in [list(columns), *cells]:
        padded = (_pad(cell, width, to_right) for cell, width, to_right in zip(line, widths, right, strict=True))
        say("  ".join(padded).rstrip())


def say(text: str) -> None:
    """Print one line on stdout."""
    print(_encodable(text, sys.stdout))


def say_json(value: object) -> None:
    """Print one JSON object on stdout; NaN and infinity become null."""
    say(json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=2))


def plain(value: object) -> Any:
    """The value in JSON types: dataclasses become objects, paths text, NaN and infinity null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)


def hush_libraries() -> None:
    """Suppress warnings and log lines of libraries: they quote DICOM tag values, which can identify a patient."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if debugging():
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
    logging.disable(logging.CRITICAL)


def debugging() -> bool:
    """Whether MMCLIP_DEBUG is set: tracebacks and messages of libraries are shown."""
    return os.environ.get("MMCLIP_DEBUG", "") not in ("", "0")


def shown(path: Path) -> str:
    """A path relative to the current folder if it is inside it, else unchanged."""
    with contextlib.suppress(ValueError):
        return str(path.resolve().relative_to(Path.cwd()))
    return str(path)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else "-"
    return " ".join(str(value).split())


def _width(text: str) -> int:
    """Width in terminal columns: wide East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def _pad(text: str, width: int, to_right: bool) -> str:
    blank = " " * (width - _width(text))
    return blank + text if to_right else text + blank


def _encodable(text: str, stream: Any) -> str:
    """The text with characters that the stream's encoding lacks escaped, so that an ASCII locale never ends a run."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
