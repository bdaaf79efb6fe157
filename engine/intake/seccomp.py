"""What a worker gives up before it reads its first file, so that a decoder that was taken over finds little to do harm with.

    rights        no program it starts may gain any (PR_SET_NO_NEW_PRIVS, Linux)
    system calls  no program or process is started, no socket made, no file made, written, renamed, removed or changed in its rights, no
                  other process signalled or looked into (seccomp filter, Linux on x86-64 where the kernel has it; nothing elsewhere)

Threads, memory and reading files stay. Limits of memory and size of files are set in sandbox.py; the environment that a worker gets,
without any secret, in workers.py.
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
"""clone3 and openat2, whose flags a filter cannot see: said not to exist, so that the C library takes the older call."""


def confine() -> bool:
    """Give it all up, for good, in this process and its threads to come. Whether the filter of system calls is in force."""
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
