"""Disposable child processes that read files under limits of time and memory; a crash, a hang or a bomb costs one file and one process.

    for reading in read_files(paths, size=224, workers=2):
        ...

Results come in the order of the paths. Workers are plain subprocesses: safe with the threads of torch, in a notebook, and in a script
without a main guard (about 0.3 s to start). A worker that does not answer in time is killed; one that keeps
more than half of its memory is replaced.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from engine.errors import EngineError
from engine.intake.ipc import message_in, pack, unpack_result
from engine.intake.limits import LIMITS, Limits
from engine.intake.read_result import ReadResult

_NEEDED = re.compile(r"(PYTHON|LD_|DYLD_|LC_)|(LANG|PATH|SYSTEMROOT|FAKETIME)$")
"""Environment variables that workers inherit: those that Python and its libraries need. No secret (a site key, a password) is passed on."""
_START = 60.0
"""Seconds a worker may take to import its libraries on a cold, busy disk."""
_STARTS = 5
"""Start attempts per worker before the run gives up: one that is killed for lack of memory may start a moment later."""
_GRACE = 5.0
"""Seconds a killed worker may take to end: one that waits for a stalled network mount ends only when the kernel releases it."""
_AHEAD = 32
"""Files per worker that may be done before an earlier, slower one: bounds the results that wait to keep the order."""


def read_files(
    files: Iterable[Path | ReadResult],
    *,
    size: int,
    workers: int = 2,
    limits: Limits = LIMITS,
    plain_images: bool = False,
    known: int | None = None,
    hash_only: bool = False,
) -> Iterator[ReadResult]:
    """One ReadResult per path, in the order of the paths; paths are taken as they are needed.

    Args:
        files: paths that are to be opened (files.find_files). A ReadResult among them is handed on in its place.
        size: shorter side of the images, pixels.
        workers: child processes. 0 reads in this process: for one trusted file, without any of the limits.
        limits: what one file may cost.
        plain_images: also read plain PNG and JPEG files, as image tables name them.
        known: descriptor of digests (shared_digests.py) of contents that are not read; such files are skips with the reason KNOWN.
        hash_only: as if every file were known.

    Raises:
        EngineError: no child can be started.
    """
    if workers <= 0:
        from engine.intake.reader import read_file
        from engine.intake.shared_digests import SharedDigests

        digests = frozenset[bytes]() if known is None else SharedDigests(known)
        for each in files:
            if isinstance(each, ReadResult):
                yield each
            else:
                yield read_file(each, size=size, limits=limits, plain_images=plain_images, known=digests, hash_only=hash_only)
        return
    pool: list[_Worker] = []
    waiting, done = deque[tuple[int, Path]](), dict[int, ReadResult]()
    source, taken, next_out, exhausted, stillborn = iter(files), 0, 0, False, 0
    head = {"size": size, "plain_images": plain_images, "limits": asdict(limits), "hash_only": hash_only}
    selector = selectors.DefaultSelector()
    try:
        while True:
            while not exhausted and len(waiting) < workers and taken - next_out < workers * _AHEAD:
                try:
                    each = next(source)
                    if isinstance(each, ReadResult):
                        done[taken] = each
                    else:
                        waiting.append((taken, each))
                    taken += 1
                except StopIteration:
                    exhausted = True
            while len(pool) < min(workers, len(waiting) + sum(worker.busy for worker in pool)):
                pool.append(_Worker(selector, limits, known))
            for worker in pool:
                if waiting and worker.idle and worker.give(*waiting[0], head):
                    waiting.popleft()
            while next_out in done:
                yield done.pop(next_out)
                next_out += 1
            if exhausted and not waiting and not any(worker.busy for worker in pool):
                return
            if next_out < taken or waiting:
                lost = _wait(selector, pool, done)
                stillborn = 0 if any(worker.ready for worker in pool) else stillborn + lost
                if stillborn > _STARTS * workers:
                    why = "one child process after another ended before it could read"
                    raise EngineError("worker processes do not start", why=why, hint="run `mmclip doctor`")
    finally:
        for worker in pool:
            worker.end()
        selector.close()


def _wait(selector: selectors.BaseSelector, pool: list[_Worker], done: dict[int, ReadResult]) -> int:
    """Wait for the next answer, death or deadline; finished files go to `done`, dead workers leave the pool.

    Gives the number of those that had not become ready.
    """
    until = min(worker.deadline for worker in pool)
    events = selector.select(None if math.isinf(until) else max(0.0, until - time.monotonic()))
    for key, _ in events:
        worker: _Worker = key.data
        answer = worker.hear()
        if answer is not None:
            done[answer[0]] = answer[1]
    now, stillborn = time.monotonic(), 0
    for worker in [worker for worker in pool if worker.dead or worker.deadline <= now]:
        lost = worker.lose("decode_crash" if worker.dead else "decode_timeout")
        if lost is not None:
            done[lost[0]] = lost[1]
        pool.remove(worker)
        stillborn += not worker.ready
    return stillborn


class _Worker:
    """One worker process: starting, idle, busy with one file, or dead."""

    def __init__(self, selector: selectors.BaseSelector, limits: Limits, known: int | None = None) -> None:
        house = str(Path(__file__).resolve().parents[2])  # found also where sys.path holds '' and the working folder was removed
        environment = {name: value for name, value in os.environ.items() if _NEEDED.match(name)}
        environment |= {"PYTHONPATH": os.pathsep.join([house, *filter(None, sys.path)]), "PYTHONWARNINGS": "ignore"}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        command = [sys.executable, "-c", f"from engine.intake.sandbox import serve; serve({known})"]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                bufsize=0,
                close_fds=True,
                pass_fds=() if known is None else (known,),
            )
        except OSError as error:
            raise EngineError("no worker process can be started", why=os.strerror(error.errno or 0)) from None
        assert self.process.stdin is not None and self.process.stdout is not None
        self.requests, self.answers = self.process.stdin, self.process.stdout
        self.selector, self.limits = selector, limits
        self.buffer = bytearray()
        self.ready = self.dead = False
        self.task: tuple[int, Path] | None = None
        self.deadline = time.monotonic() + _START
        os.set_blocking(self.answers.fileno(), False)
        selector.register(self.answers, selectors.EVENT_READ, self)

    @property
    def busy(self) -> bool:
        return self.task is not None

    @property
    def idle(self) -> bool:
        return self.ready and not self.dead and self.task is None

    def give(self, number: int, path: Path, head: dict[str, object]) -> bool:
        """Send one file and start its clock; False where the worker died while it was idle."""
        try:
            self.requests.write(pack(head, os.fsencode(path)))
        except OSError:
            self.dead = True
            return False
        self.task = number, path
        self.deadline = time.monotonic() + self.limits.seconds
        return True

    def hear(self) -> tuple[int, ReadResult] | None:
        """Read the worker's output: the finished file, or None; sets `dead` at the end of its stream or for an answer that is not valid."""
        try:
            chunk = os.read(self.answers.fileno(), 1 << 20)
        except BlockingIOError:
            return None
        except OSError:
            chunk = b""
        if not chunk:
            self.dead = True
            return None
        self.buffer += chunk
        try:
            message = message_in(self.buffer)
            if message is None:
                return None
            if not self.ready:
                self.ready, self.deadline = True, math.inf
                return None
            if self.task is None:
                raise ValueError("an answer without a request")
            number, path = self.task
            reading = unpack_result(path, *message)
        except (ValueError, KeyError, TypeError):
            self.dead = True
            return None
        self.task, self.deadline = None, math.inf
        self.dead = bool(message[0].get("spent"))
        return number, reading

    def lose(self, reason: str) -> tuple[int, ReadResult] | None:
        """Kill the worker; the file it was reading gets `reason`.

        Raises:
            EngineError: it did not start in time.
        """
        task, hung = self.task, not self.ready and not self.dead
        self.end()
        if hung:
            why = f"a child process stayed silent for {_START:.0f} s before it could read"
            raise EngineError("worker processes do not start", why=why, hint="run `mmclip doctor`")
        return None if task is None else (task[0], ReadResult(task[1], "reject", reason))

    def end(self) -> None:
        """Kill the worker and wait for its end; safe to call twice."""
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(self.answers)
        for stream in (self.requests, self.answers):
            with contextlib.suppress(OSError):
                stream.close()
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE)
