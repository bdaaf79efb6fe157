"""The family of errors that the engine raises; the command line turns each into one line on stderr and an exit code.

EngineError              70   anything below, when nothing closer fits
├── UsageError            2   an option or a call that makes no sense
├── TooManyFailures      65   so many files failed that the run is not worth going on with
├── InputMissing         66   no such input
├── NotFinite            70   a loss or a score that is NaN or infinite
├── OutputError          73   the output cannot be written
├── ReadError            74   an input or state file exists and cannot be read
├── LockHeld             75   another run holds the lock on the output folder
└── ConfigError          78   a recipe, model or labels file that cannot be used
    ├── RecipeError           with every fault, each with its line
    ├── ModelError            a checkpoint or bundle: truncated, pickled, of another shape
    └── LabelsError           labels that cannot be joined

A bad *image* is never one of these: it becomes a row with its outcome and reason.
No message may quote a value from a DICOM header or a file name of a patient's image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class EngineError(Exception):
    """What happened, why, and what to try, as one line.

    Args:
        what: what happened, without a full stop at the end.
        why: the reason, where it is known.
        hint: what to try next.
    """

    exit_code = 70

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        self.what, self.why, self.hint = what, why, hint
        line = what + (f": {why}" if why else "") + "." + (f" Try: {hint}." if hint else "")
        super().__init__(" ".join(line.split()))


class UsageError(EngineError):
    """An option or a call that makes no sense."""

    exit_code = 2


class TooManyFailures(EngineError):  # noqa: N818
    """So many files failed that the run is not worth going on with."""

    exit_code = 65


class InputMissing(EngineError):  # noqa: N818 - the name says what happened
    """No such input."""

    exit_code = 66


class NotFinite(EngineError):  # noqa: N818
    """A loss or a score that is NaN or infinite."""

    exit_code = 70


class OutputError(EngineError):
    """The output cannot be written."""

    exit_code = 73


class ReadError(EngineError):
    """An input or state file exists and cannot be read."""

    exit_code = 74


class LockHeld(EngineError):  # noqa: N818
    """Another run holds the lock on the output folder."""

    exit_code = 75


class ConfigError(EngineError):
    """A recipe, model or labels file that cannot be used."""

    exit_code = 78


@dataclass(frozen=True)
class Fault:
    """One fault of a recipe: the line (1-based, 0 = unknown), the dotted path of the key, and what is wrong with it.

    `file` names the recipe it is in, where that is not the one that was asked for but one that it builds on.
    """

    line: int
    path: str
    message: str
    file: str = ""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        where = f"{self.file} {where or ': '}" if self.file else where
        return f"{where}{self.path + ': ' if self.path else ''}{self.message}"


class RecipeError(ConfigError):
    """A recipe with at least one fault; `faults` holds them all, in the order of their lines; its own before those of its bases."""

    def __init__(self, recipe: str, faults: Sequence[Fault], *, hint: str = "") -> None:
        self.recipe = recipe
        self.faults = tuple(sorted(faults, key=lambda fault: (bool(fault.file), fault.file, fault.line)))
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        super().__init__(f"recipe {recipe} has {count}", why="; ".join(map(str, self.faults)), hint=hint)


class ModelError(ConfigError):
    """A checkpoint or bundle that is truncated, pickled, of another shape, or does not fit its tokenizer."""


class LabelsError(ConfigError):
    """Labels that cannot be joined to the scored studies."""
