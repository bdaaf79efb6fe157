"""The Typer app. Every error becomes one line on stderr and an exit code here.

0    done                                   74   input or output failed midway
1    done, but some file failed             75   another run holds the lock
2    usage                                  78   bad recipe, model or labels
65   more files failed than --max-failures  130  stopped by Ctrl-C, after committing what was done
66   no such input                          141  stdout was closed by its reader
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
"""In the order in which `mmclip --help` and README.md list them."""
BROKEN_PIPE = 128 + 13
COMPILED = "TORCHINDUCTOR_CACHE_DIR"
"""Cache folder of torch.compile. torch sets this variable when it creates the folder, unless the user has set it."""

app = typer.Typer(
    name="mmclip",
    help=f"Zero-shot scoring of chest radiographs with text prompts, and training of the models. {NOTICE}",
    epilog="Start with: mmclip score FOLDER --prompts chest14. `mmclip VERB --help` lists the options of a verb; see also README.md.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


class Stopped(BaseException):
    """Raised by SIGINT and SIGTERM. A BaseException, so that no `except Exception` swallows it."""

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
    """Options before the verb."""


def _register() -> None:
    """Register the verbs: each module has a function `command`, or a Typer `app` with several commands. None imports torch."""
    for verb in VERBS:
        module = importlib.import_module(f"mmclip_cli.{verb}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb)
        else:
            app.command(verb, epilog=_examples(module.EXAMPLES))(module.command)


def _examples(commands: tuple[str, ...]) -> str:
    """The examples at the end of a help page; \\b stops Typer from rewrapping them."""
    return "\n".join(["\b", "Examples:", *(f"  {each}" for each in commands)])


def main() -> None:
    """The entry point: run the verb and exit with its code."""
    code = run(sys.argv[1:])
    try:
        sys.stderr.flush()
    except OSError:
        _abandon(sys.stderr)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """The exit code of one command line."""
    _open_standard_streams()
    _leave_removed_folder()
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
    """Remove the compiler cache folder that importing transformers creates, if it is empty."""
    with contextlib.suppress(KeyError, OSError):
        os.rmdir(os.environ[COMPILED])  # noqa: PTH106 - leaves a folder with something in it


def _open_standard_streams() -> None:
    """Open /dev/null for stdin, stdout or stderr if it is closed; otherwise the next opened file would get its number, and the output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is `number`
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - a standard stream stays open


def _leave_removed_folder() -> None:
    """Change to a folder where nothing can be created if the working folder was removed: MKL aborts a process without one."""
    try:
        Path.cwd()
    except OSError:
        with contextlib.suppress(OSError):
            os.chdir("/proc/self/fdinfo")


def _no_core_dump() -> None:
    """Disable core dumps of this process and its workers: they would hold names and paths."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _stop(number: int, frame: FrameType | None) -> None:
    """The first signal ends the run after what is done was committed; a second one ends it immediately."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Stopped(number)


def _exit_code(error: BaseException) -> int:
    """Log one line about an error and return its exit code."""
    from engine.errors import EngineError, RecipeError

    if console.debugging() and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    if isinstance(error, EngineError):
        faults = {"faults": [str(fault) for fault in error.faults]} if isinstance(error, RecipeError) else {}
        return _leave(str(error), error.exit_code, **faults)
    if isinstance(error, Stopped):
        return _leave(f"stopped by {signal.Signals(error.exit_code - 128).name}; what was done is kept", error.exit_code)
    if isinstance(error, BrokenPipeError) or (isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)):
        _abandon(sys.stdout)  # the reader closed the pipe
        return BROKEN_PIPE
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 70
    if type(error).__name__ == "NoArgsIsHelpError":  # a bare `mmclip` or `mmclip recipes`
        print(error, file=sys.stderr)
        return 2
    usage = _usage(error)
    if usage:
        return _leave(f"{usage}. See {_command_path(error)} --help.", 2)
    if isinstance(error, OSError):
        try:
            sys.stdout.flush()
        except OSError:  # it was stdout that failed
            _abandon(sys.stdout)
        return _leave(f"input or output failed: {error.strerror or type(error).__name__} {_where(error)}", 74)
    return _leave(f"internal error: {type(error).__name__} {_where(error)}; MMCLIP_DEBUG=1 shows more", 70)


def _abandon(stream: TextIO) -> None:
    """Send buffered output to /dev/null: Python flushes at exit and would replace the exit code by 120 if that failed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _usage(error: BaseException) -> str:
    """Typer's message about a usage error, "" for any other error. Found by attributes, since the classes moved between releases."""
    message = getattr(error, "format_message", None)
    if not callable(message) or getattr(error, "exit_code", None) != 2:
        return ""
    return " ".join(str(message()).split()).rstrip(".?")


def _command_path(error: BaseException) -> str:
    """The command whose --help explains a usage error, for instance `mmclip score`."""
    return str(getattr(getattr(error, "ctx", None), "command_path", None) or "mmclip")


def _leave(message: str, code: int, **fields: object) -> int:
    console.log(message, level="error", exit_code=code, **fields)
    return code


def _where(error: BaseException) -> str:
    """Module and line of the deepest frame of mmclip. No values, which could identify a patient."""
    frames = traceback.extract_tb(error.__traceback__)
    house = Path(__file__).resolve().parent.parent
    for frame in reversed(frames):
        path = Path(frame.filename)
        if path.is_relative_to(house) and path.relative_to(house).parts[0] in ("engine", "mmclip_cli"):
            module = ".".join(path.relative_to(house).with_suffix("").parts)
            return f"in {module}, line {frame.lineno}"
    return "outside mmclip"
