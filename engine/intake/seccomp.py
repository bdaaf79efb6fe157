"""Sandbox for worker processes: no_new_privs and a seccomp filter, installed before the first file is read.

    no_new_privs  a program that is started gains no rights (PR_SET_NO_NEW_PRIVS, Linux)
    seccomp       refuses to start programs and processes, open sockets, make, write, rename, remove or chmod files, and signal or trace
                  other processes (Linux on x86-64; elsewhere there is no filter)

Threads, memory and reading files stay allowed. sandbox.py sets limits of memory and file size; workers.py passes on an environment
without secrets.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys

_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2  # linux/prctl.h, linux/seccomp.h
_X86_64 = 0xC000003E  # AUDIT_ARCH_X86_64
_X32 = 0x40000000  # system calls of the x32 kind are numbered from here
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # struct seccomp_data
_WRITING = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
_THREAD = 0x10000  # CLONE_THREAD

_REFUSED = {
    "programs": (57, 58, 59, 322),  # fork, vfork, execve, execveat
    "sockets": (41, 42, 49, 53),  # socket, connect, bind, socketpair
    # truncate, rename, mkdir, creat, link, ...
    "names": (76, 77, 82, 83, 84, 85, 86, 87, 88, 133, 258, 259, 263, 264, 265, 266, 316),
    "rights": (90, 91, 92, 93, 94, 132, 188, 189, 190, 197, 198, 199, 235, 260, 261, 268, 280, 452),  # chmod, chown, utime, xattr
    "others": (62, 101, 200, 234, 310, 311, 424, 434, 438),  # kill, ptrace, tkill, tgkill, process_vm, pidfd
    "kernel": (165, 166, 248, 249, 250, 272, 298, 308, 321, 323, 425),  # mount, keys, unshare, perf, setns, bpf, userfaultfd, io_uring
}
"""x86-64 numbers (arch/x86/entry/syscalls/syscall_64.tbl)."""
_NOT_THERE = (435, 437)
"""clone3 and openat2, whose flags a filter cannot see: ENOSYS makes the C library use the older calls."""


def confine() -> bool:
    """Install both in this process, for good; returns whether the seccomp filter is active."""
    if sys.platform != "linux":
        return False
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False
    prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    if platform.machine() != "x86_64" or struct.calcsize("P") != 8:
        return False
    code = b"".join(_program())
    instructions = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions))  # struct sock_fprog
    return bool(prctl(_SET_SECCOMP, _FILTER, ctypes.c_char_p(program), 0, 0) == 0)


def _program() -> list[bytes]:
    refuse, absent = _REFUSE | errno.EPERM, _REFUSE | errno.ENOSYS
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, _X86_64, 1, 0),
        _step(_RETURN, refuse),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, 0, 1),
        _step(_RETURN, refuse),
    ]
    for number in sorted(number for numbers in _REFUSED.values() for number in numbers):
        program += [_step(_EQUAL, number, 0, 1), _step(_RETURN, refuse)]
    for number in _NOT_THERE:
        program += [_step(_EQUAL, number, 0, 1), _step(_RETURN, absent)]
    # open(path, flags), openat(folder, path, flags): refused with a flag that writes; clone(flags): refused without CLONE_THREAD
    for number, argument, bits, with_bits, without in (
        (2, 1, _WRITING, refuse, _ALLOW),
        (257, 2, _WRITING, refuse, _ALLOW),
        (56, 0, _THREAD, _ALLOW, refuse),
    ):
        program += [
            _step(_EQUAL, number, 0, 4),
            _step(_LOAD, _ARGUMENTS + 8 * argument),
            _step(_ANY_BIT, bits, 0, 1),
            _step(_RETURN, with_bits),
            _step(_RETURN, without),
        ]
    return [*program, _step(_RETURN, _ALLOW)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction (struct sock_filter): how many instructions to skip if true, if false."""
    return struct.pack("HBBI", code, if_true, if_false, value)
