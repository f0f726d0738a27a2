"""Python stacks, read while the program goes on. For dump(), stall reports and warnings.

Any thread. Walking the frames of a thread that runs crashes the interpreter, and so does, without
the GIL, reading a coroutine that is being resumed. With the GIL the stacks of threads are walked in
one go (F1); without it they come from faulthandler, which stops the world, as text, and a goroutine
is kept from being resumed while its own is read (G2).
"""

from __future__ import annotations

import faulthandler
import gc
import os
import re
import sys
import threading
import traceback
from typing import Any

from gopoll.runtime import _frames
from gopoll.runtime._g import GBase

__all__ = ["of_goroutine", "of_threads", "spots"]

_THREAD = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]+)")
_FRAME = re.compile(r'  File "(.*)", line ([0-9]+) in (.*)')
_WRAPPERS = ("async_generator_asend", "async_generator_athrow", "anext_awaitable")
_INNER = ("coroutine", "async_generator", "generator", *_WRAPPERS)

# Two at once must not make the frame of one coroutine. A handler of SIGQUIT may come in between.
_reading = threading.RLock()


def _renew() -> None:
    global _reading
    _reading = threading.RLock()  # another thread of the parent may have had it


os.register_at_fork(after_in_child=_renew)


def of_threads() -> dict[int, traceback.StackSummary]:
    """Return the stack of every thread by its identifier, innermost last."""
    if not _frames.have_gil():
        return _parse(_written())
    return {
        ident: traceback.StackSummary.from_list(
            [(code.co_filename, line, code.co_name, None) for code, line in reversed(stack)]
        )
        for ident, stack in _frames.of_threads().items()
    }


def _written() -> str:
    """Return what faulthandler writes; nothing where there is no descriptor to write it to."""
    try:
        fd = os.memfd_create("gopoll-stacks")
    except OSError:
        return ""
    with os.fdopen(fd, "r+", encoding="utf-8") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


def _parse(text: str) -> dict[int, traceback.StackSummary]:
    found: dict[int, traceback.StackSummary] = {}
    stack = traceback.StackSummary()
    for line in text.splitlines():
        if head := _THREAD.match(line):
            stack = found[int(head[1], 16)] = traceback.StackSummary()
        elif frame := _FRAME.fullmatch(line):
            stack.insert(0, traceback.FrameSummary(frame[1], int(frame[2]), frame[3]))
    return found


def spots() -> dict[int, object]:
    """Return where every thread is: two equal ones say that it has not moved."""
    if not _frames.have_gil():
        return dict(_parse(_written()))
    return {ident: (frame, frame.f_lasti) for ident, frame in sys._current_frames().items()}


def _awaited(coro: Any) -> Any:
    """Return the coroutine, generator or op that *coro* awaits, or None."""
    for name in ("cr_await", "ag_await", "gi_yieldfrom"):
        inner = getattr(coro, name, None)
        if inner is not None:
            break
    else:
        return None
    while type(inner).__name__ in _WRAPPERS:
        # No attribute says what they wrap. An anext() with a default refers to another wrapper.
        inner = next((r for r in gc.get_referents(inner) if type(r).__name__ in _INNER), None)
    return inner


def of_goroutine(g: GBase) -> list[str] | None:
    """Return the stack of a goroutine that does not run, outermost first; None if it runs."""
    with _reading:
        if not g.hold():
            return None
        try:
            return _walk(g.coro)
        finally:
            g.release()


def _walk(coro: Any) -> list[str]:
    lines: list[str] = []
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        frame = frame or getattr(coro, "ag_frame", None)
        if frame is not None:
            lines += traceback.format_stack(frame, 1)
        coro = _awaited(coro)
    return lines
