"""Errors that nobody can catch: told to sys.excepthook, and what follows goes on in any case.

And errors that are notes of others, or come before them. Called by contexts, the scheduler and
stall reports, on any thread.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from typing import Any


def tell(error: BaseException, module: Any = sys, show: Any = traceback.print_exception) -> None:
    """Give *error* to sys.excepthook; if that raises, print both errors, as the interpreter does.

    Raises nothing. It may come when the interpreter ends and the globals of this module are gone.
    """
    try:
        module.excepthook(type(error), error, error.__traceback__)
    except BaseException as failed:  # SystemExit too: who calls us has more to do
        try:
            module.stderr.write("Error in sys.excepthook:\n")
            show(failed)
            module.stderr.write("\nOriginal exception was:\n")
            show(error)
        except Exception:
            pass  # stderr is closed, or there is none


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
