"""Main loop of a worker process: reads one file at a time under limits.

Started as `python -c "from engine.intake.sandbox import serve; serve()"`, so that neither the user's main module nor torch is imported.
Requests come on standard input, answers go to a duplicate of standard output; both streams are then redirected, as native libraries may
print. The format of messages is in ipc.py.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from engine.intake.ipc import message_in, pack, pack_result


def serve(known: int | None = None) -> None:
    """Answer requests until standard input closes. `known`: descriptor of the digests that need no reading (shared_digests.py), or None."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    _die_with_parent()
    keep_freed_memory()
    sys.modules["requests"] = None  # type: ignore[assignment]  # pydicom imports it for downloads: half of its start-up time
    # imported here, as the limits below count from the memory of an idle worker
    import imagecodecs  # noqa: F401
    import PIL.BmpImagePlugin
    import PIL.Jpeg2KImagePlugin
    import PIL.JpegImagePlugin
    import PIL.PngImagePlugin
    import PIL.TiffImagePlugin
    import PIL.WebPImagePlugin  # noqa: F401

    from engine.dicom.gdcm import decode
    from engine.intake.limits import Limits
    from engine.intake.reader import read_file
    from engine.intake.seccomp import confine
    from engine.intake.shared_digests import SharedDigests

    digests = frozenset[bytes]() if known is None else SharedDigests(known)
    buffer = bytearray()
    confine()
    _send(answers, pack({"ready": True}))
    held = 0
    while (request := _next(requests, buffer)) is not None:
        head, name = request
        limits = Limits(**head["limits"])
        if not held:
            held = _limit(limits.memory, limits.file_bytes)
        reading = read_file(
            Path(os.fsdecode(name)),
            size=head["size"],
            limits=limits,
            plain_images=head["plain_images"],
            known=digests,
            hash_only=head["hash_only"],
            second=decode,
        )
        _send(answers, pack_result(reading, spent=_address_space() - held > limits.memory // 2))


def _next(requests: BinaryIO, buffer: bytearray) -> tuple[dict[str, Any], bytes] | None:
    while (message := message_in(buffer)) is None:
        chunk = requests.read(1 << 16)
        if not chunk:
            return None
        buffer += chunk
    return message


def _send(answers: BinaryIO, message: bytes) -> None:
    view = memoryview(message)
    while view:
        view = view[answers.write(view) :]


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent handles it
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() == 1:
            os._exit(0)


def keep_freed_memory() -> None:
    """Have glibc keep up to 128 MB of freed memory: every file needs a few megabytes again, and new pages are slow."""
    import ctypes

    mmap_threshold, trim_threshold, top_pad = -3, -1, -2  # malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 32 << 20)  # glibc takes no more
        mallopt(trim_threshold, 128 << 20)
        mallopt(top_pad, 16 << 20)


def _address_space() -> int:
    """Address space of this process in bytes, 0 without /proc."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    return 0


def _limit(memory: int, file_bytes: int) -> int:
    """Limit the address space to its present size (returned) plus `memory`, core dumps (they hold images and names) and files to nothing.

    The soft limit of file sizes is 0; the hard one leaves room for the anonymous file in memory of second.py, which raises the soft one for
    the moment that it writes a codestream of at most `file_bytes` there.
    """
    import resource

    held = _address_space()
    space, room = held + memory, file_bytes + (1 << 16)
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if allowed != resource.RLIM_INFINITY:
        room = min(room, allowed)
    for kind, soft, hard in ((resource.RLIMIT_AS, space, space), (resource.RLIMIT_CORE, 0, 0), (resource.RLIMIT_FSIZE, 0, room)):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (soft, hard))
    return held
