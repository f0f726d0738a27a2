"""A seccomp filter that makes a system call fail for real, for the rest of this process.

Called in child processes of the tests (helpers.child), on their main thread, before the other
threads. The kernel refuses the call; no code of ours is replaced.
"""

import ctypes
import os
import platform
import struct

NUMBERS = {
    "x86_64": {
        "arch": 0xC000003E,
        "sendfile": 40,
        "epoll_create": 213,
        "epoll_wait": 232,
        "epoll_ctl": 233,
        "splice": 275,
        "epoll_pwait": 281,
        "eventfd2": 290,
        "epoll_create1": 291,
        "epoll_pwait2": 441,
    },
    "aarch64": {
        "arch": 0xC00000B7,
        "eventfd2": 19,
        "epoll_create1": 20,
        "epoll_ctl": 21,
        "epoll_pwait": 22,
        "sendfile": 71,
        "splice": 76,
        "epoll_pwait2": 441,
    },
}
MACHINE = platform.machine()
CALLS = NUMBERS.get(MACHINE, {})

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
RET_ALLOW = 0x7FFF0000
RET_ERRNO = 0x00050000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06


def op(code: int, k: int, jump_true: int = 0, jump_false: int = 0) -> bytes:
    """Return one instruction of the filter's language."""
    return struct.pack("=HBBI", code, jump_true, jump_false, k)


def deny(errno: int, *calls: str, argument: int = -1, equal: bool = True, value: int = 0) -> None:
    """Make *calls* fail with *errno*; names that this machine has no call for are left out.

    With argument >= 0 only where the low half of that argument is (equal=False: is not) *value*.
    """
    program = op(LOAD, 4) + op(JUMP_IF_EQUAL, CALLS["arch"], 1, 0) + op(RETURN, RET_ALLOW)
    refuse = op(RETURN, RET_ERRNO | errno)
    if argument >= 0:
        test = op(JUMP_IF_EQUAL, value, *((0, 1) if equal else (1, 0)))
        refuse = op(LOAD, 16 + 8 * argument) + test + refuse
    for name in calls:
        if name in CALLS:
            program += op(LOAD, 0) + op(JUMP_IF_EQUAL, CALLS[name], 0, len(refuse) // 8) + refuse
    program += op(RETURN, RET_ALLOW)
    install(program)


def install(program: bytes) -> None:
    """Install *program* for this thread and those it will start."""
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    here = ctypes.create_string_buffer(head, len(head))
    for args in (
        (PR_SET_NO_NEW_PRIVS, 1, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(here)),
    ):
        if prctl(*args, 0, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"prctl{args[:2]}: {os.strerror(code)}")
