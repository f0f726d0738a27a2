"""Errors that nobody can catch: told to sys.excepthook, and what follows goes on in any case.

And errors that are notes of others, or come before them. Called by contexts, the scheduler and
stall reports, on any thread.
"""

from __future__ import annotations

import inspect
import math
import sys
import traceback
from typing import Any


def tell(
    error: BaseException,
    module: Any = sys,
    show: Any = traceback.print_exception,
    every: type[BaseException] = BaseException,
    usual: type[Exception] = Exception,
) -> None:
    """Give *error* to sys.excepthook; if that raises, print both errors, as the interpreter does.

    Raises nothing. It may come when the interpreter ends and the globals of this module, and
    then Python's own names, are gone.
    """
    try:
        module.excepthook(error.__class__, error, error.__traceback__)
    except every as failed:  # SystemExit too: who calls us has more to do
        try:
            module.stderr.write("Error in sys.excepthook:\n")
            show(failed)
            module.stderr.write("\nOriginal exception was:\n")
            show(error)
        except usual:
            pass  # stderr is closed, or there is none


def check_when(name: str, when: Any) -> None:
    """Raise if *when* is no number of seconds."""
    try:
        nan = math.isnan(when)
    except TypeError:
        kind = type(when).__name__
        hint = " (with_cancel() has no deadline)" if when is None else ""
        raise TypeError(f"{name} must be seconds, not {kind}{hint}") from None
    except OverflowError:
        raise ValueError(f"{name} must be seconds: {name} is too large") from None
    if nan:
        raise ValueError(f"{name} must not be nan")


def check_plain(what: str, fn: Any) -> None:
    """Raise TypeError, which names *what*, if *fn* is no function or an async one."""
    if not callable(fn):
        raise TypeError(f"{what} takes a function, not {type(fn).__name__}")
    if inspect.iscoroutinefunction(fn):
        raise TypeError(
            f"{what} takes a plain function, not an async one, which nobody would await: see go()"
        )


def note(error: BaseException, what: str, other: BaseException, rest: str) -> None:
    """Add *what*, *other* and *rest* as a note to *error*, whatever their methods do.

    Where *error* takes none, such as an exception that is a frozen dataclass, tell() of *other*.
    """
    try:
        shown = repr(other)
    except Exception:
        shown = f"{type(other).__name__}, whose repr() fails,"
    try:
        error.add_note(f"{what} {shown}{rest}")
    except Exception:
        tell(other)
