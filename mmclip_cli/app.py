"""The Typer app, and the one place where an error becomes one line on stderr and an exit code.

0    done                                   74   input or output failed midway
1    done, but some file failed             75   another run holds the lock
2    usage                                  78   bad recipe, model or labels
65   more files failed than --max-failures  130  stopped by Ctrl-C, after committing what was done
66   no such input                          141  whoever read our output has gone
70   internal, or scores not finite         143  stopped by SIGTERM, after committing what was done
73   cannot write output
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated, TextIO

import typer

from mmclip_cli import console

NOTICE = "RESEARCH USE ONLY - not for clinical use."
VERBS = ("score", "evaluate", "finetune", "ingest", "pretrain", "recipes", "models", "doctor")
"""In the order of a newcomer's first hour, which `mmclip --help` and README.md keep."""
BROKEN_PIPE = 128 + 13
COMPILED = "TORCHINDUCTOR_CACHE_DIR"
"""torch sets it to the folder that it makes, where a user has not."""

app = typer.Typer(
    name="mmclip",
    help=f"Score chest radiographs against words, and train the model that does it. {NOTICE}",
    epilog="Start with: mmclip score FOLDER --prompts chest14. Each verb has a --help of its own; README.md tells the whole story.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


class Stopped(BaseException):
    """A signal asks the run to end; no `except Exception` on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.say(f"mmclip {version('mmclip')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Options that stand before the verb."""


def _register() -> None:
    """Each verb is a cheap module with a function `command`, or an `app` of several commands."""
    for verb in VERBS:
        module = importlib.import_module(f"mmclip_cli.{verb}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb)
        else:
            app.command(verb, epilog=_examples(module.EXAMPLES))(module.command)


def _examples(commands: tuple[str, ...]) -> str:
    """The end of a help page; \\b keeps its lines as they are."""
    return "\n".join(["\b", "Examples:", *(f"  {each}" for each in commands)])


def main() -> None:
    """The entry point: run the verb, and leave with its exit code."""
    code = run(sys.argv[1:])
    try:
        sys.stderr.flush()
    except OSError:
        _abandon(sys.stderr)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """The exit code of one command line."""
    _open_standard_streams()
    _leave_a_folder_that_is_gone()
    console.hush_libraries()
    caches = os.environ.get(COMPILED)
    if not console.debugging():
        _no_core_dump()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        _register()
        code = app(arguments, prog_name="mmclip", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BaseException as error:
        return _exit_code(error)
    finally:
        if caches is None:
            _leave_no_empty_cache()


def _leave_no_empty_cache() -> None:
    """Importing transformers makes torch's compiler make a folder for what it compiles, which is mostly nothing."""
    with contextlib.suppress(KeyError, OSError):
        os.rmdir(os.environ[COMPILED])  # noqa: PTH106 - leaves a folder with something in it


def _open_standard_streams() -> None:
    """Where stdin, stdout or stderr were closed, /dev/null stands in: the next file to be opened would get their number, and their text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - a number, for good


def _leave_a_folder_that_is_gone() -> None:
    """MKL ends a process whose working folder was removed; stand where relative paths still lead to nothing, and nothing can be made."""
    try:
        Path.cwd()
    except OSError:
        with contextlib.suppress(OSError):
            os.chdir("/proc/self/fdinfo")


def _no_core_dump() -> None:
    """A dump of this process or of its workers would hold names and paths, and lie where the run was started."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _stop(number: int, frame: FrameType | None) -> None:
    """The first signal unwinds the run, which commits what was done; a second one ends it at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Stopped(number)


def _exit_code(error: BaseException) -> int:
    """The exit code of an error, after one line about it."""
    from engine.errors import EngineError, RecipeError

    if console.debugging() and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    if isinstance(error, EngineError):
        faults = {"faults": [str(fault) for fault in error.faults]} if isinstance(error, RecipeError) else {}
        return _leave(str(error), error.exit_code, **faults)
    if isinstance(error, Stopped):
        return _leave(f"stopped by {signal.Signals(error.exit_code - 128).name}; what was done is kept", error.exit_code)
    if isinstance(error, BrokenPipeError) or (isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)):
        _abandon(sys.stdout)  # whoever read our output has gone: nothing more to say
        return BROKEN_PIPE
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 70
    if type(error).__name__ == "NoArgsIsHelpError":  # a bare `mmclip` or `mmclip recipes`
        print(error, file=sys.stderr)
        return 2
    usage = _usage(error)
    if usage:
        return _leave(f"{usage}. See {_helpful(error)} --help.", 2)
    if isinstance(error, OSError):
        try:
            sys.stdout.flush()
        except OSError:  # it was stdout that failed
            _abandon(sys.stdout)
        return _leave(f"input or output failed: {error.strerror or type(error).__name__} {_where(error)}", 74)
    return _leave(f"internal error: {type(error).__name__} {_where(error)}; MMCLIP_DEBUG=1 shows more", 70)


def _abandon(stream: TextIO) -> None:
    """What is still buffered goes nowhere: Python flushes on its way out, and would replace the exit code by 120 where that fails."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _usage(error: BaseException) -> str:
    """Typer's complaint about the command line, "" for any other error (its classes for that have moved between releases)."""
    said = getattr(error, "format_message", None)
    if not callable(said) or getattr(error, "exit_code", None) != 2:
        return ""
    return " ".join(str(said()).split()).rstrip(".?")


def _helpful(error: BaseException) -> str:
    """The command whose --help lists what was got wrong."""
    return str(getattr(getattr(error, "ctx", None), "command_path", None) or "mmclip")


def _leave(message: str, code: int, **fields: object) -> int:
    console.log(message, level="error", exit_code=code, **fields)
    return code


def _where(error: BaseException) -> str:
    """Module and line of the deepest frame of ours: never a value, which might name a patient."""
    frames = traceback.extract_tb(error.__traceback__)
    house = Path(__file__).resolve().parent.parent
    for frame in reversed(frames):
        path = Path(frame.filename)
        if path.is_relative_to(house) and path.relative_to(house).parts[0] in ("engine", "mmclip_cli"):
            module = ".".join(path.relative_to(house).with_suffix("").parts)
            return f"in {module}, line {frame.lineno}"
    return "outside mmclip"
